"""The package's own files: atomic writes, locks between processes, validated JSON."""

import errno
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

import pydantic

from cxrkeras.errors import InputError

Shape = TypeVar("Shape", bound=pydantic.BaseModel)
NO_LOCKS = "CXRKERAS_NO_LOCKS"  # environment variable
_WITHOUT_LOCKS = (errno.ENOLCK, errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP)


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Yield the path of a draft, which replaces `path` once it is written; on failure the draft is deleted."""
    draft = path.with_name(f".draft-{path.name}")
    try:
        yield draft
        with draft.open("rb") as file:
            os.fsync(file.fileno())
        draft.replace(path)
    finally:
        draft.unlink(missing_ok=True)


@contextmanager
def locked(lock: Path, refusal: str) -> Iterator[None]:
    """Hold a lock file for this process. Raises InputError with the message `refusal` if another process holds it.

    The file is never deleted: doing so while another process waits for it would let two processes in.
    """
    import filelock

    if os.environ.get(NO_LOCKS):
        yield
        return
    held = filelock.FileLock(lock, fallback_to_soft=False)
    try:
        held.acquire(blocking=False)
    except filelock.Timeout:
        raise InputError(refusal) from None
    except (NotImplementedError, OSError) as error:
        if isinstance(error, OSError) and error.errno not in _WITHOUT_LOCKS:
            raise
        raise InputError(
            f"{lock.parent} is on a file system without locks, on which two processes could write the same files: use "
            f"another disk, or set {NO_LOCKS}=1 if only one process writes there"
        ) from None
    try:
        yield
    finally:
        held.release()


def make_folder(path: Path) -> None:
    """Create an output folder. Raises InputError if its path is taken or not writable."""
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(
            f"cannot create the output folder {path} ({error.strerror}): move away what is there"
        ) from None


def write_text(path: Path, text: str) -> None:
    """Write a text file atomically: a crash or a full disk leaves the previous state, never a partial file."""
    with replacing(path) as draft:
        draft.write_text(text, "utf-8")


def write_bytes(path: Path, content: bytes) -> None:
    """Write bytes atomically, as `write_text`."""
    with replacing(path) as draft:
        draft.write_bytes(content)


def write_json(path: Path, content: dict[str, Any]) -> None:
    """Write JSON atomically, as `write_text`."""
    write_text(path, json.dumps(content, indent=1) + "\n")


def load_shaped(path: Path, shape: type[Shape]) -> Shape:
    """Load one of the package's JSON files, validated by `shape`. Raises InputError naming the file and the value."""
    try:
        return shape.model_validate(load_json(path))
    except pydantic.ValidationError as error:
        first = error.errors()[0]
        place = ".".join(map(str, first["loc"]))
        raise InputError(f"{path} is damaged ({place}: {first['msg']}): restore or recreate it") from None


def load_json(path: Path, keys: tuple[str, ...] = ()) -> dict[str, Any]:
    """Load one of the package's JSON files. Raises InputError if it is missing, not JSON or lacks one of `keys`."""
    if not path.is_file():
        raise InputError(f"{path} is gone: restore it, or delete and recreate its folder")
    try:
        content = json.loads(path.read_text("utf-8"))
        if not isinstance(content, dict):
            raise ValueError(f"it holds {str(content)[:20]!r}")
        if missing := [key for key in keys if key not in content]:
            raise ValueError(f"it lacks {', '.join(missing)}")
    except (ValueError, TypeError) as error:
        raise InputError(f"{path} is damaged ({error}): restore or recreate it") from None
    return content
