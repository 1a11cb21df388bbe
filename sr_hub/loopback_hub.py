"""A Hub on this machine: the part of the Hugging Face Hub's HTTP API that pushing and pulling models uses.

For trying push and pull without an account, and for the tests. It listens on the loopback interface only and
keeps everything in one folder. The addresses follow ``huggingface_hub``; LFS contents go over plain HTTP.
"""

import base64
import json
import re
import threading
from collections import deque
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

from huggingface_hub import ModelCard
from yaml import YAMLError

from sr_hub.hub_store import HubStore, Repository, StoredFile, check_path
from sr_hub.licenses import check_license

DEFAULT_TOKEN = "hf_loopback"
DEFAULT_USER = "me"

_LFS_FROM = 10 * 2**20  # bytes; the Hub's own limit
_LFS_SUFFIXES = (".safetensors", ".bin", ".pt", ".pth", ".onnx", ".png", ".jpg", ".webp", ".avif")
_LARGEST_BODY = 64 * 2**20  # bytes of a request other than an upload
_HOSTS = ("127.0.0.1", "localhost")


class LoopbackHub(ThreadingHTTPServer):
    """The server; ``url`` is what ``HF_ENDPOINT`` has to be.

    Args:
        folder: Where repositories are kept; made if missing.
        port: 0 takes a free one.
        user: Whom the token belongs to.
        token: The one token that may write, and read what is private. With ``role`` "read" it may not write.
    """

    daemon_threads = True

    def __init__(
        self, folder: Path, *, port: int = 0, user: str = DEFAULT_USER, token: str = DEFAULT_TOKEN
    ) -> None:
        self.store = HubStore(folder)
        self.user, self.token, self.role = user, token, "write"
        self.lock = threading.RLock()
        self.requests: deque[str] = deque(maxlen=1000)
        super().__init__(("127.0.0.1", port), _Handler)
        self.url = f"http://127.0.0.1:{self.server_address[1]}"

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Says nothing: a client that went away is its own affair."""


class _Refusal(Exception):  # noqa: N818  # an answer rather than an error
    """Ends a request with an HTTP status, as the Hub words it."""

    def __init__(self, status: int, code: str, message: str) -> None:
        super().__init__(message)
        self.status, self.code = status, code


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    timeout = 60  # seconds until a silent client is let go
    server: LoopbackHub

    def log_message(self, format: str, *arguments: Any) -> None:
        self.server.requests.append(f"{self.command} {self.path}")

    def _answer(self) -> None:
        url = urlsplit(self.path)
        self.query = parse_qs(url.query)
        try:
            if self.headers.get("Host", "").rsplit(":", 1)[0] not in _HOSTS:
                raise _Refusal(403, "Forbidden", "the Host must be this machine")  # pages of other sites
            for method, pattern, function in _ROUTES:
                match = pattern.fullmatch(url.path)
                if match and self.command in ((method, "HEAD") if method == "GET" else (method,)):
                    found = {name: text and unquote(text) for name, text in match.groupdict().items()}
                    function(self, **found)
                    return
            self._drop_body()
            raise _Refusal(404, "NotFound", f"no address {self.command} {url.path}")
        except _Refusal as refusal:
            self._refuse(refusal)
        except (ValueError, KeyError, TypeError) as error:
            self._refuse(_Refusal(400, "BadRequest", f"the request cannot be understood: {error}"))

    do_GET = do_HEAD = do_POST = do_PUT = do_DELETE = _answer  # noqa: N815  # the names of the base class

    # Bodies

    def _body(self, largest: int = _LARGEST_BODY) -> bytes:
        blocks, size = [], 0
        for block in self._blocks():
            size += len(block)
            if size > largest:
                self.close_connection = True
                raise _Refusal(413, "TooLarge", f"a request must have at most {largest} bytes")
            blocks.append(block)
        return b"".join(blocks)

    def _drop_body(self) -> None:
        for _ in self._blocks():
            pass

    def _blocks(self) -> Iterator[bytes]:
        """The request's body, piece by piece."""
        if "chunked" in self.headers.get("Transfer-Encoding", "").lower():
            while size := int(self.rfile.readline().split(b";")[0], 16):
                yield self._exactly(size)
                self.rfile.readline()
            self.rfile.readline()
            return
        left = int(self.headers.get("Content-Length") or 0)
        while left:
            block = self._exactly(min(left, 1 << 20))
            left -= len(block)
            yield block

    def _exactly(self, size: int) -> bytes:
        block = self.rfile.read(size)
        if len(block) < size:
            raise _Refusal(400, "BadRequest", "the body ended early")
        return block

    def _json(self) -> dict[str, Any]:
        content = json.loads(self._body() or b"{}")
        if not isinstance(content, dict):
            raise _Refusal(400, "BadRequest", f"the body must be a JSON object, got {type(content).__name__}")
        return content

    def _reply(self, content: object, status: int = 200, headers: dict[str, str] | None = None) -> None:
        body = b"" if content is None else json.dumps(content).encode()
        self.send_response(status)
        for name, value in {"Content-Type": "application/json", **(headers or {})}.items():
            self.send_header(name, value.encode("latin-1", "replace").decode("latin-1"))
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def _refuse(self, refusal: _Refusal) -> None:
        headers = {"X-Error-Message": str(refusal).replace("\n", " "), "X-Error-Code": refusal.code}
        if refusal.code == "BadToken":  # the Hub sends no code here, and the client goes by that
            del headers["X-Error-Code"]
        if refusal.code == "EntryNotFound":
            headers["X-Repo-Commit"] = self.commit_hash
        self.close_connection = True  # a body may be left unread
        self._reply({"error": str(refusal)}, refusal.status, {**headers, "Connection": "close"})

    # Who may do what

    def _signed_in(self) -> bool:
        """Whether the request bears the token.

        Raises:
            _Refusal: If it bears another one.
        """
        given = self.headers.get("Authorization")
        if given is None:
            return False
        if given != f"Bearer {self.server.token}":
            raise _Refusal(401, "BadToken", "Invalid credentials in Authorization header")
        return True

    def _must_be_signed_in(self) -> None:
        if not self._signed_in():
            raise _Refusal(401, "BadToken", "Invalid username or password.")

    def _readable(self, name: str) -> Repository:
        signed_in = self._signed_in()
        repository = self.server.store.load(name)
        if repository is None or (repository.private and not signed_in):
            raise _Refusal(404 if signed_in else 401, "RepoNotFound", "Repository not found")
        return repository

    def _writable(self, name: str) -> Repository:
        self._must_be_signed_in()
        repository = self._readable(name)
        if name.split("/")[0] != self.server.user or self.server.role != "write":
            raise _Refusal(403, "Forbidden", f"{self.server.user} may not write to {name}")
        return repository

    def _resolved(self, repository: Repository, revision: str) -> str:
        commit = repository.resolve(revision)
        if commit is None:
            raise _Refusal(404, "RevisionNotFound", f"Invalid rev id: {revision}")
        return commit

    # Accounts and repositories

    def whoami(self) -> None:
        self._must_be_signed_in()
        token = {"displayName": "loopback", "role": self.server.role}
        account = {"type": "user", "name": self.server.user, "orgs": []}
        self._reply({**account, "auth": {"type": "access_token", "accessToken": token}})

    def create(self) -> None:
        self._must_be_signed_in()
        wanted = self._json()
        owner = wanted.get("organization") or self.server.user
        name = f"{owner}/{wanted['name']}"
        if owner != self.server.user:
            raise _Refusal(403, "Forbidden", f"{self.server.user} may not create {name}")
        made = {"url": f"{self.server.url}/{name}", "name": name, "id": name}
        with self.server.lock:
            if self.server.store.load(name) is not None:
                self._reply({**made, "error": "You already created this model repo"}, 409)
                return
            private = wanted.get("visibility") == "private" or wanted.get("private") is True
            self.server.store.create(name, private=private)
        self._reply(made)

    def delete(self) -> None:
        wanted = self._json()
        name = f"{wanted.get('organization') or self.server.user}/{wanted['name']}"
        with self.server.lock:
            self._writable(name)
            self.server.store.delete(name)
        self._reply(None)

    def create_branch(self, name: str, branch: str) -> None:
        wanted = self._json()
        with self.server.lock:
            repository = self._writable(name)
            if branch in repository.refs:
                raise _Refusal(409, "Conflict", "Reference already exists")
            start = self._resolved(repository, wanted.get("startingPoint") or "main")
            repository.refs[check_path(branch)] = start
            self.server.store.save(name, repository)
        self._reply(None)

    # Reading

    def info(self, name: str, revision: str = "main") -> None:
        repository = self._readable(name)
        commit = self._resolved(repository, revision)
        self._reply({
            "_id": "0", "id": name, "modelId": name, "author": name.split("/")[0], "sha": commit,
            "private": repository.private, "disabled": False, "gated": False, "downloads": 0, "likes": 0,
            "tags": [], "siblings": [{"rfilename": path} for path in repository.commits[commit].files],
        })  # fmt: skip

    def tree(self, name: str, revision: str, folder: str | None = None) -> None:
        repository = self._readable(name)
        files = repository.commits[self._resolved(repository, revision)].files
        inside = "" if not folder else folder.rstrip("/") + "/"
        self._reply([_entry(path, file) for path, file in files.items() if path.startswith(inside)])

    def paths_info(self, name: str, revision: str) -> None:
        body = self._body()
        repository = self._readable(name)
        files = repository.commits[self._resolved(repository, revision)].files
        form = self.headers.get("Content-Type", "").startswith("application/x-www-form-urlencoded")
        paths = parse_qs(body.decode()).get("paths", []) if form else json.loads(body)["paths"]
        self._reply([_entry(path, files[path]) for path in paths if path in files])

    def refs(self, name: str) -> None:
        repository = self._readable(name)
        branches = [
            {"name": ref, "ref": f"refs/heads/{ref}", "targetCommit": commit}
            for ref, commit in repository.refs.items()
            if not ref.startswith("refs/")
        ]
        self._reply({"branches": branches, "converts": [], "tags": []})

    def commits(self, name: str, revision: str) -> None:
        repository = self._readable(name)
        commit: str | None = self._resolved(repository, revision)
        found = []
        while commit is not None:
            made = repository.commits[commit]
            found.append({"id": commit, "title": made.title, "message": "", "authors": [], "date": made.date})
            commit = made.parent
        self._reply(found)

    def resolve(self, name: str, revision: str, path: str) -> None:
        repository = self._readable(name)
        self.commit_hash = self._resolved(repository, revision)
        file = repository.commits[self.commit_hash].files.get(path)
        if file is None:
            raise _Refusal(404, "EntryNotFound", "Entry not found")
        headers = {"X-Repo-Commit": self.commit_hash, "ETag": f'"{file.sha256 if file.lfs else file.oid}"'}
        if file.lfs:
            headers |= {"X-Linked-Etag": headers["ETag"], "X-Linked-Size": str(file.size)}
        self._send(self.server.store.blob(file.sha256), headers)

    def _send(self, path: Path, headers: dict[str, str]) -> None:
        size = path.stat().st_size
        first, last, status = 0, size - 1, 200
        if match := re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range", "")):
            first, last, status = int(match[1]), min(int(match[2] or last), last), 206
            headers["Content-Range"] = f"bytes {first}-{last}/{size}"
            if first > last:
                raise _Refusal(416, "BadRange", f"the range must begin before byte {size}, got {first}")
        self.send_response(status)
        headers |= {"Accept-Ranges": "bytes", "Content-Type": "application/octet-stream"}
        for name, value in {**headers, "Content-Length": str(last - first + 1)}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command == "HEAD":
            return
        with path.open("rb") as file:
            file.seek(first)
            left = last - first + 1
            while left and (block := file.read(min(left, 1 << 20))):
                self.wfile.write(block)
                left -= len(block)

    # Writing

    def validate_yaml(self) -> None:
        """The Hub's check of a card's metadata: that it is there, well formed, and names a known licence."""
        content = self._json()["content"]
        errors, warnings = [], []
        try:
            data = ModelCard(content).data.to_dict()
            if not data:
                warnings.append("empty or missing yaml metadata in repo card")
            elif data.get("license") is not None:
                check_license(data["license"])
        except (ValueError, TypeError, YAMLError) as error:
            errors.append(str(error))
        answer = {
            "errors": [{"message": error} for error in errors],
            "warnings": [{"message": warning} for warning in warnings],
        }
        self._reply(answer, 400 if errors else 200)

    def preupload(self, name: str, revision: str) -> None:
        wanted = self._json()["files"]
        repository = self._writable(name)
        files = repository.commits[self._resolved(repository, revision)].files
        answer = []
        for item in wanted:
            path = check_path(item["path"])
            lfs = item["size"] > _LFS_FROM or path.endswith(_LFS_SUFFIXES)
            entry = {"path": path, "uploadMode": "lfs" if lfs else "regular", "shouldIgnore": False}
            if path in files:
                entry["oid"] = files[path].sha256 if files[path].lfs else files[path].oid
            answer.append(entry)
        self._reply({"files": answer})

    def lfs_batch(self, name: str) -> None:
        wanted = self._json()["objects"]
        self._writable(name)
        objects = []
        for item in wanted:
            entry = {"oid": item["oid"], "size": item["size"]}
            if not self.server.store.blob(item["oid"]).is_file():
                entry["actions"] = {"upload": {"href": f"{self.server.url}/lfs/{item['oid']}"}}
            objects.append(entry)
        self._reply({"transfer": "basic", "objects": objects})

    def lfs_upload(self, sha256: str) -> None:
        with self.server.store.writer() as part:  # the address is the permission, as with the Hub's
            for block in self._blocks():
                part.write(block)
            self.server.store.finish(part, sha256)
        self._reply(None)

    def commit(self, name: str, revision: str) -> None:
        lines = [json.loads(line) for line in self._body().splitlines()]
        with self.server.lock:
            repository = self._writable(name)
            head = self._resolved(repository, revision)
            if revision not in repository.refs:
                raise _Refusal(400, "BadRequest", "a commit goes onto a branch")
            files, title = dict(repository.commits[head].files), ""
            for line in lines:
                if line["key"] == "header":
                    title = line["value"]["summary"]
                    if not head.startswith(line["value"].get("parentCommit") or ""):
                        raise _Refusal(
                            412, "PreconditionFailed",
                            "A commit has happened since. Please refresh and try again.",
                        )  # fmt: skip
                else:
                    self._apply(line["key"], line["value"], files)
            pull_request, ref = None, revision
            if self.query.get("create_pr") == ["1"]:
                ref = self._new_pull_request(repository, head)
                pull_request = f"{self.server.url}/{name}/discussions/{repository.pull_requests}"
            commit = repository.commit(ref, files, title)
            self.server.store.save(name, repository)
        url = f"{self.server.url}/{name}/commit/{commit}"
        answer = {"success": True, "commitOid": commit, "commitUrl": url, "hookOutput": ""}
        self._reply({**answer, "pullRequestUrl": pull_request})

    def _apply(self, key: str, value: dict[str, Any], files: dict[str, StoredFile]) -> None:
        """One operation of a commit on ``files``."""
        path = check_path(value["path"].rstrip("/"))
        if key == "file":
            files[path] = self.server.store.put(base64.b64decode(value["content"], validate=True))
        elif key == "lfsFile":
            file = self.server.store.lfs_file(value["oid"])
            if file is None:
                raise _Refusal(400, "BadRequest", f"LFS object {value['oid']} was not uploaded")
            files[path] = file
        elif key == "deletedFile":
            files.pop(path, None)
        elif key == "deletedFolder":
            for inside in [other for other in files if other.startswith(path + "/")]:
                del files[inside]
        else:
            raise _Refusal(400, "BadRequest", f"an operation must be one of the Hub's, got {key!r}")

    def _new_pull_request(self, repository: Repository, head: str) -> str:
        repository.pull_requests += 1
        ref = f"refs/pr/{repository.pull_requests}"
        repository.refs[ref] = head
        return ref


