"""Downloads the NIH ChestX-ray14 release: label file, split lists and any of its twelve archives."""

import re
import shutil
import tarfile
import threading
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from cxrkeras.data.dataset import digest_lines
from cxrkeras.data.download import UNCHECKED, download_file
from cxrkeras.data.nih_tables import BOX_LIST, LABEL_FILES, OFFICIAL_LISTS, TEST_LIST, TRAIN_VAL_LIST
from cxrkeras.errors import InputError
from cxrkeras.files import load_json, write_json
from cxrkeras.progress import SILENT, Progress
from cxrkeras.text import num_of

PAGE = "https://nihcc.app.box.com/v/ChestXray-NIHCC"
ARCHIVES_URL = "https://nihcc.box.com/shared/static/"
TABLES_URL = "https://huggingface.co/datasets/alkzar90/NIH-Chest-X-ray-dataset/resolve/main/data/"
# Name under ARCHIVES_URL and MD5 sum, in the order of the parts. From the release's page.
ARCHIVES = (
    ("vfk49d74nhbxq3nqjg0900w5nvkorp5c.gz", "fe8ed0a6961412fddcbb3603c11b3698"),
    ("i28rlmbvmfjbl8p2n3ril0pptcmcu9d1.gz", "ab07a2d7cbe6f65ddd97b4ed7bde10bf"),
    ("f1t00wrtdk94satdfb9olcolqx20z2jp.gz", "2301d03bde4c246388bad3876965d574"),
    ("0aowwzs5lhjrceb3qp67ahp0rd1l1etg.gz", "9f1b7f5aae01b13f4bc8e2c44a4b8ef6"),
    ("v5e3goj22zr6h8tzualxfsqlqaygfbsn.gz", "1861f3cd0ef7734df8104f2b0309023b"),
    ("asi7ikud9jwnkrnkj99jnpfkjdes7l6l.gz", "456b53a8b351afd92a35bc41444c58c8"),
    ("jn1b4mw4n6lnh74ovmcjb8y48h8xj07n.gz", "1075121ea20a137b87f290d6a4a5965e"),
    ("tvpxmn7qyrgl0w8wfh9kqfjskv6nmm1j.gz", "b61f34cec3aa69f295fbb593cbd9d443"),
    ("upyy3ml7qdumlgk2rfcvlb9k6gvqq2pj.gz", "442a3caa61ae9b64e61c561294d1e183"),
    ("l6nilvfa9cg3s28tqv1qc1olm3gnz54p.gz", "09ec81c4c31e32858ad8cf965c494b74"),
    ("hhq8fkdgvcari67vfhs7ppg2w6ni4jze.gz", "499aefc67207a5a97692424cf5dbeed5"),
    ("ioqwiy20ihqwyr8pf4c24eazhh281pbu.gz", "dc9fda1757c2de0032b63347a7d2895c"),
)
FIRST_PART, OTHER_PARTS = 2.0e9, 3.7e9  # approximate bytes; about the same unpacked
TABLE_ROWS = {LABEL_FILES[0]: 112_120, TRAIN_VAL_LIST: 86_524, TEST_LIST: 25_596}
DONE = "archives.json"  # parts that are unpacked and verified
ATTEMPTS, TIMEOUT = 5, 30.0
_IMAGE_NAME = re.compile(r"[\w-]+\.png", re.ASCII)


@dataclass(frozen=True)
class Source:
    """Where the release is downloaded from."""

    archives_url: str = ARCHIVES_URL
    tables_url: str = TABLES_URL
    archives: tuple[tuple[str, str], ...] = ARCHIVES
    table_rows: tuple[tuple[str, int], ...] = tuple(TABLE_ROWS.items())
    list_digests: tuple[tuple[str, str], ...] = tuple(OFFICIAL_LISTS.items())
    pause: float = 2.0


def parse_parts(text: str, count: int = len(ARCHIVES)) -> list[int]:
    """Parse part numbers such as `1`, `1,3` or `1,4..6`. Raises InputError for others than 1 to `count`."""
    parts = set()
    for piece in text.split(","):
        match = re.fullmatch(r"\s*(\d+)\s*(?:(?:\.\.|-)\s*(\d+)\s*)?", piece)
        first, last = (int(match[1]), int(match[2] or match[1])) if match else (0, 0)
        if not 1 <= first <= last <= count:
            raise InputError(f"parts must be numbers 1 to {count}, as in 1 or 1,3 or 1..{count}; got {text!r}")
        parts |= set(range(first, last + 1))
    return sorted(parts)


