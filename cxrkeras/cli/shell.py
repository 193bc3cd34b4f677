"""What all commands share: the application, the console, progress, options."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Annotated, Optional

import typer
from rich.console import Console, ConsoleOptions, RenderableType, RenderHook, RenderResult
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.segment import Segment
from rich.text import Text

from cxrkeras.tensorflow_import import import_tensorflow
from cxrkeras.text import clean

app = typer.Typer(
    no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False, rich_markup_mode="markdown"
)
LONGEST_ERROR = 2000  # characters


class _Cleaned:
    """Something to print whose texts come without control characters and escape sequences, whoever put them in."""

    def __init__(self, inner: RenderableType):
        self.inner = inner

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        for segment in console.render(self.inner, options):
            yield segment if segment.control else Segment(clean(segment.text, keep="\n"), segment.style)


class _Cleaner(RenderHook):
    def process_renderables(self, renderables: list) -> list:
        return [_Cleaned(each) for each in renderables]


console = Console(highlight=False, soft_wrap=True, markup=False, emoji=False)  # paths may have brackets
console.push_render_hook(_Cleaner())

Seed = Annotated[int, typer.Option(min=0, max=2**31 - 1, help="The same seed gives the same result.")]
Model = Annotated[Optional[str], typer.Option(help="A network; `cxrkeras models` lists them.")]
ExperimentFile = Annotated[Optional[str], typer.Option(help="A file under experiments/, without .toml, or a path.")]
Records = Annotated[Optional[str], typer.Option(help="A folder under records/ or a path; by default the newest.")]
Run = Annotated[Optional[str], typer.Option(help="A run or one of its folds; by default the newest finished.")]
Weights = Annotated[
    Optional[str], typer.Option(help="imagenet, none, or a .keras, .weights.h5 or .safetensors file to start from.")
]
Settings = Annotated[str, typer.Option("--set", help="Settings as section.key=value, separated by spaces.")]


def print_error(text: str) -> None:
    console.print(Text.assemble(("error: ", "bold red"), clean(text, LONGEST_ERROR, keep="\n")))


@contextmanager
def show_bar() -> Iterator[Progress]:
    columns = (
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as progress:
        yield progress


@contextmanager
def show_count(description: str) -> Iterator:
    with show_bar() as progress:
        task = progress.add_task(description, total=None)
        yield lambda done, total: progress.update(task, completed=done, total=total)


def load_tensorflow() -> None:
    with console.status("loading TensorFlow"):
        import_tensorflow()


@contextmanager
def say_how_to_go_on() -> Iterator[None]:
    try:
        yield
    except KeyboardInterrupt:
        console.print("interrupted: the same command goes on from what is saved")
        raise typer.Exit(130) from None


@contextmanager
def show_phases() -> Iterator:
    """Progress of work in phases: a function of a phase's name, the units done and all."""
    with show_bar() as progress:
        tasks = {}

        def show(phase: str, done: int, total: int) -> None:
            if phase not in tasks:
                tasks[phase] = progress.add_task(phase)
            progress.update(tasks[phase], completed=done, total=total)

        yield show
