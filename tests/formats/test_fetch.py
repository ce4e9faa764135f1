"""Models by address, against servers on this machine: one that serves files, and one that speaks the hub's protocol."""

from __future__ import annotations

import hashlib
import io
import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from tests.formats import packages
from tlkit.errors import LoadError, UsageError
from tlkit.formats import fetch
from tlkit.host.machine import cache_folder

WEIGHTS = Path(__file__).parents[2] / "fixtures" / "digits.safetensors"
COMMIT = "0" * 39 + "1"


class Server(ThreadingHTTPServer):
    """Serves ``files`` by path; ``asked`` is what was asked of it, and what it answered."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Answers)
        self.files: dict[str, bytes] = {}
        self.repos: dict[str, dict[str, bytes]] = {}
        self.cut = 0
        self.asked: list[tuple[str, int]] = []
        self.address = f"http://127.0.0.1:{self.server_port}"


class Answers(BaseHTTPRequestHandler):
    server: Server
    protocol_version = "HTTP/1.1"

    def log_message(self, *_: object) -> None:
        pass

    def do_HEAD(self) -> None:
        self.do_GET()

    def do_GET(self) -> None:
        path = self.path.split("?")[0]
        if path in self.server.files:
            return self._file(self.server.files[path])
        for name, files in self.server.repos.items():
            if path.startswith(f"/api/models/{name}"):
                return self._listing(name, files)
            if path.startswith(f"/{name}/resolve/"):
                file = path.removeprefix(f"/{name}/resolve/").partition("/")[2]
                if file in files:
                    return self._file(files[file])
        if path.startswith(("/api/models/closed/", "/closed/")):
            return self._end(403, b"{}", {"X-Error-Code": "GatedRepo"})
        self._end(404, b"{}", {"X-Error-Code": "RepoNotFound"})

    def _listing(self, name: str, files: dict[str, bytes]) -> None:
        about = {"id": name, "sha": COMMIT, "siblings": [{"rfilename": file} for file in files]}
        if "/tree/" in self.path:
            tree = [{"type": "file", "path": file, "size": len(it), "oid": "0"} for file, it in files.items()]
            return self._end(200, json.dumps(tree).encode())
        self._end(200, json.dumps(about).encode())

    def _file(self, content: bytes) -> None:
        etag = f'"{hashlib.sha256(content).hexdigest()}"'
        if self.headers.get("If-None-Match") == etag:
            return self._end(304, b"", {"ETag": etag})
        self._end(200, content, {"ETag": etag, "X-Repo-Commit": COMMIT}, self.server.cut)

    def _end(self, code: int, content: bytes, headers: dict[str, str] | None = None, cut: int = 0) -> None:
        self.server.asked.append((self.path, code))
        self.send_response(code)
        for key, value in (headers or {}).items():
            self.send_header(key, value)
        if code != 304:
            self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        if self.command != "HEAD" and code != 304:
            self.wfile.write(content[: len(content) - cut])
            self.close_connection = bool(cut)


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hub"))
    for name in (fetch.OFFLINE, "HF_HUB_OFFLINE", "HF_TOKEN"):
        monkeypatch.delenv(name, raising=False)
    with Server() as running:
        threading.Thread(target=running.serve_forever, daemon=True).start()
        monkeypatch.setenv("HF_ENDPOINT", running.address)
        yield running
        running.shutdown()


def test_a_file_is_fetched_once_and_again_when_it_has_changed(server: Server) -> None:
    server.files["/models/net.safetensors"] = b"first"
    address = f"{server.address}/models/net.safetensors?download=true"
    told: list[tuple[float, float | None]] = []
    path = fetch.local(address, lambda *come: told.append(come))
    assert path.name == "net.safetensors" and path.read_bytes() == b"first" and told[-1] == (5, 5)
    assert fetch.local(address) == path and path.read_bytes() == b"first"
    assert [code for _, code in server.asked] == [200, 304]
    server.files["/models/net.safetensors"] = b"second"
    assert fetch.local(address).read_bytes() == b"second"


def test_offline_takes_what_was_fetched_before(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    server.files["/a.bin"] = b"x"
    path = fetch.local(f"{server.address}/a.bin")
    monkeypatch.setenv(fetch.OFFLINE, "1")
    assert fetch.local(f"{server.address}/a.bin") == path
    with pytest.raises(LoadError, match="not fetched before") as caught:
        fetch.local(f"{server.address}/b.bin")
    assert "--offline" in caught.value.hint
    assert len(server.asked) == 1


def test_what_cannot_be_had_is_one_line(server: Server) -> None:
    with pytest.raises(LoadError, match=r"/none: the server answers 404") as caught:
        fetch.local(f"{server.address}/none")
    assert "address" in caught.value.hint
    server.files["/short"], server.cut = bytes(100_000), 10
    with pytest.raises(LoadError, match=r"/short: it cannot be fetched: it ended after 99990 of 100000 bytes"):
        fetch.local(f"{server.address}/short")
    assert not [file for file in cache_folder().rglob("*") if file.is_file()]  # nothing half
    server.files["/a"], server.cut = b"a", 0
    fetch.local(f"{server.address}/a")
    address = server.address
    server.shutdown()
    server.server_close()
    with pytest.raises(LoadError, match=r"/a: it cannot be fetched: .*refused") as caught:
        fetch.local(f"{address}/a")
    assert caught.value.hint == "take what was fetched before: --offline"


@pytest.mark.parametrize("name", ["../../../../etc/x", "..", ".hidden", "a%2f..%2fb", "", "x" * 50 + "/" + "é\n"])
def test_an_address_names_nothing_outside_of_the_cache(server: Server, name: str) -> None:
    with pytest.raises(LoadError):
        fetch.local(f"{server.address}/{name}")
    assert {path.relative_to(cache_folder()).parts[0] for path in cache_folder().rglob("*")} <= {"fetched"}


def test_a_package_of_the_hub_opens_and_what_cannot_be_had_is_said(server: Server, tmp_path: Path) -> None:
    pytest.importorskip("huggingface_hub")
    made = packages.linear(tmp_path / "net.mlpackage")
    files = {str(path.relative_to(tmp_path)): path.read_bytes() for path in made.rglob("*") if path.is_file()}
    server.repos["me/net"] = files | {"README.md": b"# It"}
    code = f"""
