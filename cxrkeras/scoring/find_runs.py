"""Look-up of run folders."""

import json
from pathlib import Path

from cxrkeras.config import CONFIG
from cxrkeras.errors import InputError
from cxrkeras.models.public_table import load_public_networks
from cxrkeras.scoring.packs import SUFFIX, fetch_pack, install_pack
from cxrkeras.scoring.run_files import METRICS, MODEL, RUNS_ROOT

NO_RUN = "`cxrkeras adopt` brings a public network, `cxrkeras demo` or `cxrkeras train --model ...` trains one"


def find_fold(run: str | None, *, with_network: bool = False) -> Path:
    """Find the folder of a finished fold: the first of a run, a fold named itself, or by default the newest.

    run: a name under experiments/runs or a path, optionally followed by `/fold<k>`. With `with_network`, the newest
    fold that has a network, and is therefore not an ensemble. Without a trained run, the newest adopted network is
    found. Raises InputError if there is none.
    """
    if run:
        return find_folds(run)[0]
    trained = [path.parent for path in RUNS_ROOT.glob(f"*/fold*/{METRICS}")]
    if with_network:
        trained = [folder for folder in trained if (folder / MODEL).is_file()]
    adopted = [] if trained else [path.parent for path in RUNS_ROOT.glob(f"*/fold*/{CONFIG}") if _is_adopted(path)]
    if not (trained or adopted):
        raise InputError(f"no finished run in {RUNS_ROOT}: {NO_RUN}")
    return max(trained or adopted, key=lambda folder: date_fold(folder))


def date_fold(folder: Path) -> float:
    """Return when a fold was finished, in seconds since 1970."""
    metrics = folder / METRICS
    return (metrics if metrics.is_file() else folder / CONFIG).stat().st_mtime


def find_folds(run: str) -> list[Path]:
    """Find all finished folds of a run, or the one that is named itself. Raises as `find_run`."""
    return list_folds(find_run(run))


def find_run(run: str) -> Path:
    """Find the folder of a run with finished folds, or of a finished fold, `<run>/fold<k>`.

    The name of an experiment is sufficient if only one run has it. A pack, `file.cxr.zip`, is installed first, as
    `cxrkeras adopt` does. Raises InputError if there is none.
    """
    if run.endswith(SUFFIX):
        folder, _ = install_pack(fetch_pack(run))
        return folder.parent
    name, slash, fold = run.partition("/fold")
    named = [path for path in RUNS_ROOT.glob("*") if path.name[:-9] == name and path.name[-9:-8] == "-"]
    by_experiment = [path / f"{slash}{fold}".strip("/") for path in named] if len(named) == 1 else []
    for folder in (Path(run), RUNS_ROOT / run, *by_experiment):
        if list_folds(folder):
            return folder
        if folder.is_dir():
            raise InputError(f"{folder} has no finished fold; the same `cxrkeras train` resumes an unfinished one")
    known = sorted({path.parent.name for path in RUNS_ROOT.glob("*/fold*")})
    hint = f"`cxrkeras adopt {run}` brings it" if run in load_public_networks() else NO_RUN
    raise InputError(f"no run {run!r}; there are {', '.join(known) or 'none'} in {RUNS_ROOT}: {hint}")


def list_folds(folder: Path) -> list[Path]:
    """List the finished folds in a run folder, or the folder itself if it is a finished fold."""
    return [path for path in [folder, *sorted(folder.glob("fold*"))] if is_finished(path)]


def is_finished(folder: Path) -> bool:
    """Whether a folder is a fold with scores, which are written last, or an adopted network, written at once."""
    return (folder / METRICS).is_file() or _is_adopted(folder / CONFIG)


def _is_adopted(path: Path) -> bool:
    try:
        return bool(json.loads(path.read_text("utf-8")).get("adopted")) and path.with_name(MODEL).is_file()
    except (OSError, ValueError, AttributeError):
        return False
