"""Fetches one file over HTTP: progress, resume, checksum, and a clear word when there is no network."""

import hashlib
import http.client
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path

from cxrkeras.errors import InputError

TIMEOUT = 4.0  # seconds without an answer
CHUNK = 1 << 20


def download_file(
    url: str, path: Path, *, md5: str, progress: Callable[[int, int], None] = lambda done, total: None
) -> Path:
    """Download `url` to `path` unless it is there; a half file, `<path>.part`, is taken up where it ends.

    `progress` is called with the bytes had and, if the server tells, wanted (else 0). The file appears under its
    name only when its MD5 sum is right. Raises InputError if the server cannot be reached, breaks off or sends
    something else.
    """
    if path.is_file():
        return path
    part = path.with_name(path.name + ".part")
    part.parent.mkdir(parents=True, exist_ok=True)
    have = part.stat().st_size if part.exists() else 0
    request = urllib.request.Request(url, headers={"Range": f"bytes={have}-"} if have else {})
    try:
        with urllib.request.urlopen(request, timeout=TIMEOUT) as answer:
            if answer.status != http.HTTPStatus.PARTIAL_CONTENT:
                have = 0  # the server sends all of it
            length = answer.headers.get("Content-Length")
            total = have + int(length) if length else 0
            with part.open("ab" if have else "wb") as file:
                while chunk := answer.read(CHUNK):
                    have += file.write(chunk)
                    progress(have, total)
            if have < total:
                raise InputError(
                    f"{url} broke off after {have:,} of {total:,} bytes: the same command goes on from there"
                )
    except urllib.error.HTTPError as error:
        if error.code != http.HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE:
            raise InputError(f"{url} answered {error.code} {error.reason}") from None
    except (OSError, http.client.HTTPException) as error:
        reason = getattr(error, "reason", error)
        raise InputError(f"cannot fetch {url} ({reason}); is this machine online?") from None
    with part.open("rb") as file:
        found = hashlib.file_digest(file, "md5").hexdigest()
    if found != md5:
        part.unlink()
        raise InputError(f"{url} came with the MD5 sum {found}; wanted {md5}: it was thrown away, try again")
    return part.replace(path)
