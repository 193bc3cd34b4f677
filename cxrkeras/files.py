"""Files of ours: written whole or not at all, held by one process at a time, JSON with a shape."""

import errno
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pydantic

from cxrkeras.errors import InputError

NO_LOCKS = "CXRKERAS_NO_LOCKS"  # environment variable
_WITHOUT_LOCKS = (errno.ENOLCK, errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP)


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Give the path of a draft that takes the place of `path` once it is written; it is deleted if that fails."""
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
    """Hold a lock file for this process; InputError with the sentence `refusal` where another one holds it.

    The file stays: to delete it while somebody waits for it would let two in.
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
    """Make a folder for results; InputError where something else is in its place or none may be written there."""
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"{path} cannot be a folder for results ({error.strerror}): move away what is there") from None


def write_text(path: Path, text: str) -> None:
    """Write a file that is either whole or not there, also after a crash or on a full disk."""
    with replacing(path) as draft:
        draft.write_text(text, "utf-8")


def write_bytes(path: Path, content: bytes) -> None:
    """The same for bytes."""
    with replacing(path) as draft:
        draft.write_bytes(content)


def write_json(path: Path, content: dict) -> None:
    write_text(path, json.dumps(content, indent=1) + "\n")


def load_shaped(path: Path, shape: type[pydantic.BaseModel]) -> dict:
    """Read a file of ours whose values have a known shape; InputError that names the file and the value."""
    content = load_json(path)
    try:
        shape.model_validate(content)
    except pydantic.ValidationError as error:
        first = error.errors()[0]
        place = ".".join(map(str, first["loc"]))
        raise InputError(f"{path} is damaged ({place}: {first['msg']}): bring it back, or make it anew") from None
    return content


def load_json(path: Path, keys: tuple[str, ...] = ()) -> dict:
    """Read a file of ours; InputError that names it if it is gone, is not JSON or lacks one of `keys`."""
    if not path.is_file():
        raise InputError(f"{path} is gone: bring it back, or delete its folder and make it anew")
    try:
        content = json.loads(path.read_text("utf-8"))
        if not isinstance(content, dict):
            raise ValueError(f"it holds {str(content)[:20]!r}")
        if missing := [key for key in keys if key not in content]:
            raise ValueError(f"it lacks {', '.join(missing)}")
    except (ValueError, TypeError) as error:
        raise InputError(f"{path} is damaged ({error}): bring it back, or make it anew") from None
    return content
