"""Downloads of a small release of the same format as NIH's, from a server on 127.0.0.1."""

import hashlib
import io
import json
import shutil
import tarfile
import threading
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer

import pytest
from PIL import Image

from cxrkeras.data.dataset import digest_lines
from cxrkeras.data.fetch_nih import ARCHIVES, Source, fetch_release, parse_parts, unpack_archive
from cxrkeras.data.readers import read_dataset
from cxrkeras.errors import InputError
from tests.support.notes import NotedProgress

HEADER = (
    "Image Index,Finding Labels,Follow-up #,Patient ID,Patient Age,Patient Gender,View Position,"
    "OriginalImage[Width,Height],OriginalImagePixelSpacing[x,y]"
)
IDS = [f"{patient:08d}_000.png" for patient in range(1, 13)]


def png(shade):
    buffer = io.BytesIO()
    Image.new("L", (16, 16), shade).save(buffer, "PNG")
    return buffer.getvalue()


def pack(path, members):
    """Write a tar.gz of (TarInfo or name, content) pairs."""
    with tarfile.open(path, "w:gz") as tar:
        for member, content in members:
            info = member if isinstance(member, tarfile.TarInfo) else tarfile.TarInfo(member)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    return path


class SilentHandler(SimpleHTTPRequestHandler):
    def log_message(self, *args):
        pass


@pytest.fixture
def served(tmp_path):
    """Two archives of six images, label file and lists; yields the served folder and its Source."""
    root = tmp_path / "served"
    root.mkdir()
    archives = []
    for part in range(2):
        folder = tarfile.TarInfo("images")
        folder.type = tarfile.DIRTYPE
        images = [(f"images/{name}", png(number)) for number, name in enumerate(IDS[6 * part : 6 * part + 6])]
        path = pack(root / f"archive{part}.gz", [(folder, b""), *images])
        archives.append((path.name, hashlib.md5(path.read_bytes()).hexdigest()))
    rows = [f"{name},No Finding,0,{number},50,F,PA,16,16,1,1" for number, name in enumerate(IDS, 1)]
    (root / "Data_Entry_2017_v2020.csv").write_text("\n".join([HEADER, *rows]) + "\n")
    (root / "train_val_list.txt").write_text("\n".join(IDS[::2]))
    (root / "test_list.txt").write_text("\r\n".join(IDS[1::2]))
    with ThreadingHTTPServer(("127.0.0.1", 0), partial(SilentHandler, directory=root)) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        url = f"http://127.0.0.1:{server.server_port}/"
        yield (
            root,
            Source(
                archives_url=url,
                tables_url=url,
                archives=tuple(archives),
                table_rows=(("Data_Entry_2017_v2020.csv", 12), ("train_val_list.txt", 6), ("test_list.txt", 6)),
                list_digests=(
                    ("train_val_list.txt", digest_lines(IDS[::2])),
                    ("test_list.txt", digest_lines(IDS[1::2])),
                ),
                pause=0.01,
            ),
        )
        server.shutdown()


def test_a_release_can_be_downloaded_in_parts(served, tmp_path):
    _, source = served
    folder, noted = tmp_path / "nih", NotedProgress()
    fetch_release(folder, [1], source=source, progress=noted)
    assert "BBox_List_2017.csv" in noted.said[0]
    assert len(read_dataset(folder).table) == 6
    assert not list(folder.glob("*.tar.gz*"))
    fetch_release(folder, [1, 2], parallel=2, source=source)
    assert len(read_dataset(folder).table) == 12
    assert json.loads((folder / "archives.json").read_text()) == {"images_001.tar.gz": 6, "images_002.tar.gz": 6}
    assert {"images_001.tar.gz", "test_list.txt"} <= set(noted.totals)


def test_existing_files_are_not_downloaded_again(served, tmp_path):
    root, source = served
    fetch_release(tmp_path / "nih", [1, 2], source=source)
    shutil.rmtree(root)
    fetch_release(tmp_path / "nih", [1, 2], source=source)


