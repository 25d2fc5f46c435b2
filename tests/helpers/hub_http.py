"""HTTP handler of the mock Hub, with the routes that the Hub's client calls."""

from __future__ import annotations

import base64
import json
import re
from http.server import BaseHTTPRequestHandler
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qs, unquote, urlsplit

from tests.helpers.hub_repos import LARGE, Repo, digest, listed

if TYPE_CHECKING:
    from tests.helpers.hub import Hub

TOKEN = "hf_" + "t" * 34
REPO = r"(?:(?P<kind>datasets)/)?(?P<id>[\w.-]+/[\w.-]+)"
API = r"/api/(?P<kind>models|datasets)/(?P<id>[\w.-]+/[\w.-]+)"


class Handler(BaseHTTPRequestHandler):
    hub: Hub
    protocol_version = "HTTP/1.1"

    def log_message(self, *args: Any) -> None:
        """Log nothing."""

    def do_GET(self) -> None:
        self._answer()

    do_HEAD = do_POST = do_PUT = do_GET

    def _answer(self) -> None:
        where = urlsplit(self.path)
        path = unquote(where.path)
        self.hub.asked.append((self.command, path))
        length = int(self.headers.get("Content-Length") or 0)
        self.body = self.rfile.read(length) if length else self._chunks()
        self.query = parse_qs(where.query)
        routes = (
            (r"/api/whoami-v2", self._whoami),
            (r"/api/repos/create", self._create),
            (r"/api/validate-yaml", lambda: self._json({"errors": [], "warnings": []})),
            (API + r"/preupload/.+", self._preupload),
            (API + r"/commit/.+", self._commit),
            (API + r"/tree/[^/]+(?:/(?P<under>.+))?", self._tree),
            (API + r"/paths-info/.+", self._paths),
            (API + r"(?:/revision/.+)?", self._info),
            (r"/" + REPO + r"\.git/info/lfs/objects/batch", self._batch),
            (r"/upload/(?P<oid>\w+)", self._upload),
            (r"/" + REPO + r"/resolve/[^/]+/(?P<file>.+)", self._resolve),
        )
        for pattern, route in routes:
            found = re.fullmatch(pattern, path)
            if found:
                return route(**found.groupdict())
        self._json({"error": f"no route for {path}"}, 404)

    def _chunks(self) -> bytes:
        if self.headers.get("Transfer-Encoding") != "chunked":
            return b""
        data = b""
        while size := int(self.rfile.readline(), 16):
            data += self.rfile.read(size)
            self.rfile.readline()
        self.rfile.readline()
        return data

    def _json(self, answer: Any, status: int = 200, **headers: str) -> None:
        data = json.dumps(answer).encode()
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(data)

    @property
    def _known(self) -> bool:
        return self.headers.get("Authorization") == f"Bearer {TOKEN}"

    def _repo(self, kind: str | None, name: str) -> Repo | None:
        """Return the requested repository, or respond with an error and return None."""
        repo = self.hub.repos.get((kind or "models", name))
        if repo is None or (repo.private and not self._known):
            self._json({"error": "Repository not found"}, 404, X_Error_Code="RepoNotFound")
            return None
        return repo

    def _allowed(self) -> bool:
        if not self._known:
            self._json({"error": "Invalid username or password."}, 401)
        return self._known

    def _whoami(self) -> None:
        if self._allowed():
            self._json({"name": "somebody", "type": "user", "auth": {}})

    def _create(self) -> None:
        if not self._allowed():
            return
        asked = json.loads(self.body)
        name = f"{asked['organization'] or 'somebody'}/{asked['name']}"
        private = asked.get("visibility") == "private" or bool(asked.get("private"))
        if ("models", name) in self.hub.repos:
            return self._json({"error": "exists", "url": f"{self.hub.url}/{name}"}, 409)
        self.hub.repos["models", name] = Repo({".gitattributes": b"\n"}, private)
        self._json({"url": f"{self.hub.url}/{name}", "id": name, "name": name})

    def _preupload(self, kind: str, id: str) -> None:
        if not self._allowed():
            return
        names = [file["path"] for file in json.loads(self.body)["files"]]
        modes = [
            {"path": name, "uploadMode": "lfs" if name.endswith(LARGE) else "regular",
             "shouldIgnore": False, "oid": None}
            for name in names
        ]  # fmt: skip
        self._json({"files": modes, "commitOid": self.hub.repos[kind, id].sha})

    def _batch(self, kind: str | None, id: str) -> None:
        objects = [
            {"oid": one["oid"], "size": one["size"],
             "actions": {"upload": {"href": f"{self.hub.url}/upload/{one['oid']}"}}}
            for one in json.loads(self.body)["objects"]
        ]  # fmt: skip
        self._json({"transfer": "basic", "objects": objects})

    def _upload(self, oid: str) -> None:
        assert digest(self.body) == oid
        self.hub.uploads[oid] = self.body
        self._json({})

    def _commit(self, kind: str, id: str) -> None:
        if not self._allowed():
            return
        repo = self.hub.repos[kind, id]
        for line in self.body.splitlines():
            step = json.loads(line)
            value = step["value"]
            if step["key"] == "file":
                repo.files[value["path"]] = base64.b64decode(value["content"])
            elif step["key"] == "lfsFile":
                repo.files[value["path"]] = self.hub.uploads[value["oid"]]
        url = f"{self.hub.url}/{id}/commit/{repo.sha}"
        self._json({"success": True, "commitUrl": url, "commitOid": repo.sha})

    def _tree(self, kind: str, id: str, under: str | None) -> None:
        repo = self._repo(kind, id)
        if repo is not None:
            found = listed(repo.files, under or "", self.query.get("recursive") == ["True"])
            if under and not found:
                return self._json({"error": "none"}, 404, X_Error_Code="EntryNotFound")
            self._json(found)

    def _paths(self, kind: str, id: str) -> None:
        repo = self._repo(kind, id)
        if repo is not None:
            asked = json.loads(self.body) if self.body[:1] == b"{" else {}
            names = asked.get("paths") or parse_qs(self.body.decode()).get("paths", [])
            every = listed(repo.files, "", True)
            self._json([one for one in every if one["path"] in names])

    def _info(self, kind: str, id: str) -> None:
        repo = self._repo(kind, id)
        if repo is None:
            return
        siblings = [
            {"rfilename": name, "size": len(data), "blobId": digest(data)[:40]}
            for name, data in repo.files.items()
        ]
        self._json(
            {"id": id, "modelId": id, "sha": repo.sha, "private": repo.private,
             "siblings": siblings, "gated": "auto" if repo.gated else False,
             "cardData": repo.card, "tags": [],
             "downloads": 0, "likes": 0, "createdAt": "2026-01-01T00:00:00.000Z",
             "lastModified": "2026-01-01T00:00:00.000Z"}
        )  # fmt: skip

    def _resolve(self, kind: str | None, id: str, file: str) -> None:
        repo = self._repo(kind, id)
        if repo is None:
            return
        if repo.gated and not self._known:
            body = {"error": f"Access to {id} is restricted"}
            return self._json(body, 401, X_Error_Code="GatedRepo", X_Error_Message=body["error"])
        if file not in repo.files:
            return self._json({"error": "none"}, 404, X_Error_Code="EntryNotFound",
                              X_Repo_Commit=repo.sha)  # fmt: skip
        self._serve(repo, file)

    def _serve(self, repo: Repo, file: str) -> None:
        data = repo.files[file]
        start, total = 0, len(data)
        wanted = re.match(r"bytes=(\d+)-", self.headers.get("Range") or "")
        if wanted:
            start = int(wanted[1])
        self.send_response(206 if wanted else 200)
        self.send_header("ETag", f'"{digest(data)}"')
        self.send_header("X-Repo-Commit", repo.sha)
        self.send_header("Accept-Ranges", "bytes")
        self.send_header("Content-Length", str(total - start))
        if wanted:
            self.send_header("Content-Range", f"bytes {start}-{total - 1}/{total}")
        self.end_headers()
        if self.command == "HEAD":
            return
        part = data[start:]
        cut = self.hub.cut_after
        if cut is not None and file.endswith(LARGE):
            self.hub.cut_after = None
            part = part[:cut]
            self.close_connection = True
        self.wfile.write(part)
        self.hub.served[file] = self.hub.served.get(file, 0) + len(part)
