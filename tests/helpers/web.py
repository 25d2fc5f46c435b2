"""A local HTTP server with scripted responses."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, urlparse

Response = tuple[int, dict[str, str], bytes]


class Server:
    """A local HTTP server whose responses depend on the number of requests for a path."""

    def __init__(self) -> None:
        self.responses: dict[str, Callable[[int, dict[str, list[str]]], Response]] = {}
        self.requests: Counter[str] = Counter()
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        threading.Thread(target=self._server.serve_forever, daemon=True).start()
        self.address = f"http://127.0.0.1:{self._server.server_port}"

    def serve(self, path: str, *responses: Response) -> str:
        """Set the responses of a path, of which the last is repeated, and return its URL."""
        self.responses[path] = lambda n, query: responses[min(n, len(responses)) - 1]
        return self.address + path

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        server = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                url = urlparse(self.path)
                server.requests[url.path] += 1
                response = server.responses.get(url.path, lambda n, query: (404, {}, b""))
                status, headers, body = response(server.requests[url.path], parse_qs(url.query))
                if status == 0:  # hangs until the client gives up
                    threading.Event().wait(2.0)
                    return
                self.send_response(status)
                for name, value in ({"Content-Length": str(len(body))} | headers).items():
                    self.send_header(name, value)
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *args: object) -> None:
                pass

        return Handler


FAST = {"backoff_s": 0.01, "pause_s": 0.0, "timeout_s": 0.3, "max_attempts": 3}
