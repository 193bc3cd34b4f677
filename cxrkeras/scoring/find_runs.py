"""Look-up of run folders."""

from pathlib import Path

from cxrkeras.errors import InputError
from cxrkeras.scoring.run_files import METRICS, MODEL, RUNS_ROOT


def find_fold(run: str | None, *, with_network: bool = False) -> Path:
    """Find the folder of a finished fold: the first of a run, a fold named itself, or by default the newest.

    run: a name under experiments/runs or a path, optionally followed by `/fold<k>`. With `with_network`, the newest
    fold that has a network, and is therefore not an ensemble. Raises InputError if there is none.
    """
    if not run:
        done = [path.parent for path in RUNS_ROOT.glob(f"*/fold*/{METRICS}")]
        if with_network:
            done = [folder for folder in done if (folder / MODEL).is_file()]
        if not done:
            raise InputError(
                f"no finished run in {RUNS_ROOT}: train one with `cxrkeras demo` or `cxrkeras train --model ...`"
            )
        return max(done, key=lambda folder: (folder / METRICS).stat().st_mtime)
    return find_folds(run)[0]


def find_folds(run: str) -> list[Path]:
    """Find all finished folds of a run, or the one that is named itself. Raises as `find_run`."""
    return list_folds(find_run(run))


def find_run(run: str) -> Path:
    """Find the folder of a run with finished folds, or of a finished fold, `<run>/fold<k>`.

    The name of an experiment is sufficient if only one run has it. Raises InputError if there is none.
    """
    name, slash, fold = run.partition("/fold")
    named = [path for path in RUNS_ROOT.glob("*") if path.name[:-9] == name and path.name[-9:-8] == "-"]
    by_experiment = [path / f"{slash}{fold}".strip("/") for path in named] if len(named) == 1 else []
    for folder in (Path(run), RUNS_ROOT / run, *by_experiment):
        if list_folds(folder):
            return folder
        if folder.is_dir():
            raise InputError(f"{folder} has no finished fold; the same `cxrkeras train` resumes an unfinished one")
    known = sorted({path.parent.name for path in RUNS_ROOT.glob("*/fold*")})
    raise InputError(f"no run {run!r}; there are {', '.join(known) or 'none'} in {RUNS_ROOT}")


def list_folds(folder: Path) -> list[Path]:
    """List the finished folds in a run folder, or the folder itself if it is a finished fold."""
    return [path.parent for path in sorted([*folder.glob(METRICS), *folder.glob(f"fold*/{METRICS}")])]
