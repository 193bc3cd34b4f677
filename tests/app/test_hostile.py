"""A real server under bad and heavy requests: it answers, keeps nothing, writes nothing, and does not grow."""

import http.client
import json
import os
import socket
import struct
import subprocess
import sys
import threading
import time
import zlib
from concurrent.futures import ThreadPoolExecutor
from io import BytesIO
from pathlib import Path

import numpy as np
import psutil
import pytest
from PIL import Image
from pydicom.data import get_testdata_file

NAMES = [
    "a.png", "../../etc/passwd", "C:\\x\\y.png", "<script>alert(1)</script>.png", "=cmd|' /C calc'!A0", "a\x00b.png",
    "x" * 5000, "\u202egnp.exe", "a.dcm", "a.svg", "con", "%2e%2e%2f", "'; drop table--",
]  # fmt: skip


class Server:
    """The traced server; `written` are the lines that it wrote, after its port."""

    def __init__(self, folder):
        environment = os.environ | {"PYTHONUNBUFFERED": "1"}
        command = [sys.executable, str(Path(__file__).with_name("serve_traced.py")), str(folder)]
        self.process = subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace", env=environment
        )
        self.written = []
        for line in self.process.stdout:
            if line.strip().isdigit():
                self.port = int(line)
                break
        threading.Thread(target=self._read, daemon=True).start()

    def _read(self):
        for line in self.process.stdout:
            self.written.append(line.rstrip())

    def stop(self):
        self.process.terminate()
        self.process.wait()
        self.process.stdout.close()

    @property
    def megabytes(self):
        return psutil.Process(self.process.pid).memory_info().rss / 2**20

    def post(self, path, content, name="a.png", **fields):
        """Status and body of an upload, its name unquoted as an attacker would send it."""
        edge = b"edge0f1e2d3c"
        body = b"".join(
            b'--%s\r\nContent-Disposition: form-data; name="%s"\r\n\r\n%s\r\n' % (edge, key.encode(), value.encode())
            for key, value in fields.items()
        )
        head = b'--%s\r\nContent-Disposition: form-data; name="file"; filename="%s"\r\n\r\n'
        body += head % (edge, name.encode("utf-8", "replace")) + content + b"\r\n--" + edge + b"--\r\n"
        return self.send("POST", path, body, {"Content-Type": f"multipart/form-data; boundary={edge.decode()}"})

    def send(self, method, path, body=None, headers=None):
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)
        try:
            connection.request(method, path, body, headers or {})
            answer = connection.getresponse()
            return answer.status, answer.read()
        finally:
            connection.close()


@pytest.fixture(scope="module")
def server(trained):
    server = Server(trained.folder)
    yield server
    server.stop()


@pytest.fixture(scope="module")
def images(phantom_folder):
    """A PNG, a JPEG, a 16 bit PNG and two DICOM files."""
    grey = Image.open(sorted((phantom_folder / "images").iterdir())[0]).convert("L")
    contents = []
    for picture, kind in ((grey, "PNG"), (grey.convert("RGB"), "JPEG")):
        out = BytesIO()
        picture.save(out, kind)
        contents.append(out.getvalue())
    out = BytesIO()
    Image.fromarray(np.asarray(grey).astype(np.uint16) * 200).save(out, "PNG")
    contents.append(out.getvalue())
    for name in ("CT_small.dcm", "MR_small.dcm"):
        contents.append(Path(get_testdata_file(name)).read_bytes())
    return contents


def make_bomb(side):
    """A PNG whose header promises a square of that side."""

    def chunk(name, content):
        return struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))

    header = struct.pack(">IIBBBBB", side, side, 8, 0, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", header)
        + chunk(b"IDAT", zlib.compress(bytes(100_000)))
        + chunk(b"IEND", b"")
    )


