"""A hub on the loopback interface: the routes that downloads of models use, and the faults that hubs have.

It speaks as huggingface.co does to huggingface_hub 2.4: `/api/models/{id}/revision/{revision}`,
`/api/models/{id}/tree/{revision}`, `/{id}/resolve/{commit}/{file}` with `HEAD` and `GET`, ranges, and large files by a
redirect to the address of a storage.
"""

from __future__ import annotations

import hashlib
import json
import re
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import unquote, urlsplit

LARGE = 1000
"""Files of so many bytes and more are in large file storage."""
TOKEN = "hf_canary0123456789"
"""The token that the processes of a test show the hub; it must not show up anywhere else."""
REPOSITORY = re.compile(r"/api/models/(?P<model>[^/]+/[^/]+)/(?P<subject>revision|tree)/(?P<revision>[^/]+)")
FILE = re.compile(r"/(?P<model>[^/]+/[^/]+)/resolve/(?P<revision>[^/]+)/(?P<file>.+)")

CONFIG = {"architectures": ["LlamaForCausalLM"], "model_type": "llama"}


@dataclass
class Request:
    """A request, as it came."""

    method: str
    path: str
    headers: dict[str, str]


@dataclass
class Repository:
    """One model: its files by commit, and its branches and tags."""

    commits: dict[str, dict[str, bytes]] = field(default_factory=dict)
    references: dict[str, str] = field(default_factory=dict)

    def commit(self, files: dict[str, bytes], reference: str = "main") -> str:
        """Adds a commit and lets a branch or tag lead to it."""
        sha = hashlib.sha1(f"{len(self.commits)}{reference}".encode()).hexdigest()
        self.commits[sha] = files
        self.references[reference] = sha
        return sha


@dataclass
class Refusal:
    """An error instead of an answer."""

    status: int
    code: str = ""
    headers: dict[str, str] = field(default_factory=dict)


class FakeHub:
    """A running hub.

    Attributes:
        url: Its address.
        storage: The address of its storage.
        requests: What was asked.
        sent: The bytes of files' contents that were sent.
        pace: Bytes per second of each file's content; as fast as it goes if None.
        break_after: After so many bytes of contents a connection breaks off; used up by one answer each.
        refuse: Decides about an error instead of an answer, for a request.
        ranges: Whether parts of files can be asked for.
    """

    def __init__(self) -> None:
        self.url = ""
        self.storage = ""
        self.repositories: dict[str, Repository] = {}
        self.requests: list[Request] = []
        self.sent = 0
        self.open = 0
        """Answers with contents that are being sent now."""
        self.pace: int | None = None
        self.break_after: list[int] = []
        self.refuse: Callable[[Request], Refusal | None] = lambda request: None
        self.ranges = True
        self.corrupt = 0
        """So many answers have a wrong byte at their end."""
        self.lock = threading.Lock()

    def add(self, model: str, files: dict[str, bytes] | None = None, reference: str = "main") -> str:
        """Adds a commit of a model; gives its id."""
        return self.repositories.setdefault(model, Repository()).commit(
            model_files() if files is None else files, reference
        )

    def paths(self, method: str, part: str = "") -> list[str]:
        """Returns the paths of the requests of a method that hold a text."""
        return [request.path for request in self.requests if request.method == method and part in request.path]


