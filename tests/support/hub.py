"""A server on 127.0.0.1 that speaks the few calls by which Hugging Face takes and gives the files of a model."""

import base64
import contextlib
import hashlib
import json
import re
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import yaml
from huggingface_hub import constants

SPEAKER = "Bearer hf_test"


class Hub(ThreadingHTTPServer):
    """Keeps the files of each repository; requests without the right token are refused."""

    def __init__(self):
        super().__init__(("127.0.0.1", 0), _Handler)
        self.repositories, self.uploads, self.requests, self.created = {}, {}, [], []

    @property
    def address(self):
        return f"http://127.0.0.1:{self.server_port}"


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *arguments):
        pass

    def _answer(self, content=None, status=200, **headers):
        body = content if isinstance(content, bytes) else json.dumps(content or {}).encode()
        self.send_response(status)
        for name, value in {"Content-Length": str(len(body)), **headers}.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def _read_body(self):
        if self.headers.get("Transfer-Encoding") != "chunked":
            return self.rfile.read(int(self.headers.get("Content-Length") or 0))
        parts = []
        while size := int(self.rfile.readline(), 16):
            parts.append(self.rfile.read(size))
            self.rfile.readline()
        self.rfile.readline()
        return b"".join(parts)

    def _handle(self):
        hub = self.server
        body = self._read_body()
        hub.requests.append((self.command, self.path))
        path = self.path.partition("?")[0]
        is_open = self.command in ("GET", "HEAD") or path.startswith("/uploads/")
        if not is_open and self.headers.get("Authorization") != SPEAKER:
            return self._answer({"error": "Invalid username or password."}, 401)
        if path == "/api/repos/create":
            asked = json.loads(body)
            name = "/".join(filter(None, (asked.get("organization"), asked["name"])))
            hub.created.append(asked)
            hub.repositories.setdefault(name, {})
            return self._answer({"url": f"{hub.address}/{name}", "name": name, "id": "1"})
        if found := re.fullmatch(r"/api/models/([^/]+/[^/]+)/preupload/main", path):
            return self._answer({"files": [
                {"path": file["path"], "uploadMode": "regular" if file["path"].endswith(".md") else "lfs",
                 "shouldIgnore": False, "oid": None}
                for file in json.loads(body)["files"]
            ]})  # fmt: skip
        if path == "/api/validate-yaml":
            assert yaml.safe_load(json.loads(body)["content"].split("---\n")[1])
            return self._answer({"errors": [], "warnings": []})
        if path.endswith(".git/info/lfs/objects/batch"):
            objects = json.loads(body)["objects"]
            return self._answer({"transfer": "basic", "objects": [
                {"oid": entry["oid"], "size": entry["size"], "actions": {"upload": {
                    "href": f"{hub.address}/uploads/{entry['oid']}", "header": {}}}} for entry in objects
            ]})  # fmt: skip
        if path.startswith("/uploads/"):
            assert hashlib.sha256(body).hexdigest() == path.rpartition("/")[2]
            hub.uploads[path.rpartition("/")[2]] = body
            return self._answer()
        if found := re.fullmatch(r"/api/models/([^/]+/[^/]+)/commit/main", path):
            for line in map(json.loads, body.splitlines()):
                value = line["value"]
                if line["key"] == "file":
                    hub.repositories[found[1]][value["path"]] = base64.b64decode(value["content"])
                elif line["key"] == "lfsFile":
                    hub.repositories[found[1]][value["path"]] = hub.uploads[value["oid"]]
            url = f"{hub.address}/{found[1]}/commit/{'0' * 40}"
            return self._answer({"success": True, "commitOid": "0" * 40, "commitUrl": url, "hookOutput": ""})
        if found := re.fullmatch(r"/api/models/([^/]+/[^/]+)", path):
            files = hub.repositories.get(found[1])
            if files is None:
                return self._answer({"error": "Repository not found"}, 404, X_Error_Code="RepoNotFound")
            return self._answer({"id": found[1], "siblings": [{"rfilename": name} for name in files]})
        if found := re.fullmatch(r"/([^/]+/[^/]+)/resolve/main/(.+)", path):
            content = hub.repositories.get(found[1], {}).get(found[2])
            if content is None:
                return self._answer({"error": "Entry not found"}, 404, X_Error_Code="EntryNotFound")
            digest = hashlib.sha256(content).hexdigest()
            return self._answer(content, ETag=f'"{digest}"', X_Repo_Commit="0" * 40)
        return self._answer({"error": f"no such call: {path}"}, 404)

    do_GET = do_HEAD = do_POST = do_PUT = _handle


@contextlib.contextmanager
def serve_hub(monkeypatch, token="hf_test"):
    """Let huggingface_hub speak to a server of its own."""
    with Hub() as hub:
        threading.Thread(target=hub.serve_forever, daemon=True).start()
        monkeypatch.setenv("HF_ENDPOINT", hub.address)
        monkeypatch.setenv("HF_TOKEN", token)
        monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)  # its own protocol for large files
        yield hub
        hub.shutdown()
