"""Answers for files and folders."""

from __future__ import annotations

import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING

from cxrkeras.data.images import decode_image, open_image, read_warnings
from cxrkeras.errors import InputError
from cxrkeras.progress import SILENT, Progress

if TYPE_CHECKING:  # a missing file should be reported before TensorFlow is loaded
    from cxrkeras.predict.predictor import Answer, Predictor

WORKERS = 4


def list_files(paths: list[Path]) -> list[Path]:
    """The files given, and all files in the folders given, hidden ones left out. InputError if none of it is there."""
    found = []
    for path in paths:
        if os.path.isdir(path):  # unlike Path's, False for names that are too long
            found += [Path(folder, name) for folder, name in _walk(path)]
        else:
            found.append(path)
    if not any(os.path.exists(path) for path in found):
        kind = "files in" if any(os.path.isdir(path) for path in paths) else "file or folder"
        raise InputError(f"no {kind} {', '.join(map(str, paths))}")
    return found


def _walk(path: Path) -> Iterator[tuple[str, str]]:
    """Folder and name of each file below `path` that is not hidden. InputError for a folder that cannot be read."""

    def refuse(error: OSError) -> None:
        raise InputError(f"cannot read the folder {error.filename}: {error.strerror}")

    for folder, folders, names in os.walk(path, onerror=refuse):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        yield from ((folder, name) for name in sorted(names) if not name.startswith("."))


def answer_files(
    predictor: Predictor, files: list[Path], progress: Progress = SILENT
) -> Iterator[tuple[Path, Answer | InputError]]:
    """Answers in the order of the files; an InputError in place of one that cannot be read."""

    def work(path: Path) -> Answer | InputError:
        if not os.path.isfile(path):  # a pipe would be waited for without end
            return InputError("no such file" if not os.path.exists(path) else "not a file, but a pipe or a device")
        try:
            with open_image(path) as content:
                grey = decode_image(content, preparation=predictor.facts.preparation)
                return predictor.answer(grey, warnings=read_warnings(content))
        except InputError as error:
            return error
        except OSError as error:
            return InputError(f"cannot be opened: {error.strerror}")

    advance = progress.start("predicting", len(files))
    with ThreadPoolExecutor(WORKERS) as pool:
        for pair in zip(files, pool.map(work, files), strict=True):
            advance()
            yield pair