@pytest.mark.parametrize(
    ("name", "change"),
    [
        ("Data_Entry_2017_v2020.csv", lambda text: text[: len(text) // 2]),
        ("train_val_list.txt", lambda text: text.replace("00000001", "00000002")),
        ("test_list.txt", lambda text: "<html>busy</html>"),
    ],
)
def test_a_table_that_is_not_the_release_is_deleted(served, tmp_path, name, change):
    root, source = served
    (root / name).write_text(change((root / name).read_text()))
    with pytest.raises(InputError, match=name):
        fetch_release(tmp_path / "nih", [1], source=source)
    assert not (tmp_path / "nih" / name).exists()


def test_an_archive_with_a_wrong_checksum_is_deleted_and_a_missing_one_reported(served, tmp_path):
    root, source = served
    content = (root / "archive0.gz").read_bytes()
    (root / "archive0.gz").write_bytes(content[:-5] + b"12345")
    with pytest.raises(InputError, match="MD5"):
        fetch_release(tmp_path / "nih", [1], source=source)
    assert not list((tmp_path / "nih").glob("images_001*"))
    (root / "archive0.gz").unlink()
    with pytest.raises(InputError, match="404"):
        fetch_release(tmp_path / "nih", [1], source=source)


def special(name, kind, target=""):
    info = tarfile.TarInfo(name)
    info.type, info.linkname = kind, target
    return info


@pytest.mark.parametrize(
    "member",
    [
        "../evil.png",
        "/tmp/evil.png",
        "images/../../evil.png",
        "images/sub/evil.png",
        "evil.png",
        "images/evil.sh",
        "images/a b.png",
        "images/.png",
        special("images/link.png", tarfile.SYMTYPE, "/etc/passwd"),
        special("images/hard.png", tarfile.LNKTYPE, "images/00000001_000.png"),
        special("images/device.png", tarfile.CHRTYPE),
        special("images/pipe.png", tarfile.FIFOTYPE),
    ],
    ids=lambda member: member if isinstance(member, str) else member.name,
)
def test_hostile_members_never_touch_the_disk(tmp_path, member):
    folder = tmp_path / "inside" / "nih"
    folder.mkdir(parents=True)
    archive = pack(folder / "images_001.tar.gz", [("images/00000001_000.png", png(1)), (member, b"")])
    with pytest.raises(InputError, match="do not trust"):
        unpack_archive(archive, folder)
    assert archive.exists()
    files = {str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*") if not path.is_dir()}
    assert files == {"inside/nih/images_001.tar.gz", "inside/nih/images/00000001_000.png"}


@pytest.mark.parametrize("content", [b"", b"no archive", b"\x1f\x8b\x08\x00"])
def test_a_file_that_is_not_an_archive_is_kept_and_reported(tmp_path, content):
    (tmp_path / "a.tar.gz").write_bytes(content)
    with pytest.raises(InputError, match=r"a\.tar\.gz"):
        unpack_archive(tmp_path / "a.tar.gz", tmp_path)
    assert (tmp_path / "a.tar.gz").exists()


def test_space_is_checked_before_anything_is_fetched(tmp_path, monkeypatch):
    usage = shutil.disk_usage(tmp_path)._replace(free=20e9)
    monkeypatch.setattr("cxrkeras.data.fetch_nih.shutil.disk_usage", lambda path: usage)
    with pytest.raises(InputError, match="needs about 46 GB and the disk has 20 GB free"):
        fetch_release(tmp_path / "nih", range(1, 13))
    assert not list((tmp_path / "nih").iterdir())


def test_parts():
    assert parse_parts("1") == [1]
    assert parse_parts("1..12") == list(range(1, 13))
    assert parse_parts("3, 1-2,2") == [1, 2, 3]
    for text in ("", "0", "13", "5..3", "a", "1..", "1;2"):
        with pytest.raises(InputError, match="parts must be numbers 1 to 12"):
            parse_parts(text)
    assert len({address for address, _ in ARCHIVES}) == len({md5 for _, md5 in ARCHIVES}) == 12
