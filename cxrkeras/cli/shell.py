"""What all commands share: the application, the console, progress, options."""

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Annotated, Optional

import typer
from rich.console import Console, ConsoleOptions, RenderableType, RenderHook, RenderResult
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    ProgressColumn,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.progress import Progress as Bars
from rich.segment import Segment
from rich.text import Text

from cxrkeras.progress import Advance, Progress
from cxrkeras.tensorflow_import import import_tensorflow
from cxrkeras.text import clean

app = typer.Typer(
    no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False, rich_markup_mode="markdown"
)
LONGEST_ERROR = 2000  # characters
LONGEST_PHASE = 60


class _Cleaned:
    """A renderable without control characters and escape sequences in its texts, wherever they come from."""

    def __init__(self, inner: RenderableType):
        self.inner = inner

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        for segment in console.render(self.inner, options):
            yield segment if segment.control else Segment(clean(segment.text, keep="\n"), segment.style)


class _Cleaner(RenderHook):
    def process_renderables(self, renderables: list) -> list:
        return [_Cleaned(renderable) for renderable in renderables]


console = Console(highlight=False, soft_wrap=True, markup=False, emoji=False)  # paths may have brackets
console.push_render_hook(_Cleaner())

Seed = Annotated[int, typer.Option(min=0, max=2**31 - 1, help="The same seed gives the same result.")]
Ignore = Annotated[
    str, typer.Option(help="Columns of a CSV of your own that are neither read nor labels, separated by spaces.")
]
Normal = Annotated[
    Optional[str],
    typer.Option(help="The label that means no finding; by default No Finding, normal and the like."),
]
Kind = Annotated[
    Optional[str],
    typer.Option(help="Which data set, where several fit; `cxrkeras datasets` lists them."),
]
Views = Annotated[str, typer.Option(help="frontal: leave out images known to be lateral or oblique; all: keep them.")]
Blank = Annotated[
    Optional[str],
    typer.Option(help="What findings count as that a report (CheXpert, MIMIC) does not mention: absent or unknown."),
]
Readers = Annotated[
    Optional[str], typer.Option(help="A label of VinDr-CXR is present if most of the readers say so: majority; or any.")
]
Terms = Annotated[
    Optional[str],
    typer.Option(help="Read the labels in other terms: nih, common, or a TOML file; see `cxrkeras vocabulary`."),
]
Model = Annotated[Optional[str], typer.Option(help="A network; `cxrkeras models` lists them.")]
ExperimentFile = Annotated[Optional[str], typer.Option(help="A file under experiments/, without .toml, or a path.")]
Records = Annotated[Optional[str], typer.Option(help="A folder under records/ or a path; by default the newest.")]
Run = Annotated[Optional[str], typer.Option(help="A run or one of its folds; by default the newest finished.")]
Weights = Annotated[
    Optional[str],
    typer.Option(
        help="To start from: imagenet, none, a .keras, .weights.h5 or .safetensors file, or a run, as xrv-all."
    ),
]
Settings = Annotated[str, typer.Option("--set", help="Settings as section.key=value, separated by spaces.")]


def split_folders(texts: list[str] | None) -> list[Path]:
    """Split the names of data folders at spaces; the name of one that exists may contain them; data/nih by default."""
    paths: list[Path] = []
    for text in texts or ["data/nih"]:
        names = [text] if Path(text).exists() else text.split() or [text]
        paths += map(Path, names)
    return paths


def print_error(text: str) -> None:
    console.print(Text.assemble(("error: ", "bold red"), clean(text, LONGEST_ERROR, keep="\n")))


class BarProgress(Progress):
    """Shows the current phase as a bar, and sentences above it."""

    def __init__(self, bars: Bars, is_parallel: bool = False):
        self.bars, self.is_parallel = bars, is_parallel
        self.tasks: dict[str, TaskID] = {}

    def start(self, phase: str, total: int = 0) -> Advance:
        phase = clean(phase, LONGEST_PHASE)
        if self.is_parallel and phase in self.tasks:
            self.bars.reset(self.tasks[phase], total=total or None)
        else:
            if not self.is_parallel:
                for task in self.tasks.values():
                    self.bars.update(task, visible=False)
            self.tasks[phase] = self.bars.add_task(phase, total=total or None)
        return partial(self._advance, self.tasks[phase])

    def _advance(self, task: TaskID, count: int = 1) -> None:
        self.bars.advance(task, count)

    def say(self, sentence: str) -> None:
        self.bars.console.print(sentence)


@contextmanager
def show_progress(*columns: ProgressColumn, is_parallel: bool = False) -> Iterator[BarProgress]:
    """Bars with a time left while the block runs; with `is_parallel` one for each phase, side by side."""
    columns = columns or (BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(), TimeRemainingColumn())
    shown = (TextColumn("{task.description}", markup=False), *columns)
    with Bars(*shown, console=console, transient=True, disable=not console.is_terminal) as bars:
        yield BarProgress(bars, is_parallel)


def load_tensorflow() -> None:
    with console.status("loading TensorFlow"):
        import_tensorflow()


@contextmanager
def hint_resume_on_interrupt() -> Iterator[None]:
    try:
        yield
    except KeyboardInterrupt:
        console.print("interrupted: the same command resumes from what is saved")
        raise typer.Exit(130) from None
