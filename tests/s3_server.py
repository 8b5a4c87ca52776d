"""A real S3 server on loopback (moto's, in a process of its own), and a proxy that makes it fail."""

from __future__ import annotations

import http.client
import importlib.util
import os
import re
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

BUCKET = "bucket"
# Statuses of `Proxy`: the server's answer; and no answer, although the server did the request.
PASSED_ON, LOST = 0, -1
IS_INSTALLED = all(importlib.util.find_spec(name) for name in ("moto", "flask", "flask_cors"))


@contextmanager
def moto_server() -> Iterator[int]:
    """Yield the port of a server with an empty BUCKET; it accepts any credentials."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)]
    environment = os.environ | {"AWS_ACCESS_KEY_ID": "any", "AWS_SECRET_ACCESS_KEY": "any"}
    server = subprocess.Popen(
        command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    try:
        for _ in range(600):
            assert server.poll() is None, "the moto server ended"
            with suppress(ConnectionRefusedError):
                first = connection(port)
                first.request("PUT", f"/{BUCKET}")
                assert first.getresponse().status == 200
                break
            time.sleep(0.1)
        yield port
    finally:
        server.kill()
        server.wait()


def root(port: int, folder: str) -> str:
    """Return the URI of a store in this folder of the bucket, at the port of a server or proxy."""
    return f"s3://{BUCKET}/{folder}/root?scheme=http&endpoint_override=127.0.0.1:{port}"


def connection(port: int) -> http.client.HTTPConnection:
    """Return a connection for requests without a signature, which moto accepts."""
    return http.client.HTTPConnection("127.0.0.1", port)


class _Server(ThreadingHTTPServer):
    def handle_error(self, request: object, client_address: object) -> None:
        if not isinstance(sys.exception(), ConnectionError):  # a killed client's
            super().handle_error(request, client_address)  # type: ignore[arg-type]


class Proxy:
    """Pass requests on to the server at `port`, and record them as "METHOD path" in `requests`.

    `unheeded`: remove conditions (If-Match, If-None-Match) from requests. `error_code`: in the body of
    answers with a status of `fail`.
    """

    def __init__(self, port: int) -> None:
        self.server_port = port
        self.requests: list[str] = []
        self.authorizations: list[str] = []
        self.unheeded = False
        self.error_code = "InternalError"
        self._rules: list[list] = []
        self._lock = threading.Lock()
        # moto checks a condition, then writes, and two readers of an object share one position in it.
        # S3 does each in one step.
        self._one_request = threading.Lock()
        proxy = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            disable_nagle_algorithm = True
            wbufsize = -1

            def answer(self) -> None:
                body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
                if self.headers.get("Authorization"):
                    proxy.authorizations.append(self.headers["Authorization"])
                status = proxy._status_of(f"{self.command} {self.path}")
                headers: dict[str, str] = {}
                text = (
                    f"<Error><Code>{proxy.error_code}</Code><Message>made to fail</Message></Error>"
                )
                content, passed_on = text.encode(), PASSED_ON
                if status in (PASSED_ON, LOST):
                    passed_on, headers, content = self.pass_on(body)
                if status in (None, LOST):
                    self.close_connection = True
                    self.connection.shutdown(socket.SHUT_RDWR)
                    return
                self.send_response(status or passed_on)
                for name, value in headers.items():
                    if name.lower() not in ("connection", "transfer-encoding", "content-length"):
                        self.send_header(name, value)
                is_head = self.command == "HEAD"
                length = headers.get("Content-Length", 0) if is_head else len(content)
                self.send_header("Content-Length", str(length))
                self.end_headers()
                self.wfile.write(b"" if is_head else content)

            def pass_on(self, body: bytes) -> tuple[int, dict[str, str], bytes]:
                if proxy.unheeded:
                    for name in ("If-Match", "If-None-Match"):
                        del self.headers[name]
                with proxy._one_request, closing(connection(port)) as server:
                    server.request(self.command, self.path, body, dict(self.headers))
                    answer = server.getresponse()
                    return answer.status, dict(answer.getheaders()), answer.read()

            do_GET = do_PUT = do_POST = do_HEAD = do_DELETE = answer  # noqa: N815

            def log_message(self, *_: object) -> None:
                pass

        self._server = _Server(("127.0.0.1", 0), Handler)
        self.port = self._server.server_address[1]
        threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True).start()

    def fail(self, pattern: str, times: int, status: int | None = 500) -> None:
        """Answer the next `times` matching requests with `status`; None: close the connection."""
        with self._lock:
            self._rules.append([re.compile(pattern), times, status])

    def lose_answer(self, pattern: str, times: int) -> None:
        """Execute the next matching requests, but close the connection without an answer."""
        self.fail(pattern, times, LOST)

    def heal(self) -> None:
        """Remove all rules, and reset the counts."""
        with self._lock:
            self._rules.clear()
            self.requests.clear()

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()

    def _status_of(self, request: str) -> int | None:
        with self._lock:
            self.requests.append(request)
            for rule in self._rules:
                if rule[1] > 0 and rule[0].search(request):
                    rule[1] -= 1
                    return rule[2]
        return PASSED_ON
