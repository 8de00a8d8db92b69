"""A small HTTP server on the loopback interface through which a page in the browser plays a `Game`.

Others can reach a port of this machine too: pages of foreign sites open in the same browser, and other users. So every
address begins with a token that only the printed address holds, the Host must be this machine (a foreign name that was
made to resolve to 127.0.0.1 is refused), and a foreign Origin is refused. Bodies are small, and JSON of exactly the
fields that are expected. Nothing in a request names a file.

    GET   TOKEN/                       the page
    GET   TOKEN/state                  what it shows
    GET   TOKEN/view/EPISODE/N.png     image N, counted from 1
    POST  TOKEN/step    {"episode": 1, "turn": 0, "action": "..."}    `turn`: turns taken so far
    POST  TOKEN/new     {"episode": 1, "task": null}                  or an index from 0, or an id
    POST  TOKEN/save    {"episode": 1}                                again, after it failed

A POST is answered with the new state. It says which episode and turn it means: one that comes twice, or from a tab that
was left behind, is refused, and nothing is done. What is refused has the reason in ``{"error": "..."}``.
"""

import hmac
import json
import re
import secrets
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from importlib.resources import files
from typing import Any
from urllib.parse import urlsplit

from pixel_env.game import Game

LOOPBACK = "127.0.0.1"
NAMES = (LOOPBACK, "localhost")
"""What this machine may be called in the Host of a request; any port, because tunnels change it."""

MAX_BODY = 64 * 1024
"""Bytes of a request."""

_FIELDS: dict[str, dict[str, tuple[type, ...]]] = {
    "step": {"episode": (int,), "turn": (int,), "action": (str,)},
    "new": {"episode": (int,), "task": (int, str, type(None))},
    "save": {"episode": (int,)},
}
"""Name of a POST: its fields and their types."""

_VIEW = re.compile(r"view/([0-9]{1,9})/([0-9]{1,9})\.png")


class Refused(Exception):
    """A request that is answered with a status and a reason."""

    def __init__(self, status: int, reason: str) -> None:
        super().__init__(reason)
        self.status, self.reason = status, reason