import tlkit
from tlkit.formats import fetch
from tlkit.host.machine import cache_folder
assert tlkit.load_model("hf://me/net/net.mlpackage").metadata.format == "CoreML"
assert tlkit.inspect("hf://me/net/net.mlpackage").inputs
import os
os.environ["{fetch.OFFLINE}"] = "1"
print(fetch.local("hf://me/net/net.mlpackage").name)
for wrong in ("hf://me/net/other.mlpackage", "hf://me/else", "hf://closed/model", "hf://me", "hf://me/net/../.."):
    for state in ("", "1"):
        os.environ["{fetch.OFFLINE}"] = state
        try:
            print("HAD", fetch.local(wrong))
        except tlkit.TlkitError as error:
            print(type(error).__name__, error.message, "|", error.hint)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=dict(os.environ))
    assert done.returncode == 0, done.stderr
    first, *rest = done.stdout.splitlines()
    assert first == "net.mlpackage"
    assert "no such file there | there are" in rest[0] and "not fetched before" in rest[1]
    assert "no such model or revision" in rest[2] and "not fetched before" in rest[3]
    assert "terms to be accepted" in rest[4] and "hf auth login" in rest[4]
    assert [line.split()[0] for line in rest[6:]] == ["UsageError"] * 4
    assert not any("README" in path for path, code in server.asked if "resolve" in path)


def test_of_a_whole_model_one_format_is_chosen() -> None:
    files = ["config.json", "model.safetensors", "pytorch_model.bin", "onnx/model.onnx", "tokenizer.json"]
    assert fetch._chosen(files, "", "hf://a/b") == ["config.json", "model.safetensors", "tokenizer.json"]
    assert fetch._chosen(files[:1] + files[2:], "", "hf://a/b") == [
        "config.json",
        "pytorch_model.bin",
        "tokenizer.json",
    ]
    assert fetch._chosen(files, "onnx", "hf://a/b/onnx") == ["onnx/model.onnx"]


def test_stdin_is_a_file(monkeypatch: pytest.MonkeyPatch) -> None:
    content = io.BytesIO(b"bytes of a model")
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(content))
    assert fetch.local("-").read_bytes() == b"bytes of a model"
    assert fetch.local("net.pt") == Path("net.pt") and fetch.local(Path("-")) == Path("-")


def test_a_wrong_address_of_the_hub_is_a_usage_error() -> None:
    for wrong in ("hf://", "hf://name", "hf:///a/b", "hf://a/b/../../c"):
        with pytest.raises(UsageError, match="not an address"):
            fetch.local(wrong)


def test_the_command_line_takes_addresses(server: Server) -> None:
    server.files["/w"] = WEIGHTS.read_bytes()
    command = [sys.executable, "-m", "tlkit", "inspect", "--json"]
    address = f"{server.address}/w"
    with WEIGHTS.open("rb") as file:
        calls = [([address], None), (["-"], file), ([str(WEIGHTS)], None), ([address, "--offline"], None)]
        done = [
            subprocess.run([*command, *words], stdin=given, capture_output=True, text=True) for words, given in calls
        ]
    found = [json.loads(call.stdout) for call in done]
    assert len({json.dumps([document["metadata"], document["parameters"]]) for document in found}) == 1
    assert found[0]["parameters"] > 0
    assert len(server.asked) == 1
