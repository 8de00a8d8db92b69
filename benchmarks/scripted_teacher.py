"""A server on the loopback interface that says of questions of `search` what a teacher would."""

import json
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from multiprocessing.connection import Connection
from typing import Any

import gymnasium as gym

import pixel_env  # noqa: F401


def teach(pipe: Connection) -> None:
    """Serve the chat protocol for ever, and send the port through `pipe`."""
    env = gym.make("PixelReason-Mixed-v0", suite=["search"], difficulty=[1], preset="micro", split="train")
    tasks = env.unwrapped.tasks  # type: ignore[attr-defined]
    answers = {task.question: task.answers[0] for task in (tasks[index] for index in range(64))}

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            text = "".join(part.get("text", "") for part in body["messages"][1]["content"])
            said = {"analysis": "Many small things.", "target": "what is asked about", "answer": "unknown"}
            if "A closer look" in text:
                said["answer"] = answers.get(text.partition("Question: ")[2].partition("\n")[0], "unknown")
            wanted = [name for name in said if f'"{name}"' in text.rpartition("Reply: ")[2]]
            message = {"role": "assistant", "content": json.dumps({name: said[name] for name in wanted})}
            choice = {"index": 0, "finish_reason": "stop", "message": message}
            usage = {"prompt_tokens": 9, "completion_tokens": 9, "total_tokens": 18}
            reply = {"id": "", "object": "chat.completion", "created": 0, "model": "tiny"}
            sent = json.dumps(reply | {"choices": [choice], "usage": usage}).encode()
            self.send_response(200)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(sent)))
            self.end_headers()
            self.wfile.write(sent)

        def log_message(self, *_: Any) -> None:
            pass

    class Server(ThreadingHTTPServer):
        def handle_error(self, *_: Any) -> None:  # a client that was killed
            pass

    server = Server(("127.0.0.1", 0), Handler)
    pipe.send(server.server_port)
    server.serve_forever()
