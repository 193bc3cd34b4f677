"""Downloads a file over HTTP: progress, resume, retries, checksum, and a clear error without a network."""

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
from http import HTTPStatus
from pathlib import Path

from cxrkeras.errors import InputError
from cxrkeras.progress import SILENT, Progress

TIMEOUT = 3.0  # seconds without a byte
CHUNK = 1 << 20
MD5_DIGITS = 32
UNCHECKED = ".unchecked"  # suffix of a file that is not verified yet
SPARE = 100 << 20  # bytes to leave free on the disk


class _BrokenConnection(Exception):
    """The connection failed in a way that a retry may fix."""


def download_file(
    url: str,
    path: Path,
    *,
    digest: str | None,
    attempts: int = 1,
    pause: float = 2.0,
    timeout: float = TIMEOUT,
    progress: Progress = SILENT,
) -> Path:
    """Download `url` to `path` unless it exists; a partial file, `<path>.part`, is resumed.

    A broken connection is retried after `pause` seconds, until `attempts` in a row bring no new byte. The units of the
    progress are bytes. The file appears under its name only if it matches `digest` (see `check_digest`; None to skip
    the check). Raises InputError if the server cannot be reached, breaks off or sends something else, or the disk is
    too small.
    """
    if path.is_file():
        return path
    part = path.with_name(path.name + ".part")
    part.parent.mkdir(parents=True, exist_ok=True)
    failures = 0
    while True:
        before = _size(part)
        try:
            _fetch(url, part, timeout, progress)
            break
        except _BrokenConnection as error:
            failures = 0 if _size(part) > before else failures + 1
            if failures >= attempts or attempts == 1:
                raise InputError(str(error)) from None
            time.sleep(pause)
    if digest:
        try:
            check_digest(part, digest, url)
        except InputError as error:
            part.unlink()
            raise InputError(f"{error}. It was deleted: try again") from None
    return part.replace(path)


def check_digest(path: Path, digest: str, source: str) -> None:
    """Raise InputError unless a file has this MD5 sum (32 hex digits) or SHA-256 (64, or a prefix)."""
    kind = "MD5" if len(digest) == MD5_DIGITS else "SHA-256"
    with path.open("rb") as file:
        found = hashlib.file_digest(file, kind.replace("-", "").lower()).hexdigest()
    if not found.startswith(digest):
        raise InputError(f"{source} has the {kind} sum {found}; expected {digest}")


def _size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0


def _fetch(url: str, part: Path, timeout: float, progress: Progress) -> None:
    """Complete `part`. Raises _BrokenConnection if the connection fails."""
    have = _size(part)
    _resolve(url, timeout)
    request = urllib.request.Request(url, headers={"Range": f"bytes={have}-"} if have else {})
    try:
        with urllib.request.urlopen(request, timeout=timeout) as answer:
            if answer.status != HTTPStatus.PARTIAL_CONTENT:
                have = 0  # the server sends the whole file
            length = answer.headers.get("Content-Length")
            total = have + int(length) if length else 0
            _check_space(part, total - have)
            advance = progress.start(part.stem.removesuffix(UNCHECKED), total)
            advance(have)
            with part.open("ab" if have else "wb") as file:
                while chunk := answer.read(CHUNK):
                    have += file.write(chunk)
                    advance(len(chunk))
    except urllib.error.HTTPError as error:
        error.close()
        if error.code == HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE:
            return  # nothing is left to fetch; the checksum decides whether the file is right
        kind = _BrokenConnection if error.code >= HTTPStatus.INTERNAL_SERVER_ERROR else InputError
        raise kind(f"{url} answered {error.code} {error.reason}") from None
    except http.client.IncompleteRead as error:
        with part.open("ab") as file:
            file.write(error.partial)
        raise _BrokenConnection(f"{url} broke off: run the same command to resume it") from None
    except (urllib.error.URLError, TimeoutError, ConnectionError, http.client.HTTPException) as error:
        reason = getattr(error, "reason", error)
        raise _BrokenConnection(f"cannot fetch {url} ({reason}). Is this machine online?") from None
    if have < total:
        raise _BrokenConnection(f"{url} broke off after {have:,} of {total:,} bytes: run the same command to resume it")


def _resolve(url: str, timeout: float) -> None:
    """Look up the host name within the time limit; urllib's own does not cover this."""
    host = urllib.parse.urlsplit(url).hostname
    lookup = threading.Thread(target=_look_up, args=(host,), daemon=True)
    lookup.start()
    lookup.join(timeout)
    if lookup.is_alive():
        raise _BrokenConnection(f"cannot fetch {url} (no answer to the DNS lookup of {host}). Is this machine online?")


def _look_up(host: str) -> None:
    with contextlib.suppress(OSError):  # urllib runs into the same error and reports it
        socket.getaddrinfo(host, None)


def _check_space(part: Path, needed: int) -> None:
    free = shutil.disk_usage(part.parent).free
    if needed + SPARE > free:
        raise InputError(f"{part.name} needs {needed / 1e9:.1f} GB more and the disk has {free / 1e9:.1f} GB free")
