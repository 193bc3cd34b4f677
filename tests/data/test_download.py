import hashlib
import shutil
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from cxrkeras.data.download import download_file
from cxrkeras.errors import InputError
from tests.support.notes import NotedProgress

CONTENT = bytes(range(256)) * 8000
MD5 = hashlib.md5(CONTENT).hexdigest()


@pytest.fixture
def server():
    """Serve CONTENT on 127.0.0.1; the path selects how it misbehaves. `requests` collects the requested offsets."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            start = int(self.headers.get("Range", "bytes=0-")[6:-1])
            kind = self.path.strip("/")
            if kind == "busy" or (kind == "busy-twice" and self.server.requests.count("busy") < 2):
                self.server.requests.append("busy")
                return self.send_error(503)
            self.server.requests.append(start)
            if kind == "404":
                return self.send_error(404)
            if kind == "stall":
                self.server.stall.wait(20)
                return None
            if kind == "no-range":
                start = 0
            if start >= len(CONTENT):
                return self.send_error(416)
            body = CONTENT[start:] if kind != "other" else CONTENT[:-1] + b"?"
            self.send_response(206 if start else 200)
            error = {"short-length": -1000, "long-length": 1000}.get(kind, 0)
            self.send_header("Content-Length", str(len(body) + error))
            self.end_headers()
            self.wfile.write(body[: 1_500_000 - start] if kind == "drop" and not start else body)
            return None

        def log_message(self, *args):
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as httpd:
        httpd.requests, httpd.stall = [], threading.Event()
        threading.Thread(target=httpd.serve_forever, daemon=True).start()
        httpd.url = f"http://127.0.0.1:{httpd.server_port}/"
        yield httpd
        httpd.stall.set()
        httpd.shutdown()


def test_a_file_is_downloaded_once_and_completely_with_progress(server, tmp_path):
    noted = NotedProgress()
    path = tmp_path / "new" / "file"
    for _ in range(2):
        assert download_file(server.url + "good", path, digest=MD5, progress=noted) == path
    assert path.read_bytes() == CONTENT
    assert noted.done == noted.totals == {"file": len(CONTENT)}
    assert server.requests == [0]


@pytest.mark.parametrize("kind", ["drop", "no-range"])
def test_a_broken_download_resumes(server, tmp_path, kind):
    path = tmp_path / "file"
    with pytest.raises(InputError, match="run the same command to resume"):
        download_file(server.url + "drop", path, digest=MD5)
    assert not path.exists()
    half = (tmp_path / "file.part").stat().st_size
    assert 0 < half < len(CONTENT)
    assert download_file(server.url + kind, path, digest=MD5).read_bytes() == CONTENT
    assert server.requests == [0, half]


def test_dropped_and_busy_connections_are_retried(server, tmp_path):
    settings = {"digest": MD5, "attempts": 3, "pause": 0.01}
    assert download_file(server.url + "drop", tmp_path / "a", **settings).read_bytes() == CONTENT
    assert len(server.requests) == 2
    assert download_file(server.url + "busy-twice", tmp_path / "b", **settings).read_bytes() == CONTENT
    server.requests.clear()
    with pytest.raises(InputError, match="503"):
        download_file(server.url + "busy", tmp_path / "c", **settings)
    assert server.requests == ["busy"] * 3


def test_a_wrong_content_length_is_an_error(server, tmp_path):
    with pytest.raises(InputError, match="MD5"):  # too short: the rest is never read
        download_file(server.url + "short-length", tmp_path / "a", digest=MD5)
    with pytest.raises(InputError, match="broke off"):  # too long: the rest never comes
        download_file(server.url + "long-length", tmp_path / "b", digest=MD5)
    assert not {"a", "b"} & {path.name for path in tmp_path.iterdir()}


def test_a_full_disk_is_reported_before_the_download(server, tmp_path, monkeypatch):
    usage = shutil.disk_usage(tmp_path)._replace(free=1_000_000)
    monkeypatch.setattr("cxrkeras.data.download.shutil.disk_usage", lambda path: usage)
    with pytest.raises(InputError, match="GB free"):
        download_file(server.url + "good", tmp_path / "file", digest=MD5)
    assert not list(tmp_path.iterdir())


def test_a_complete_partial_file_is_used(server, tmp_path):
    (tmp_path / "file.part").write_bytes(CONTENT)
    assert download_file(server.url + "good", tmp_path / "file", digest=MD5).read_bytes() == CONTENT


@pytest.mark.parametrize(("kind", "word"), [("404", "404"), ("other", "MD5"), ("stall", "cannot fetch")])
def test_failed_downloads_are_reported(server, tmp_path, kind, word):
    with pytest.raises(InputError, match=word):
        download_file(server.url + kind, tmp_path / "file", digest=MD5, timeout=0.5)
    assert not (tmp_path / "file").exists()


def test_a_name_server_that_does_not_answer_is_reported_in_time(tmp_path, monkeypatch):
    monkeypatch.setattr("cxrkeras.data.download.socket.getaddrinfo", lambda *args: time.sleep(5))
    with pytest.raises(InputError, match="no answer to the DNS lookup"):
        download_file("http://host.invalid/file", tmp_path / "file", digest=MD5, timeout=0.2)


def test_a_missing_network_is_reported(tmp_path):
    with pytest.raises(InputError, match="online"):
        download_file("http://no-such-host.invalid/file", tmp_path / "file", digest=MD5)
    with pytest.raises(InputError, match="online"):
        download_file("http://127.0.0.1:9/file", tmp_path / "file", digest=MD5)
