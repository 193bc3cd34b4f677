"""Locates the image files that a table names."""

from __future__ import annotations

import hashlib
import itertools
import os
import posixpath
import unicodedata
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import pandas as pd

from cxrkeras.text import num_of

IMAGE_EXTENSIONS = (".png", ".jpg", ".jpeg", ".dcm", ".dicom")


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


def list_folder(folder: Path) -> ImageFiles:
    """List the files in and below `folder`; follows links, skips hidden files."""
    found, visited, waiting = [], set(), [("", os.fspath(folder))]
    while waiting:
        prefix, path = waiting.pop()
        try:
            status = os.stat(path)
            entries = list(os.scandir(path))
        except OSError:
            continue  # a folder that may not be read: its images count as missing
        if (status.st_dev, status.st_ino) in visited:  # a link to a parent folder
            continue
        visited.add((status.st_dev, status.st_ino))
        for entry in entries:
            if entry.name.startswith("."):
                continue
            if entry.is_dir():
                waiting.append((f"{prefix}{entry.name}/", entry.path))
            else:
                found.append(prefix + entry.name)
    return ImageFiles(folder, found)


def list_files(folder: Path, roots: Iterable[Path]) -> ImageFiles:
    """List the files directly in one of the folders `roots` of `folder`."""
    found = []
    for root in dict.fromkeys(roots):
        if root.is_dir():
            inside = root.relative_to(folder).as_posix()
            found += [f"{inside}/{entry.name}" for entry in os.scandir(root) if not entry.name.startswith(".")]
    return ImageFiles(folder, found)


def locate_images(names: pd.Series, known: ImageFiles) -> Located:
    """Locate the file of each name among the known files.

    A bare name may be in any folder; two files of that name with different content are an error. A path, with `/` or
    `\\`, is relative to the folder; if none of the paths exists, leading folders are dropped or added as long as each
    path then matches exactly one file. File extensions match in any case.
    """
    ids, paths, ambiguous = [], [], {}
    texts = [_clean(name) for name in names]
    texts = [text if "\\" not in text or text in known.by_name else text.replace("\\", "/") for text in texts]
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
        paths.append(None if file is None else os.path.join(known.folder, file))
    missing = [text for text, path in zip(texts, paths, strict=True) if path is None]
    return Located(ids, paths, _describe_ambiguous(ambiguous), known.hint(missing))


def _clean(name: str) -> str:
    return unicodedata.normalize("NFC", name.strip())


def _key(path: str) -> str:
    """Return a path with its extension in lower case."""
    stem, dot, extension = path.rpartition(".")
    return stem + dot + extension.lower() if dot and "/" not in extension else path


class ImageFiles:
    """The files of a folder, as `/`-separated relative paths, by path, name and stem."""

    def __init__(self, folder: Path, paths: list[str]):
        self.folder, self.paths = folder, sorted(paths, key=lambda path: (path.count("/"), path))

    @cached_property
    def by_path(self) -> dict[str, str]:
        return {_clean(path): path for path in self.paths}

    @cached_property
    def _by_path_key(self) -> dict[str, str]:
        return {_key(_clean(path)): path for path in reversed(self.paths)}

    @cached_property
    def by_name(self) -> dict[str, list[str]]:
        return self._group(posixpath.basename)

    @cached_property
    def _by_key(self) -> dict[str, list[str]]:
        return self._group(lambda path: _key(posixpath.basename(path)))

    @cached_property
    def by_stem(self) -> dict[str, list[str]]:
        return self._group(lambda path: posixpath.splitext(posixpath.basename(path))[0])

    @cached_property
    def _depth(self) -> int:
        return max((path.count("/") + 1 for path in self.paths), default=0)

    @cached_property
    def _parts(self) -> list[tuple[str, list[str]]]:
        return [(path, _key(_clean(path)).split("/")) for path in self.paths]

    def _group(self, key: Callable[[str], str]) -> dict[str, list[str]]:
        groups: dict[str, list[str]] = {}
        for path in self.paths:
            groups.setdefault(_clean(key(path)), []).append(path)
        return groups

    def find_path(self, path: str) -> str | None:
        """Find the file of a path relative to the folder."""
        if found := self.by_path.get(path):
            return found
        if path.startswith(".") or "/." in path or "//" in path:
            path = posixpath.normpath(path)
        return self.by_path.get(path) or self._by_path_key.get(_key(path))

    def find(self, name: str) -> list[str]:
        """Find the files of a bare name, preferably with exactly the same extension."""
        return self.by_name.get(name) or self._by_key.get(_key(name), [])

    def find_suffixes(self, paths: dict[str, tuple[str, ...]]) -> dict[str, list[str]]:
        """Find, for each text, the files whose path ends in these folders and name."""
        depths = {depth for names in paths.values() if (depth := len(names)) <= self._depth}
        by_tail: dict[str, list[str]] = {}
        for file, names in self._parts if depths else ():
            for depth in depths:
                if depth <= len(names):
                    by_tail.setdefault("/".join(names[-depth:]), []).append(file)
        return {text: by_tail.get(_key("/".join(names)), []) for text, names in paths.items()}

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


def locate_by_stem(names: pd.Series, known: ImageFiles) -> Located:
    """Locate the image of each name, which lacks its extension, in any folder.

    Two files of one stem with different content are an error.
    """
    found = {}
    for name in names:
        files = known.by_stem.get(_clean(name), [])
        found[name] = [file for file in files if file.lower().endswith(IMAGE_EXTENSIONS)]
    ambiguous = {name: same for name, same in found.items() if len(same) > 1 and not known.are_equal(same)}
    paths = [os.path.join(known.folder, found[name][0]) if found[name] else None for name in names]
    return Located(list(names), paths, _describe_ambiguous(ambiguous))


def _describe_ambiguous(ambiguous: dict[str, list[str]]) -> list[str]:
    if not ambiguous:
        return []
    name, candidates = next(iter(ambiguous.items()))
    return [
        f"{num_of(len(ambiguous), 'name', 'is')} in several folders with different content (first: {name}, as "
        f"{' and as '.join(candidates[:3])}): use paths relative to the data folder instead of names, or remove files "
        "that do not belong to the data set"
    ]


def _resolve_paths(texts: list[str], known: ImageFiles) -> dict[str, str | None]:
    """Find the file of each path."""
    found = {text: known.find_path(text) for text in dict.fromkeys(texts)}
    for text, file in found.items():
        # Files that are hidden or outside the folder are not among the known ones.
        may_exist = file is None and (text.startswith("/") or "/." in f"/{text}")
        if may_exist and os.path.isfile(os.path.join(known.folder, text)):
            found[text] = os.path.relpath(known.folder / text, known.folder).replace(os.sep, "/")
    if not found or any(found.values()):
        return found
    components = {text: tuple(name for name in text.split("/") if name not in ("", ".")) for text in found}
    deepest = min(len(names) for names in components.values())
    folders = zip(*(names[:-1] for names in components.values()), strict=False)
    shared = len(list(itertools.takewhile(lambda names: len(set(names)) == 1, folders)))
    for dropped in range(deepest):  # with none dropped, the table may lack leading folders
        matching = known.find_suffixes({text: names[dropped:] for text, names in components.items()})
        counts = {len(files) for files in matching.values()}
        # Folders that all paths share may have been renamed, and some of the images may be missing then.
        if counts == {1} or (shared and dropped <= shared and counts == {0, 1}):
            return {text: files[0] if files else None for text, files in matching.items()}
    return found
