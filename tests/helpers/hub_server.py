"""A server of this machine that speaks the Hugging Face hub's endpoints for downloads, and serves plain files."""

import contextlib
import dataclasses
import hashlib
import json
import re
import socket
import threading
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import unquote

COMMIT = "0123456789abcdef0123456789abcdef01234567"
# The hub keeps larger files in another place, and redirects to it.
_LARGE = 1000


@dataclasses.dataclass
class Hub:
    """State of the server; tests change it between requests.

    Attributes:
      files: the content of each file, by "OWNER/NAME/FILE".
      commit: the commit of the branch main.
      status: answer to every request for metadata, with an error code of the hub, such as (403, "GatedRepo").
      tampered: content to send in place of a file's own, by the file's name.
      cut: bytes after which the connection is closed, once for each number.
      ignores_ranges: True to send whole files always.
      on_cut: called before a connection is closed.
      requests: method, path and Range of each request.
      agents: the User-Agent of each request.
    """

    files: dict[str, bytes]
    commit: str = COMMIT
    status: tuple[int, str] | None = None
    tampered: dict[str, bytes] = dataclasses.field(default_factory=dict)
    cut: list[int] = dataclasses.field(default_factory=list)
    ignores_ranges: bool = False
    on_cut: Callable[[], object] = lambda: None
    requests: list[tuple[str, str, str]] = dataclasses.field(default_factory=list)
    agents: list[str] = dataclasses.field(default_factory=list)

    def ranges(self, name: str) -> list[str]:
        """Returns the Range of each request for the bytes of a file."""
        return [span for method, path, span in self.requests if method == "GET" and path.endswith(f"{name}?bytes")]


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    hub: Hub

    def do_HEAD(self) -> None:
        self._answer()

    def do_GET(self) -> None:
        self._answer()

    def log_message(self, format: str, *args: object) -> None:
        pass

    def _answer(self) -> None:
        hub, path = self.hub, unquote(self.path)
        hub.requests.append((self.command, path, self.headers.get("Range", "")))
        hub.agents.append(self.headers.get("User-Agent", ""))
        if path.startswith("/cdn/"):
            return self._send_bytes(path.removeprefix("/cdn/").removesuffix("?bytes"))
        if hub.status:
            return self._send(hub.status[0], {"X-Error-Code": hub.status[1]})
        match = re.fullmatch(r"/api/models/([^/]+/[^/]+)/revision/([^?]+).*", path) or re.fullmatch(
            r"/([^/]+/[^/]+)/resolve/([^/]+)/(.+)", path
        )
        if match is None:
            return self._send(404, {})
        repository, revision = match[1], match[2]
        if not any(name.startswith(f"{repository}/") for name in hub.files):
            return self._send(404, {"X-Error-Code": "RepoNotFound"})
        if revision not in ("main", hub.commit):
            return self._send(404, {"X-Error-Code": "RevisionNotFound"})
        if path.startswith("/api/"):
            content = {"id": repository, "sha": hub.commit, "siblings": []}
            return self._send(200, {"Content-Type": "application/json"}, json.dumps(content).encode())
        name = f"{repository}/{match[3]}"
        if name not in hub.files:
            return self._send(404, {"X-Error-Code": "EntryNotFound", "X-Repo-Commit": hub.commit})
        content, head = hub.files[name], {"X-Repo-Commit": hub.commit}
        if len(content) > _LARGE:
            digest = hashlib.sha256(content).hexdigest()
            head |= {"X-Linked-Etag": f'"{digest}"', "X-Linked-Size": str(len(content)), "ETag": '"pointer"'}
            # Another host, as at the hub: the library follows no others when it asks for the hash.
            address = f"http://localhost:{self.headers['Host'].rpartition(':')[2]}"
            return self._send(302, head | {"Location": f"{address}/cdn/{name}?bytes"})
        digest = hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()
        return self._send(200, head | {"ETag": f'"{digest}"'}, hub.tampered.get(match[3], content))

    def _send_bytes(self, name: str) -> None:
        hub = self.hub
        if name not in hub.files:
            return self._send(404, {})
        content = hub.tampered.get(name.rpartition("/")[2], hub.files[name])
        begin = re.fullmatch(r"bytes=(\d+)-", self.headers.get("Range", ""))
        if begin is None or hub.ignores_ranges:
            return self._send(200, {}, content, cut=True)
        start = int(begin[1])
        if start >= len(content):
            return self._send(416, {"Content-Range": f"bytes */{len(content)}"})
        head = {"Content-Range": f"bytes {start}-{len(content) - 1}/{len(content)}"}
        return self._send(206, head, content[start:], cut=True)

    def _send(self, status: int, headers: dict[str, str], content: bytes = b"", cut: bool = False) -> None:
        self.send_response(status)
        for name, value in ({"Content-Length": str(len(content))} | headers).items():
            self.send_header(name, value)
        self.end_headers()
        if self.command == "HEAD":
            return
        if cut and self.hub.cut:
            self.wfile.write(content[: self.hub.cut.pop(0)])
            self.wfile.flush()
            self.close_connection = True
            self.hub.on_cut()
        else:
            self.wfile.write(content)


class Server(ThreadingHTTPServer):
    """Server that ends its open connections when it is stopped."""

    daemon_threads = True

    def __init__(self, hub: Hub):
        super().__init__(("127.0.0.1", 0), type("Handler", (_Handler,), {"hub": hub}))
        self._connections: list[socket.socket] = []

    def get_request(self) -> tuple[socket.socket, tuple[str, int]]:
        connection, address = super().get_request()
        self._connections.append(connection)
        return connection, address

    def stop(self) -> None:
        """Stops the server, so that its port refuses connections."""
        self.shutdown()
        self.server_close()
        for connection in self._connections:
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)


def serve(hub: Hub) -> Server:
    """Starts a server on a free port of this machine; its address is `server_address`."""
    server = Server(hub)
    threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
    return server
