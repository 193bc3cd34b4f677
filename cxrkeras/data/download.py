"""Fetches one file over HTTP: progress, resume, retries, checksum, and a clear word when there is no network."""

import contextlib
import hashlib
import http.client
import shutil
import socket
import threading
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable
from http import HTTPStatus
from pathlib import Path

from cxrkeras.errors import InputError

TIMEOUT = 3.0  # seconds without a byte
CHUNK = 1 << 20
MD5_DIGITS = 32
SPARE = 100 << 20  # bytes to leave on the disk


class _Broken(Exception):
    """The connection failed in a way that another attempt may mend."""


def download_file(
    url: str,
    path: Path,
    *,
    digest: str | None,
    attempts: int = 1,
    pause: float = 2.0,
    timeout: float = TIMEOUT,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> Path:
    """Download `url` to `path` unless it is there; a half file, `<path>.part`, is taken up where it ends.

    A broken connection is tried again after `pause` seconds, until `attempts` in a row bring no new byte.
    `progress` is called with the bytes had and, if the server tells, wanted (else 0). The file appears under its
    name only when `digest` is right (see `check_digest`; None if there is none to compare). Raises InputError if the
    server cannot be reached, breaks off or sends something else, or the disk is too small.
    """
    if path.is_file():
        return path
    part = path.with_name(path.name + ".part")
    part.parent.mkdir(parents=True, exist_ok=True)
    fruitless = 0
    while True:
        before = _size(part)
        try:
            _fetch(url, part, timeout, progress)
            break
        except _Broken as error:
            fruitless = 0 if _size(part) > before else fruitless + 1
            if fruitless >= attempts or attempts == 1:
                raise InputError(str(error)) from None
            time.sleep(pause)
    if digest:
        try:
            check_digest(part, digest, url)
        except InputError as error:
            part.unlink()
            raise InputError(f"{error}. It was thrown away: try again") from None
    return part.replace(path)


def check_digest(path: Path, digest: str, source: str) -> None:
    """Raise InputError unless a file has this MD5 sum (32 hex digits) or SHA-256 (64, or the first few)."""
    kind = "MD5" if len(digest) == MD5_DIGITS else "SHA-256"
    with path.open("rb") as file:
        found = hashlib.file_digest(file, kind.replace("-", "").lower()).hexdigest()
    if not found.startswith(digest):
        raise InputError(f"{source} came with the {kind} sum {found}; wanted {digest}")


def _size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0


def _fetch(url: str, part: Path, timeout: float, progress: Callable[[int, int], None]) -> None:
    """Bring `part` to its full length; _Broken if the connection fails."""
    have = _size(part)
    _resolve(url, timeout)
    request = urllib.request.Request(url, headers={"Range": f"bytes={have}-"} if have else {})
    try:
        with urllib.request.urlopen(request, timeout=timeout) as answer:
            if answer.status != HTTPStatus.PARTIAL_CONTENT:
                have = 0  # the server sends all of it
            length = answer.headers.get("Content-Length")
            total = have + int(length) if length else 0
            _check_space(part, total - have)
            with part.open("ab" if have else "wb") as file:
                while chunk := answer.read(CHUNK):
                    have += file.write(chunk)
                    progress(have, total)
    except urllib.error.HTTPError as error:
        error.close()
        if error.code == HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE:
            return  # there is nothing after what we have; the checksum tells whether it is right
        kind = _Broken if error.code >= HTTPStatus.INTERNAL_SERVER_ERROR else InputError
        raise kind(f"{url} answered {error.code} {error.reason}") from None
    except http.client.IncompleteRead as error:
        with part.open("ab") as file:
            file.write(error.partial)
        raise _Broken(f"{url} broke off: the same command goes on from there") from None
    except (urllib.error.URLError, TimeoutError, ConnectionError, http.client.HTTPException) as error:
        reason = getattr(error, "reason", error)
        raise _Broken(f"cannot fetch {url} ({reason}). Is this machine online?") from None
    if have < total:
        raise _Broken(f"{url} broke off after {have:,} of {total:,} bytes: the same command goes on from there")


def _resolve(url: str, timeout: float) -> None:
    """Look the host's name up within the time limit, which urllib's own does not cover."""
    host = urllib.parse.urlsplit(url).hostname
    lookup = threading.Thread(target=_look_up, args=(host,), daemon=True)
    lookup.start()
    lookup.join(timeout)
    if lookup.is_alive():
        raise _Broken(f"cannot fetch {url} (nobody answers for the name {host}). Is this machine online?")


def _look_up(host: str) -> None:
    with contextlib.suppress(OSError):  # urllib meets the same error, and tells it
        socket.getaddrinfo(host, None)


def _check_space(part: Path, needed: int) -> None:
    free = shutil.disk_usage(part.parent).free
    if needed + SPARE > free:
        raise InputError(f"{part.name} needs {needed / 1e9:.1f} GB more and the disk has {free / 1e9:.1f} GB free")