def _entry(path: str, file: StoredFile) -> dict[str, Any]:
    entry: dict[str, Any] = {"type": "file", "path": path, "size": file.size, "oid": file.oid}
    if file.lfs:
        entry["lfs"] = {"oid": file.sha256, "size": file.size, "pointerSize": 128}
    return entry


_REPO = r"(?P<name>[^/]+/[^/]+)"
_REVISION = r"(?P<revision>refs/pr/\d+|[^/]+)"  # with its other slashes quoted
_ADDRESSES: list[tuple[str, str, Callable[..., None]]] = [
    ("GET", r"/api/whoami-v2", _Handler.whoami),
    ("POST", r"/api/repos/create", _Handler.create),
    ("DELETE", r"/api/repos/delete", _Handler.delete),
    ("POST", r"/api/validate-yaml", _Handler.validate_yaml),
    ("POST", rf"/api/models/{_REPO}/preupload/{_REVISION}", _Handler.preupload),
    ("POST", rf"/api/models/{_REPO}/commit/{_REVISION}", _Handler.commit),
    ("POST", rf"/api/models/{_REPO}/branch/(?P<branch>.+)", _Handler.create_branch),
    ("POST", rf"/api/models/{_REPO}/paths-info/{_REVISION}", _Handler.paths_info),
    ("GET", rf"/api/models/{_REPO}/tree/{_REVISION}(?:/(?P<folder>.*))?", _Handler.tree),
    ("GET", rf"/api/models/{_REPO}/refs", _Handler.refs),
    ("GET", rf"/api/models/{_REPO}/commits/{_REVISION}", _Handler.commits),
    ("GET", rf"/api/models/{_REPO}/revision/{_REVISION}", _Handler.info),
    ("GET", rf"/api/models/{_REPO}", _Handler.info),
    ("POST", rf"/{_REPO}\.git/info/lfs/objects/batch", _Handler.lfs_batch),
    ("PUT", r"/lfs/(?P<sha256>[0-9a-f]{64})", _Handler.lfs_upload),
    ("GET", rf"/{_REPO}/resolve/{_REVISION}/(?P<path>.+)", _Handler.resolve),
]
_ROUTES = [(method, re.compile(pattern), function) for method, pattern, function in _ADDRESSES]
