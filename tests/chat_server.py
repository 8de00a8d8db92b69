"""A server on the loopback interface that speaks the chat protocol, and breaks it on request."""

import base64
import io
import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import numpy as np
from PIL import Image

PATIENCE = 20.0  # seconds until a test that waits for something has failed


@dataclass(frozen=True)
class Answer:
    """What is sent back, and how.

    "whole"; "cut" in the middle; drop by drop without an end, "drip", or so from the first line, "drip head"; "hang":
    nothing at all; "flood": the body again and again, without an end.
    """

    body: bytes
    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)
    how: str = "whole"


def completion(content: str | None, calls: list[dict[str, Any]] | None = None, **changes: Any) -> Answer:
    message: dict[str, Any] = {"role": "assistant", "content": content}
    if calls is not None:
        message["tool_calls"] = calls
    reply = {
        "id": "1",
        "object": "chat.completion",
        "created": 0,
        "model": "tiny-served",
        "choices": [{"index": 0, "finish_reason": "stop", "message": message}],
        "usage": {"prompt_tokens": 100, "completion_tokens": 7, "total_tokens": 107},
    }
    return Answer(json.dumps(reply | changes).encode())


def tool_call(name: str, arguments: str) -> dict[str, Any]:
    return {"id": "x", "type": "function", "function": {"name": name, "arguments": arguments}}


def refusal(status: int, message: str, **headers: str) -> Answer:
    return Answer(json.dumps({"error": {"message": message}}).encode(), status, headers)


class ChatServer:
    """Answers request n (from 0) with `answer(n, body)`; notes requests, their headers, and how many ran at once."""

    def __init__(self, answer: Callable[[int, dict[str, Any]], Answer]) -> None:
        self.answer = answer
        self.bodies: list[dict[str, Any]] = []
        self.keys: list[str | None] = []
        self.codings: list[str | None] = []
        self.running = self.most_running = 0
        self.closing = threading.Event()
        self.lock = threading.Lock()
        outer = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                outer.serve(self)

            def log_message(self, *_: Any) -> None:
                pass

        class Server(ThreadingHTTPServer):
            def handle_error(self, *_: Any) -> None:  # a client that was killed or gave up
                pass

        self.http = Server(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.http.server_port}/v1"

    def serve(self, handler: BaseHTTPRequestHandler) -> None:
        body = json.loads(handler.rfile.read(int(handler.headers["Content-Length"])))
        with self.lock:
            number = len(self.bodies)
            self.bodies.append(body)
            self.keys.append(handler.headers["Authorization"])
            self.codings.append(handler.headers["Accept-Encoding"])
            self.running += 1
            self.most_running = max(self.most_running, self.running)
        try:
            self.send(handler, self.answer(number, body))
        finally:
            with self.lock:
                self.running -= 1

    def send(self, handler: BaseHTTPRequestHandler, answer: Answer) -> None:
        if answer.how != "whole":
            handler.close_connection = True
        if answer.how == "hang":
            self.closing.wait(PATIENCE)
            return
        if answer.how == "drip head":
            for byte in b"HTTP/1.1 200 OK\r\nX-Long: " + b"x" * 10_000:
                if not self.closing.wait(0.01):
                    handler.wfile.write(bytes([byte]))
            return
        handler.send_response(answer.status)
        for name, value in {"Content-Type": "application/json", **answer.headers}.items():
            handler.send_header(name.replace("_", "-"), value)
        if answer.how != "flood":
            handler.send_header("Content-Length", str(len(answer.body)))
        handler.end_headers()
        while answer.how == "flood" and not self.closing.is_set():
            handler.wfile.write(answer.body)  # until the client hangs up
        if answer.how == "drip":
            while not self.closing.wait(0.01):
                handler.wfile.write(b" ")
                handler.wfile.flush()
            return
        handler.wfile.write(answer.body if answer.how == "whole" else answer.body[: len(answer.body) // 2])


@contextmanager
def serving(answer: Callable[[int, dict[str, Any]], Answer]) -> Iterator[ChatServer]:
    server = ChatServer(answer)
    thread = threading.Thread(target=server.http.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield server
    finally:
        server.closing.set()
        server.http.shutdown()
        server.http.server_close()
        thread.join()


def images(body: dict[str, Any]) -> list[np.ndarray]:
    """Every picture of a request, decoded."""
    urls = [
        part["image_url"]["url"]
        for message in body["messages"]
        if isinstance(message["content"], list)
        for part in message["content"]
        if part["type"] == "image_url"
    ]
    prefix = "data:image/png;base64,"
    assert all(url.startswith(prefix) for url in urls)
    files = [io.BytesIO(base64.b64decode(url.removeprefix(prefix), validate=True)) for url in urls]
    return [np.asarray(Image.open(file)) for file in files]