class PlayServer(ThreadingHTTPServer):
    """Serves one game to whoever knows the `address`; run `serve_forever`."""

    daemon_threads = True  # a browser may hold a connection open when the server is stopped

    def __init__(self, game: Game, port: int = 0) -> None:
        """Listen on `port` of the loopback interface, 0 for a free one; raises OSError if it is taken."""
        self.game, self.token = game, secrets.token_urlsafe(16)
        self.lock = threading.Lock()  # an environment is for one thread at a time
        super().__init__((LOOPBACK, port), _Handler)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Show the traceback of what went wrong here; that a browser hung up, as a tab was closed, is no error."""
        if not isinstance(sys.exception(), ConnectionError):
            super().handle_error(request, client_address)

    @property
    def address(self) -> str:
        """Where to open the page; holds the token."""
        return f"http://{LOOPBACK}:{self.server_port}/{self.token}/"


class _Handler(BaseHTTPRequestHandler):
    server: PlayServer
    timeout = 10  # seconds that a silent connection is kept
    server_version, sys_version = "pixel_env", ""

    def do_GET(self) -> None:
        self._answer(b"")

    def do_POST(self) -> None:
        try:
            body = self._body()  # read before anything is refused: closing on unread bytes would lose the answer
        except Refused as refused:
            self._refuse(refused)
        else:
            self._answer(body)

    def log_message(self, format: str, *args: Any) -> None:
        """Say nothing: the terminal shows the address, and requests hold the token."""

    def _answer(self, body: bytes) -> None:
        game = self.server.game
        try:
            path = self._allowed_path()
            if self.command == "GET" and path == "":
                self._send_page()
            elif self.command == "GET" and path != "state":
                with self.server.lock:
                    picture = _view(game, path)
                self._send(200, "image/png", picture, cache="private, max-age=86400")
            else:
                with self.server.lock:
                    state = game.state() if self.command == "GET" else _post(game, path, body)
                self._send(200, "application/json", _encoded(state))
        except Refused as refused:
            self._refuse(refused)

    def _allowed_path(self) -> str:
        """Return what follows the token in the path; raises Refused for everybody but the page."""
        hosts = self.headers.get_all("Host", [])
        if len(hosts) != 1 or _hostname(hosts[0]) not in NAMES:
            raise Refused(403, f"expected a Host of {' or '.join(NAMES)}")
        token, _, path = self.path.partition("?")[0].removeprefix("/").partition("/")
        if not hmac.compare_digest(token.encode(), self.server.token.encode()):
            raise Refused(403, "expected the token of this run; open the address that was printed when it began")
        if self.headers.get("Origin", f"http://{hosts[0]}") != f"http://{hosts[0]}":
            raise Refused(403, "expected a request of the page itself, not of another origin")
        if self.command == "POST" and self.headers.get_content_type() != "application/json":
            raise Refused(415, "expected Content-Type: application/json")
        return path

    def _body(self) -> bytes:
        length = self.headers.get("Content-Length", "")
        if not re.fullmatch(r"[0-9]{1,12}", length):
            raise Refused(411, "expected a Content-Length")
        if int(length) > MAX_BODY:
            raise Refused(413, f"expected a body of at most {MAX_BODY} bytes, got {int(length)}; nothing was done")
        return self.rfile.read(int(length))

    def _refuse(self, refused: Refused) -> None:
        self._send(refused.status, "application/json", _encoded({"error": refused.reason}))

    def _send_page(self) -> None:
        nonce = secrets.token_urlsafe(16)
        page = (files("pixel_env") / "play.html").read_text(encoding="utf-8").replace("{{nonce}}", nonce)
        policy = (
            f"default-src 'none'; img-src 'self' data:; connect-src 'self'; style-src 'nonce-{nonce}'; "
            f"script-src 'nonce-{nonce}'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
        )
        self._send(200, "text/html; charset=utf-8", page.encode(), policy)

    def _send(
        self, status: int, content_type: str, body: bytes, policy: str = "default-src 'none'", cache: str = "no-store"
    ) -> None:
        self.send_response(status)
        headers = {
            "Content-Type": content_type,
            "Content-Length": str(len(body)),
            "Cache-Control": cache,
            "Content-Security-Policy": policy,
            "Cross-Origin-Resource-Policy": "same-origin",
            "Referrer-Policy": "no-referrer",  # the address holds the token
            "X-Content-Type-Options": "nosniff",
        }
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)


def _hostname(host: str) -> str | None:
    try:
        return urlsplit(f"//{host}").hostname
    except ValueError:
        return None


def _encoded(value: Any) -> bytes:
    return json.dumps(value, allow_nan=False).encode("ascii")


def _view(game: Game, path: str) -> bytes:
    found = _VIEW.fullmatch(path)
    if found is None or int(found[1]) != game.number:
        raise Refused(404, "there is no such page, or it belongs to an episode that is gone")
    try:
        return game.picture(int(found[2]))
    except ValueError as error:
        raise Refused(404, str(error)) from None


def _post(game: Game, path: str, body: bytes) -> dict[str, Any]:
    """Do what is asked and return the new state; raises Refused where nothing was done."""
    if path not in _FIELDS:
        raise Refused(404, f"expected one of {', '.join(_FIELDS)}")
    asked = read_fields(body, _FIELDS[path])
    if asked["episode"] != game.number:
        raise Refused(409, f"episode {game.number} is being played, not {asked['episode']}; reload the page")
    try:
        if path == "step":
            if game.over or asked["turn"] != game.turn:
                raise Refused(409, "this turn was taken already, or the episode is over; reload the page")
            game.step(asked["action"])
        elif path == "new":
            game.new(asked["task"])
        else:
            game.save()
    except ValueError as error:
        raise Refused(400, str(error)) from None
    return game.state()


def read_fields(body: bytes, fields: dict[str, tuple[type, ...]]) -> dict[str, Any]:
    """Read a JSON object of exactly these fields, each of one of its types (true is no int).

    Raises:
        Refused: with status 400 for anything else.

    >>> read_fields(b'{"episode": 1}', {"episode": (int,)})
    {'episode': 1}
    """
    try:
        value = json.loads(body.decode("utf-8"), object_pairs_hook=_unique, parse_constant=_no_number)
    except (ValueError, RecursionError) as error:
        raise Refused(400, f"expected JSON: {error}") from None
    if not isinstance(value, dict) or value.keys() != fields.keys():
        raise Refused(400, f"expected a JSON object with {', '.join(fields)} and nothing else")
    for name, types in fields.items():
        if type(value[name]) not in types:
            raise Refused(400, f"expected {name} as {' or '.join(kind.__name__ for kind in types)}")
    return value


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    if len({name for name, _ in pairs}) < len(pairs):
        raise ValueError("a field stands twice")
    return dict(pairs)


def _no_number(text: str) -> float:
    raise ValueError(f"{text} is no number")