def make_hostile(rng, images):
    """A file that is truncated, flipped, mixed, empty or a bomb; its name; and whether it is a whole image."""
    content = images[rng.integers(len(images))]
    name = NAMES[rng.integers(len(NAMES))]
    kind = rng.integers(9)
    if kind == 0:
        return content, name, True
    if kind == 1:
        return content[: rng.integers(len(content))], name, None
    if kind == 2:
        flipped = np.frombuffer(content, np.uint8).copy()
        places = rng.integers(0, len(flipped), rng.integers(1, 60))
        flipped[places] ^= (1 << rng.integers(0, 8, len(places))).astype(np.uint8)
        return flipped.tobytes(), name, None
    if kind == 3:
        return b"", name, False
    if kind == 4:
        return make_bomb(int(rng.integers(20_000, 2**31 - 1))), name, False
    if kind == 5:  # an image with another file behind it is an image
        return (
            content + b"PK\x03\x04<script>alert(1)</script>%PDF-1.7",
            name,
            None if content[128:132] == b"DICM" else True,
        )
    if kind == 6:
        return bytes(rng.integers(0, 256, rng.integers(1, 5000)).astype(np.uint8)), name, None
    if kind == 7:
        return images[3][:132] + bytes(rng.integers(0, 256, 2000).astype(np.uint8)), name, None
    texts = [b"GIF89a" + bytes(50), b"%PDF-1.4", b"<svg xmlns='http://www.w3.org/2000/svg'/>", b"BM" + bytes(60),
             b"II*\x00" + bytes(60), bytes(128) + b"DICM", b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff\xe0"]  # fmt: skip
    return texts[rng.integers(len(texts))], name, False


def send_hostile(server, images, count):
    rng = np.random.default_rng(0)
    for number in range(count):
        content, name, is_image = make_hostile(rng, images)
        if number % 3:
            status, body = server.post("/api/v1/predictions", content, name)
            assert status == 200, (number, status, body)
            (result,) = json.loads(body)["results"]
            status = result["problem"]["status"] if "problem" in result else 200
        else:
            path = "/api/v1/explanations" if number % 2 else "/api/v1/reports"
            status, body = server.post(path, content, name)
        assert status == 200 if is_image else 200 <= status < 500, (number, status, body[:300])
        if is_image is False:
            assert status in (413, 422), (number, status)


@pytest.mark.parametrize("count", [150, pytest.param(2000, marks=pytest.mark.slow)])
def test_hostile_files_never_break_the_server(server, images, count):
    send_hostile(server, images, max(60, count // 2))  # caches of decoders and drawing fill, and the pools of memory
    before = server.megabytes
    send_hostile(server, images, count)
    assert server.megabytes < before + 60
    assert server.send("GET", "/readyz")[0] == 200
    assert server.written == []


def test_hostile_requests_never_break_the_server(server, images):
    form = {"Content-Type": "multipart/form-data; boundary=b"}
    requests = [
        (b"", form), (b"--b\r\n", form), (b"--b\r\n\r\n\r\n--b--", form), (b"\x00" * 10_000, form),
        (b"--b\r\nContent-Disposition: form-data; name=file; filename*=utf-8''%ff%fe\r\n\r\nx\r\n--b--\r\n", form),
        (b"--b\r\nContent-Disposition: form-data; name=file\r\n\r\nno file name\r\n--b--\r\n", form),
        (b"--b\r\n" + b"X-A: " + b"y" * 200_000 + b"\r\n\r\nx\r\n--b--\r\n", form),
        (b"".join(b'--b\r\nContent-Disposition: form-data; name="n%d"\r\n\r\nx\r\n' % n for n in range(5000)), form),
        (b"{}", {"Content-Type": "application/json"}), (b"x", {"Content-Type": "multipart/form-data"}),
        (b"x", {"Content-Type": "multipart/form-data; boundary=" + "z" * 5000}),
    ]  # fmt: skip
    for body, headers in requests:
        for path in ("/api/v1/predictions", "/api/v1/explanations", "/api/v1/reports"):
            status, content = server.send("POST", path, body, headers)
            assert 200 <= status < 500, (body[:40], path, status, content[:200])
            assert b"Traceback" not in content
    for path, status in (
        ("/api/v1/nothing", 404),
        ("/../../etc/passwd", 404),
        ("/assets/../server.py", 404),
        ("/%00", 404),
    ):
        assert server.send("GET", path)[0] == status, path
    assert server.send("GET", "/", headers={"Host": "evil.example"})[0] == 400
    for raw in (
        b"GET / HTTP/1.1\r\n" + b"A: " + b"b" * 400_000,
        b"\x16\x03\x01\x02\x00",
        b"POST / HTTP/1.1\r\nContent-Length: -5\r\n\r\n",
    ):
        with socket.create_connection(("127.0.0.1", server.port)) as connection:
            connection.settimeout(2)
            try:
                connection.sendall(raw)
                connection.recv(1000)
            except OSError:
                pass
    assert server.send("GET", "/healthz")[0] == 200


@pytest.mark.parametrize(("clients", "seconds"), [(8, 2), pytest.param(32, 60, marks=pytest.mark.slow)])
def test_many_clients_get_the_answers_of_one_and_nothing_is_written(server, phantom_folder, clients, seconds):
    contents = [path.read_bytes() for path in sorted((phantom_folder / "images").iterdir())[:16]]
    contents.append(contents[0] + bytes(3_000_000))  # more than a server would keep in memory by default

    def ask(content):
        status, body = server.post("/api/v1/predictions", content)
        assert status == 200
        rows = json.loads(body)["results"][0]["labels"]
        return np.array([row["probability"] for row in sorted(rows, key=lambda row: row["label"])])

    alone = [ask(content) for content in contents]
    end = time.monotonic() + seconds

    def work(number):
        count = 0
        while time.monotonic() < end:
            place = (number + count) % len(contents)
            np.testing.assert_allclose(ask(contents[place]), alone[place], atol=1e-5)
            count += 1
        return count

    with ThreadPoolExecutor(clients) as pool:
        assert min(pool.map(work, range(clients))) > 0
    assert server.written == []


def talk(server, request, *, until=b"\r\n\r\n"):
    """What the server sends after bytes as they are."""
    with socket.create_connection(("127.0.0.1", server.port), timeout=30) as line:
        line.sendall(request)
        received = b""
        while until not in received and (more := line.recv(65536)):
            received += more
    return received


@pytest.mark.parametrize("name", ["r\xf6ntgen.png".encode("latin-1"), b"\xff\xfe\x00.png", b"\xed\xa0\x80.png"])
def test_a_name_that_is_not_utf_8_costs_nobody_an_answer(server, images, name):
    edge = b"edge0f1e2d3c"
    head = b'--%s\r\nContent-Disposition: form-data; name="file"; filename="%s"\r\n\r\n'
    first, second = (head % (edge, each) + images[0] + b"\r\n" for each in (name, b"good.png"))
    body = first + second + b"--" + edge + b"--\r\n"
    kind = {"Content-Type": f"multipart/form-data; boundary={edge.decode()}"}
    status, answer = server.send("POST", "/api/v1/predictions", body, kind)
    results = json.loads(answer)["results"]
    assert status == 200
    assert [result["name"] for result in results if result["name"] == "good.png"]
    assert all(len(result["labels"]) == 15 for result in results)


def test_a_request_without_a_host_is_answered_where_http_allows_it(server):
    assert talk(server, b"GET /healthz HTTP/1.0\r\n\r\n").startswith(b"HTTP/1.0 200")
    assert talk(server, b"GET /healthz HTTP/1.1\r\nHost: evil.example\r\n\r\n").startswith(b"HTTP/1.1 400")


def test_a_body_over_the_limit_is_refused_before_it_is_asked_for(server):
    """Expect: 100-continue; the answer must not be 100."""
    head = b"POST /api/v1/predictions HTTP/1.1\r\nHost: localhost\r\nExpect: 100-continue\r\n"
    head += b"Content-Length: %d\r\n\r\n"
    assert talk(server, head % 10**9).startswith(b"HTTP/1.1 413")
    assert talk(server, head % 1000).startswith(b"HTTP/1.1 100")
