"""Answers for files and folders."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING

from cxrkeras.data.images import decode_image, open_image, read_warnings
from cxrkeras.errors import InputError

if TYPE_CHECKING:  # a missing file should be told before TensorFlow is loaded
    from cxrkeras.app.predictor import Answer, Predictor

WORKERS = 4


def list_files(paths: list[Path]) -> list[Path]:
    """The files given, and all files in the folders given, hidden ones left out. InputError if none of it is there."""
    found = []
    for path in paths:
        if path.is_dir():
            inside = [p for p in sorted(path.rglob("*")) if p.is_file()]
            found += [p for p in inside if not any(part.startswith(".") for part in p.relative_to(path).parts)]
        else:
            found.append(path)
    if not any(path.exists() for path in found):
        kind = "files in" if any(path.is_dir() for path in paths) else "file or folder"
        raise InputError(f"no {kind} {', '.join(map(str, paths))}")
    return found


def answer_files(
    predictor: Predictor, files: list[Path], progress: Callable[[int, int], None] = lambda done, total: None
) -> Iterator[tuple[Path, Answer | InputError]]:
    """Answers in the order of the files; an InputError in place of one that cannot be read."""

    def work(path: Path) -> Answer | InputError:
        if not path.is_file():  # a pipe would be waited for without end
            return InputError("no such file")
        try:
            with open_image(path) as content:
                return predictor.answer(decode_image(content), warnings=read_warnings(content))
        except InputError as error:
            return error
        except OSError as error:
            return InputError(f"cannot be opened: {error.strerror}")

    with ThreadPoolExecutor(WORKERS) as pool:
        for done, pair in enumerate(zip(files, pool.map(work, files), strict=True), 1):
            progress(done, len(files))
            yield pair
