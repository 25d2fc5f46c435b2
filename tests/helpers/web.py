"""A local HTTP server that behaves or misbehaves, as a test asks."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, urlparse

Answer = tuple[int, dict[str, str], bytes]


class Server:
    """A local HTTP server whose answers are functions of how often a path was asked for."""

    def __init__(self) -> None:
        self.answers: dict[str, Callable[[int, dict[str, list[str]]], Answer]] = {}
        self.asked: Counter[str] = Counter()
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        threading.Thread(target=self._server.serve_forever, daemon=True).start()
        self.address = f"http://127.0.0.1:{self._server.server_port}"

    def gives(self, path: str, *answers: Answer) -> str:
        """Answers in turn, the last one for ever; returns the address."""
        self.answers[path] = lambda n, query: answers[min(n, len(answers)) - 1]
        return self.address + path

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        server = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                asked = urlparse(self.path)
                server.asked[asked.path] += 1
                answer = server.answers.get(asked.path, lambda n, query: (404, {}, b""))
                status, headers, body = answer(server.asked[asked.path], parse_qs(asked.query))
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