def model_files(weights: int = 300_000, shards: int = 0, **more: bytes) -> dict[str, bytes]:
    """The files of a repository: what is needed, and what is not.

    Args:
        weights: Bytes of the weights, in all.
        shards: How many files they are in, 0 for one without an index.
        **more: Further files; two underscores stand for a dot.
    """
    files = {
        "config.json": json.dumps(CONFIG).encode(),
        "generation_config.json": b"{}",
        "tokenizer.json": b'{"tokens": ' + b"[]" + b" " * 5000 + b"}",
        "tokenizer_config.json": b'{"model_max_length": 128}',
        "chat_template.jinja": b"{{ messages }}",
        ".gitattributes": b"*.safetensors filter=lfs",
        "README.md": b"# A model",
        "pytorch_model.bin": b"pickle" * 1000,
        "tf_model.h5": b"tensors" * 1000,
        "onnx/model.onnx": b"onnx" * 1000,
        "original/consolidated.safetensors": b"again" * 1000,
        "modeling_own.py": b"raise SystemExit",
    }
    content = hashlib.shake_256(b"weights").digest(weights)
    if not shards:
        files["model.safetensors"] = content
    else:
        size = -(-weights // shards)
        names = [f"model-{number + 1:05}-of-{shards:05}.safetensors" for number in range(shards)]
        for number, name in enumerate(names):
            files[name] = content[number * size : (number + 1) * size]
        index = {"metadata": {}, "weight_map": {f"layer.{number}": name for number, name in enumerate(names)}}
        files["model.safetensors.index.json"] = json.dumps(index).encode()
        files["consolidated.safetensors"] = content
    return files | {name.replace("__", "."): value for name, value in more.items()}


NEEDED = {"config.json", "generation_config.json", "tokenizer.json", "tokenizer_config.json", "chat_template.jinja"}
"""Of `model_files`, beside the weights."""


def files_of(directory: Path) -> dict[str, bytes]:
    """The files of a directory, as those of a repository."""
    return {path.name: path.read_bytes() for path in directory.iterdir() if path.is_file()}


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    hub: FakeHub

    def log_message(self, format: str, *arguments: object) -> None:
        pass

    def do_HEAD(self) -> None:
        self._answer()

    def do_GET(self) -> None:
        self._answer()

    def _answer(self) -> None:
        request = Request(self.command, unquote(self.path), {k.lower(): v for k, v in self.headers.items()})
        with self.hub.lock:
            self.hub.requests.append(request)
        refusal = self.hub.refuse(request)
        if refusal is not None:
            self._refuse(refusal)
            return
        path = unquote(urlsplit(self.path).path)
        if path.startswith("/storage/"):
            self._store(path.removeprefix("/storage/"))
            return
        if match := REPOSITORY.fullmatch(path.removesuffix("/")):
            self._describe(match["model"], match["subject"], match["revision"])
            return
        if match := FILE.fullmatch(path):
            self._resolve(match["model"], match["revision"], match["file"])
            return
        self._refuse(Refusal(404))
        return

    def _commit(self, model: str, revision: str) -> tuple[str, dict[str, bytes]] | None:
        if (repository := self.hub.repositories.get(model)) is None:
            self._refuse(Refusal(404, "RepoNotFound"))
            return None
        sha = repository.references.get(revision, revision)
        if sha not in repository.commits:
            self._refuse(Refusal(404, "RevisionNotFound"))
            return None
        return sha, repository.commits[sha]

    def _describe(self, model: str, subject: str, revision: str) -> None:
        if (commit := self._commit(model, revision)) is None:
            return
        sha, files = commit
        if subject == "revision":
            siblings = [{"rfilename": name} for name in files]
            self._send_json({"id": model, "modelId": model, "sha": sha, "siblings": siblings, "tags": []})
        else:
            self._send_json([_entry(name, content) for name, content in files.items()])

    def _resolve(self, model: str, revision: str, name: str) -> None:
        if (commit := self._commit(model, revision)) is None:
            return
        sha, files = commit
        if name not in files:
            self._refuse(Refusal(404, "EntryNotFound", {"X-Repo-Commit": sha}))
            return
        content = files[name]
        headers = {"X-Repo-Commit": sha}
        if len(content) < LARGE:
            self._send_content(content, headers | {"ETag": f'"{git_hash(content)}"'})
            return
        digest = hashlib.sha256(content).hexdigest()
        headers |= {
            "X-Linked-Etag": f'"{digest}"',
            "X-Linked-Size": str(len(content)),
            "Location": f"{self.hub.storage}/storage/{digest}?signature=secret-of-storage",
            "Content-Length": "0",
        }
        self._send_head(302, headers)

    def _store(self, digest: str) -> None:
        for repository in self.hub.repositories.values():
            for files in repository.commits.values():
                for content in files.values():
                    if hashlib.sha256(content).hexdigest() == digest:
                        self._send_content(content, {"ETag": '"of-the-storage"'})
                        return
        self._refuse(Refusal(404))
        return

    def _send_content(self, content: bytes, headers: dict[str, str]) -> None:
        status, begin = 200, 0
        wanted = re.fullmatch(r"bytes=(\d+)-", self.headers.get("Range", ""))
        if wanted and self.hub.ranges:
            begin = int(wanted[1])
            if begin >= len(content):
                self._refuse(Refusal(416, headers={"Content-Range": f"bytes */{len(content)}"}))
                return
            status, headers = 206, headers | {"Content-Range": f"bytes {begin}-{len(content) - 1}/{len(content)}"}
        body = content[begin:]
        with self.hub.lock:
            if self.hub.corrupt and self.command == "GET" and len(body) >= LARGE:
                self.hub.corrupt -= 1
                body = body[:-1] + bytes([body[-1] ^ 1])
        self._send_head(status, headers | {"Content-Length": str(len(body))})
        if self.command == "GET":
            self._send_slowly(body)

    def _send_slowly(self, body: bytes) -> None:
        limit = len(body)
        with self.hub.lock:
            self.hub.open += 1
            if self.hub.break_after and len(body) >= LARGE:
                limit = self.hub.break_after.pop(0)
        try:
            step = 8192
            for begin in range(0, min(limit, len(body)), step):
                piece = body[begin : min(begin + step, limit)]
                self.wfile.write(piece)
                with self.hub.lock:
                    self.hub.sent += len(piece)
                if self.hub.pace is not None:
                    time.sleep(len(piece) / self.hub.pace)
            if limit < len(body):
                self.wfile.flush()
                self.close_connection = True
                self.connection.shutdown(2)
        except OSError:
            self.close_connection = True
        finally:
            with self.hub.lock:
                self.hub.open -= 1

    def _refuse(self, refusal: Refusal) -> None:
        headers = {"Content-Length": "0"} | refusal.headers
        if refusal.code:
            headers |= {"X-Error-Code": refusal.code, "X-Error-Message": f"error {refusal.code}"}
        self._send_head(refusal.status, headers)

    def _send_json(self, value: object) -> None:
        body = json.dumps(value).encode()
        self._send_head(200, {"Content-Type": "application/json", "Content-Length": str(len(body))})
        if self.command == "GET":
            self.wfile.write(body)

    def _send_head(self, status: int, headers: dict[str, str]) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False

    def handle_error(self, request: object, client_address: object) -> None:
        pass  # a client that was killed


def _entry(name: str, content: bytes) -> dict[str, object]:
    entry: dict[str, object] = {"type": "file", "path": name, "size": len(content), "oid": git_hash(content)}
    if len(content) >= LARGE:
        entry["lfs"] = {"oid": hashlib.sha256(content).hexdigest(), "size": len(content), "pointerSize": 130}
    return entry


def git_hash(content: bytes) -> str:
    """Returns git's name of a file's content."""
    return hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()


@contextmanager
def serving_hub() -> Iterator[FakeHub]:
    """Runs a hub, and its storage, on free ports until the block ends."""
    hub = FakeHub()
    handler = type("Handler", (_Handler,), {"hub": hub})

    servers = [_Server(("127.0.0.1", 0), handler) for _ in range(2)]
    hub.url, hub.storage = (f"http://127.0.0.1:{server.server_address[1]}" for server in servers)
    threads = [threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}) for server in servers]
    for thread in threads:
        thread.start()
    try:
        yield hub
    finally:
        for server, thread in zip(servers, threads, strict=True):
            server.shutdown()
            server.server_close()
            thread.join()
