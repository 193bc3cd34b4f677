"""Locates the image files that a table names."""

import hashlib
import os
import posixpath
import unicodedata
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

import pandas as pd

from cxrkeras.text import num_of


@dataclass
class Located:
    """Where the images of a table are.

    ids: the name in the table or the path relative to the data folder; paths: of the files, None where there is none;
    errors: sentences about names that match several files; hints: sentences about files that nearly match a missing
    name.
    """

    ids: list[str]
    paths: list[str | None]
    errors: list[str] = field(default_factory=list)
    hints: list[str] = field(default_factory=list)


def list_folder(folder: Path) -> list[str]:
    """List the files in and below `folder`, as `/`-separated relative paths; follows links, skips hidden files."""
    found, visited = [], set()
    for root, folders, files in os.walk(folder, followlinks=True):
        real = os.path.realpath(root)
        if real in visited:  # a link to a parent folder
            folders.clear()
            continue
        visited.add(real)
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        inside = os.path.relpath(root, folder).replace(os.sep, "/")
        found += [posixpath.normpath(f"{inside}/{name}") for name in files if not name.startswith(".")]
    return sorted(found)


def list_files(folder: Path, roots: Iterable[Path]) -> list[str]:
    """List the files directly in one of the folders `roots` of `folder`, as relative paths."""
    found = []
    for root in dict.fromkeys(roots):
        if root.is_dir():
            inside = root.relative_to(folder).as_posix()
            found += [f"{inside}/{entry.name}" for entry in os.scandir(root) if not entry.name.startswith(".")]
    return sorted(found)


def locate_images(names: pd.Series, folder: Path, files: list[str]) -> Located:
    """Locate the file of each name among `files`, paths relative to `folder`.

    A bare name may be in any folder; two files of that name with different content are an error. A path, with `/` or
    `\\`, is relative to the folder; if none of the paths exists, leading folders are dropped or added as long as each
    path then matches exactly one file. File extensions match in any case.
    """
    known = _Files(folder, files)
    ids, paths, ambiguous = [], [], {}
    texts = [text if (text := _clean(name)) in known.by_name else text.replace("\\", "/") for name in names]
    is_path = ["/" in text for text in texts]
    resolved = _resolve_paths([text for text, deep in zip(texts, is_path, strict=True) if deep], known)
    for text, deep in zip(texts, is_path, strict=True):
        if deep:
            file = resolved[text]
            ids.append(file or posixpath.normpath(text))
        else:
            candidates = known.find(text)
            file = candidates[0] if candidates else None
            if len(candidates) > 1 and not known.are_equal(candidates):
                ambiguous[text] = candidates
            ids.append(text)
        paths.append(None if file is None else os.path.join(folder, file))
    missing = [text for text, path in zip(texts, paths, strict=True) if path is None]
    errors = []
    if ambiguous:
        name, candidates = next(iter(ambiguous.items()))
        errors.append(
            f"{num_of(len(ambiguous), 'name', 'is')} in several folders with different content (first: {name}, as "
            f"{' and as '.join(candidates[:3])}): use paths relative to the data folder instead of names, or remove "
            "files that do not belong to the data set"
        )
    return Located(ids, paths, errors, known.hint(missing))


def _clean(name: str) -> str:
    return unicodedata.normalize("NFC", name.strip())


def _key(path: str) -> str:
    """Return a path with its extension in lower case."""
    stem, extension = posixpath.splitext(path)
    return stem + extension.lower()


class _Files:
    """The files of a folder by name, by path and by stem."""

    def __init__(self, folder: Path, files: list[str]):
        self.folder = folder
        self.by_name: dict[str, list[str]] = {}
        self.by_key: dict[str, list[str]] = {}
        self.by_stem: dict[str, list[str]] = {}
        self.by_path: dict[str, str] = {}
        self.by_path_key: dict[str, str] = {}
        for file in sorted(files, key=lambda path: (path.count("/"), path)):
            name = _clean(posixpath.basename(file))
            self.by_name.setdefault(name, []).append(file)
            self.by_key.setdefault(_key(name), []).append(file)
            self.by_stem.setdefault(posixpath.splitext(name)[0], []).append(file)
            self.by_path[_clean(file)] = file
            self.by_path_key.setdefault(_key(_clean(file)), file)

    def find_path(self, path: str) -> str | None:
        """Find the file of a path relative to the folder."""
        path = posixpath.normpath(path)
        return self.by_path.get(path) or self.by_path_key.get(_key(path))

    def find(self, name: str) -> list[str]:
        """Find the files of a bare name, preferably with exactly the same extension."""
        return self.by_name.get(name) or self.by_key.get(_key(name), [])

    def find_suffix(self, names: tuple[str, ...]) -> list[str]:
        """Find the files whose path ends in these folders and name."""
        tail = "/" + _key("/".join(names))
        return [file for file in self.by_key.get(_key(names[-1]), []) if ("/" + _key(_clean(file))).endswith(tail)]

    def are_equal(self, files: list[str]) -> bool:
        """Whether the files have the same bytes."""
        paths = [os.path.join(self.folder, file) for file in files]
        try:
            if len({os.stat(path).st_size for path in paths}) > 1:
                return False
            digests = set()
            for path in paths:
                with open(path, "rb") as file:
                    digests.add(hashlib.file_digest(file, "sha256").digest())
        except OSError:
            return False
        return len(digests) == 1

    def hint(self, missing: list[str]) -> list[str]:
        """Describe missing names whose stem exists with another extension."""
        near = {}
        for text in missing:
            name = posixpath.basename(text)
            stem, extension = posixpath.splitext(name)
            files = self.by_stem.get(stem) or (self.by_stem.get(name) if not extension else None)
            if files:
                near[text] = files[0]
        if not near:
            return []
        name, file = next(iter(near.items()))
        return [f"{num_of(len(near), 'missing name', 'has')} a file with another extension (first: {name} as {file})"]


def _resolve_paths(texts: list[str], known: _Files) -> dict[str, str | None]:
    """Find the file of each path."""
    found = {text: known.find_path(text) for text in dict.fromkeys(texts)}
    for text, file in found.items():
        if file is None and os.path.isfile(known.folder / text):  # hidden, or outside the folder
            found[text] = os.path.relpath(known.folder / text, known.folder).replace(os.sep, "/")
    if not found or any(found.values()):
        return found
    components = {text: tuple(name for name in text.split("/") if name not in ("", ".")) for text in found}
    deepest = min(len(names) for names in components.values())
    for dropped in range(deepest):  # with none dropped, the table may lack leading folders
        matching = {text: known.find_suffix(names[dropped:]) for text, names in components.items()}
        if all(len(files) == 1 for files in matching.values()):
            return {text: files[0] for text, files in matching.items()}
    return found
