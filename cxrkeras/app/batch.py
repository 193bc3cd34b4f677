"""Answers for files and folders, as a table."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING

import pandas as pd

from cxrkeras import labels
from cxrkeras.data.images import decode_image
from cxrkeras.errors import InputError

if TYPE_CHECKING:  # a missing file should be told before TensorFlow is loaded
    from cxrkeras.app.predictor import Answer, Predictor

_FORMULA = ("=", "+", "-", "@", "\t", "\r")  # how cells begin that a spreadsheet would compute
WORKERS = 4


def list_files(paths: list[Path]) -> list[Path]:
    """The files given, and all files in the folders given, hidden ones left out. InputError for what is not there."""
    found = []
    for path in paths:
        if path.is_dir():
            inside = [p for p in sorted(path.rglob("*")) if p.is_file()]
            found += [p for p in inside if not any(part.startswith(".") for part in p.relative_to(path).parts)]
        elif path.is_file():
            found.append(path)
        else:
            raise InputError(f"no file or folder {path}")
    if not found:
        raise InputError(f"no files in {', '.join(map(str, paths))}")
    return found


def answer_files(
    predictor: Predictor, files: list[Path], progress: Callable[[int, int], None] = lambda done, total: None
) -> Iterator[tuple[Path, Answer | InputError]]:
    """Answers in the order of the files; an InputError in place of one that cannot be read."""

    def work(path: Path) -> Answer | InputError:
        try:
            return predictor.answer(decode_image(path.read_bytes()))
        except InputError as error:
            return error
        except OSError as error:
            return InputError(f"cannot be opened: {error.strerror}")

    with ThreadPoolExecutor(WORKERS) as pool:
        for done, pair in enumerate(zip(files, pool.map(work, files), strict=True), 1):
            progress(done, len(files))
            yield pair


def tabulate_answers(
    answers: list[tuple[Path, Answer | InputError]], thresholds: dict[str, float | None]
) -> pd.DataFrame:
    """A row a file: file, problem, warnings, found, a calibrated probability a label, and its threshold.

    Texts that a spreadsheet would take for a formula are led by an apostrophe.
    """
    rows = []
    for path, answer in answers:
        row = {"file": neutralise(str(path))}
        if isinstance(answer, InputError):
            row["problem"] = neutralise(str(answer))
        else:
            row |= {"warnings": "; ".join(answer.warnings), "found": "|".join(answer.found)}
            row |= {f"prob_{label}": answer.probs[label] for label in labels.LABELS}
        rows.append(row | {f"threshold_{label}": thresholds[label] for label in labels.LABELS})
    columns = ["file", "problem", "warnings", "found"]
    columns += [f"{kind}_{label}" for kind in ("prob", "threshold") for label in labels.LABELS]
    return pd.DataFrame(rows).reindex(columns=columns)


def neutralise(text: str) -> str:
    """The text of a cell that no spreadsheet computes."""
    return f"'{text}" if text.startswith(_FORMULA) else text