def fetch_release(
    folder: Path,
    parts: Iterable[int],
    *,
    parallel: int = 1,
    source: Source | None = None,
    progress: Progress = SILENT,
) -> None:
    """Download label file, split lists and the archives of `parts` (1 to 12), unpack and verify them.

    Existing tables and unpacked parts are kept, and partial files are resumed. An archive is deleted only after every
    file in it is unpacked at its full length. `parallel` is the number of simultaneous downloads. Raises InputError if
    the disk is too small, before anything is downloaded, and as `download_file` and `unpack_archive` do.
    """
    source = source or Source()
    folder.mkdir(parents=True, exist_ok=True)
    done = _read_done(folder)
    todo = [part for part in parts if _part_name(part) not in done]
    if not (folder / BOX_LIST).is_file():
        progress.say(f"{BOX_LIST} has to be downloaded by hand from {PAGE}; it is optional (localisation)")
    _check_space(folder, todo, parallel, source, progress)
    for name, rows in source.table_rows:
        _fetch_table(folder, name, rows, source, progress)

    lock = threading.Lock()

    def fetch(part: int) -> None:
        name = _part_name(part)
        address, md5 = source.archives[part - 1]
        archive = download_file(
            source.archives_url + address,
            folder / name,
            digest=md5,
            attempts=ATTEMPTS,
            pause=source.pause,
            timeout=TIMEOUT,
            progress=progress,
        )
        count = unpack_archive(archive, folder)
        with lock:
            done[name] = count
            write_json(folder / DONE, done)
        archive.unlink()
        progress.say(f"{name}: {num_of(done[name], 'image')}")

    with ThreadPoolExecutor(parallel) as pool:
        for finished in [pool.submit(fetch, part) for part in todo]:
            finished.result()


def _check_space(folder: Path, parts: list[int], parallel: int, source: Source, progress: Progress) -> None:
    needed, free = _space_needed(parts, parallel, source), shutil.disk_usage(folder).free
    progress.say(
        f"{num_of(len(parts), 'part')} to fetch, about {needed / 1e9:.0f} GB of disk while unpacking; "
        f"{free / 1e9:.0f} GB are free"
    )
    if needed > free:
        raise InputError(
            f"{folder} needs about {needed / 1e9:.0f} GB and the disk has {free / 1e9:.0f} GB free: "
            "choose fewer parts, or a folder on another disk"
        )


def _part_name(part: int) -> str:
    return f"images_{part:03d}.tar.gz"


def _read_done(folder: Path) -> dict[str, int]:
    return load_json(folder / DONE) if (folder / DONE).exists() else {}


def _space_needed(parts: list[int], parallel: int, source: Source) -> float:
    if source.archives is not ARCHIVES:
        return 0
    sizes = sorted((FIRST_PART if part == 1 else OTHER_PARTS for part in parts), reverse=True)
    return sum(sizes) + sum(sizes[:parallel])  # everything unpacked, and the archives in progress


def _fetch_table(folder: Path, name: str, rows: int, source: Source, progress: Progress) -> None:
    path = folder / name
    if path.is_file():
        return
    checked = path.with_name(name + UNCHECKED)
    download_file(
        source.tables_url + name,
        checked,
        digest=None,
        attempts=ATTEMPTS,
        pause=source.pause,
        timeout=TIMEOUT,
        progress=progress,
    )
    lines = checked.read_text("utf-8", errors="replace").split("\n")
    lines = [line.strip() for line in lines if line.strip()]
    expected = dict(source.list_digests).get(name)
    if expected:
        is_right = len(lines) == rows and digest_lines(lines) == expected
    else:
        is_right = len(lines) == rows + 1 and lines[0].startswith("Image Index,Finding Labels,")
    if not is_right:
        checked.unlink()
        raise InputError(
            f"{source.tables_url}{name} has {num_of(len(lines), 'line')} that are not the release's "
            f"{num_of(rows, 'row')}. It was deleted: download the file from {PAGE}"
        )
    checked.replace(path)


def unpack_archive(archive: Path, folder: Path) -> int:
    """Unpack the images of a part into `folder`/images and return their number.

    Only regular files named images/<name>.png are unpacked; anything else in the archive (other folders, absolute
    paths, `..`, links, devices) raises InputError before it touches the disk, and the archive is kept.
    """
    count = 0
    images = folder / "images"
    images.mkdir(exist_ok=True)
    try:
        with tarfile.open(archive) as tar:
            for member in tar:
                place = PurePosixPath(member.name)
                if member.isdir() and place == PurePosixPath("images"):
                    continue
                is_image = place.parent == PurePosixPath("images") and _IMAGE_NAME.fullmatch(place.name)
                packed = tar.extractfile(member) if member.isreg() and is_image else None
                if packed is None:
                    raise InputError(f"{archive} has {member.name!r}, not an image of the release: do not trust it")
                draft = images / f".{place.name}.draft"
                with packed, draft.open("wb") as file:
                    shutil.copyfileobj(packed, file)
                if draft.stat().st_size != member.size:
                    raise InputError(f"{archive}: {member.name} is incomplete")
                draft.replace(images / place.name)
                count += 1
    except (tarfile.TarError, EOFError, OSError) as error:
        raise InputError(
            f"cannot unpack {archive}: {error}. The archive is kept; delete it to fetch it again"
        ) from error
    if not count:
        raise InputError(f"{archive} contains no image")
    return count
