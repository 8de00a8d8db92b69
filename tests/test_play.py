"""Playing by hand: the server tells, refuses and keeps what it should, over HTTP on the loopback interface."""

import http.client
import io
import json
import os
import re
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from fakes import image_task, tasks, video_task
from PIL import Image

from pixel_env import PixelReasonEnv
from pixel_env.actions import Answer, CropImage, SelectFrames, render
from pixel_env.game import Game
from pixel_env.play import env_kwargs, main, parser
from pixel_env.play_server import LOOPBACK, MAX_BODY, PlayServer, Refused, read_fields
from pixel_env.tasks import Cue, ProceduralTasks, Task
from pixel_env.trajectory import load_jsonl, replay
from pixel_env.view import main as view

SAME_CODE = os.environ | {"PYTHONPATH": str(Path(__file__).parents[1])}
ZOOM = {"preset": "micro", "suite": ["search"], "difficulty": [1]}
RIGHT = render(Answer("B"))


class Client:
    """What a browser does, without one."""

    def __init__(self, port: int, token: str) -> None:
        self.port, self.token = port, token

    def ask(
        self, method: str, path: str, body: bytes | None = None, token: str | None = None, **headers: str
    ) -> tuple[int, bytes, http.client.HTTPMessage]:
        """Send a request as given, by default with the token, and return status, body and headers of the answer."""
        connection = http.client.HTTPConnection(LOOPBACK, self.port, timeout=30)
        sent = {name.replace("_", "-"): value for name, value in headers.items()}
        token = self.token if token is None else token
        connection.request(method, f"/{token}/{path}", body, sent)
        reply = connection.getresponse()
        with closing(connection):
            return reply.status, reply.read(), reply.headers

    def post(self, path: str, **fields: Any) -> tuple[int, dict[str, Any]]:
        status, body, _ = self.ask("POST", path, json.dumps(fields).encode(), Content_Type="application/json")
        return status, json.loads(body)

    def state(self) -> dict[str, Any]:
        status, body, _ = self.ask("GET", "state")
        assert status == 200
        return json.loads(body)


@contextmanager
def serving(game: Game) -> Iterator[Client]:
    server = PlayServer(game)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield Client(server.server_port, server.token)
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def made_of(out: Path, *items: Task) -> Game:
    suite = "clip" if items[0].media.kind == "video" else "search"
    return Game(PixelReasonEnv(tasks=tasks(*items), suite=suite, preset="micro"), out)


@pytest.fixture
def out(tmp_path: Path) -> Path:
    return tmp_path / "played.jsonl"


@pytest.fixture
def client(out: Path) -> Iterator[Client]:
    """A server of one task, whose answer is (B)."""
    with serving(made_of(out, image_task(cue=Cue((0.0, 0.0, 224.0, 224.0))))) as client:
        yield client


def test_a_whole_episode_is_kept_and_replayed_equal(out: Path, tmp_path: Path) -> None:
    with serving(Game(gym.make("PixelReason-Zoom-v0", **ZOOM), out, seed=3)) as client:
        status, state = client.post("new", episode=1, task=4)
        task = ProceduralTasks(("search",), difficulty=1, preset="micro")[4]
        assert status == 200 and state["episode"] == 2 and state["result"] is None
        assert state["task"] == {
            "id": task.task_id, "suite": "search", "level": 1, "question": task.question, "choices": list(task.choices),
        }  # fmt: skip
        letter = "ABCDEFGH"[task.choices.index(task.answers[0])]
        right = render(Answer(letter))
        crop = "Closer. " + render(CropImage((10, 10, 60, 60), image=0))
        for turn, action in enumerate((crop, "what?", crop, right)):
            status, state = client.post("step", episode=2, turn=turn, action=action)
            assert status == 200 and len(state["turns"]) == turn + 1
        _, image, _ = client.ask("GET", "view/2/2.png")
    assert [turn["bad"] for turn in state["turns"]] == [False, True, False, False]
    assert state["turns"][1]["observation"].startswith("Error: found neither a call nor an answer")
    # The second operation costs 0.05; alone in its group, RaPR is 1 and there is no bonus.
    assert state["turns"][3]["terms"] == {"correctness": 1.0, "operation_penalty": -0.05, "curiosity": 0.0}
    assert state["reward"] == pytest.approx(0.95) and state["turns_left"] == 0
    assert state["result"]["correct"] and state["result"]["right"] == [f"({letter}) {task.answers[0]}"]
    assert state["saved"]
    (kept,) = load_jsonl(out)
    assert replay(kept) == kept and kept.correct and kept.kind == "human"
    assert [turn.action for turn in kept.turns] == [crop, "what?", crop, right]
    assert [turn.trained for turn in kept.turns] == [True, False, True, True]
    env = gym.make("PixelReason-Zoom-v0", **ZOOM)
    env.reset(seed=kept.seed, options={"task": 4})
    pixels = env.step(crop)[0]["images"][0]
    assert (np.asarray(Image.open(io.BytesIO(image))) == pixels).all()
    assert view([str(out), "-o", str(tmp_path / "page.html")]) == 0


def test_frames_are_numbered_as_they_are_shown(out: Path) -> None:
    with serving(made_of(out, video_task(num_frames=40, answers=("3",)))) as client:
        state = client.state()
        assert state["video"] and state["num_first"] == 16 and state["task"]["choices"] == []
        assert [one["frame"] for one in state["views"]] == list(range(1, 17))
        _, state = client.post("step", episode=1, turn=0, action=render(SelectFrames((4, 15))))
        chosen = state["views"][16:]
        assert [(one["number"], one["frame"]) for one in chosen] == [(17, 5), (18, 16)]
        assert [one["seconds"] for one in chosen] == [state["views"][k]["seconds"] for k in (4, 15)]
        _, state = client.post("step", episode=1, turn=1, action=r"\boxed{3}")
        assert state["result"] == {
            "scored": True, "correct": True, "score": 1.0, "answer": "3", "unread": False, "right": ["3"],
            "coverage": None,
        }  # fmt: skip


def test_the_answer_is_told_after_the_end_only(client: Client) -> None:
    before = client.state()
    assert before["result"] is None and "coverage" not in json.dumps(before)
    _, after = client.post("step", episode=1, turn=0, action=r"\boxed{A}")
    assert after["result"]["right"] == ["(B) blue"] and not after["result"]["correct"]
    assert after["result"]["coverage"] == 0.0


def test_turns_run_out(client: Client, out: Path) -> None:
    for turn in range(5):
        _, state = client.post("step", episode=1, turn=turn, action="hm")
        assert state["turns_left"] == 4 - turn
    assert state["result"]["answer"] is None and state["saved"]
    (kept,) = load_jsonl(out)
    assert kept.truncated and not kept.correct


def test_what_is_asked_twice_or_too_late_changes_nothing(client: Client, out: Path) -> None:
    before = client.state()
    for path, fields, status in (
        ("step", {"episode": 1, "turn": 1, "action": RIGHT}, 409),  # no turn was taken yet
        ("step", {"episode": 2, "turn": 0, "action": RIGHT}, 409),  # a tab of another run
        ("new", {"episode": 2, "task": None}, 409),
        ("new", {"episode": 1, "task": 1}, 400),  # there is one task
        ("new", {"episode": 1, "task": -1}, 400),
        ("new", {"episode": 1, "task": "none such"}, 400),
        ("save", {"episode": 1}, 400),  # not finished
        ("open", {"episode": 1}, 404),
    ):
        got, said = client.post(path, **fields)
        assert got == status and said["error"], (path, fields)
    assert client.state() == before
    assert client.post("step", episode=1, turn=0, action=RIGHT)[0] == 200
    after = client.state()
    assert client.post("step", episode=1, turn=0, action=RIGHT)[0] == 409  # a double click
    assert client.post("step", episode=1, turn=1, action=RIGHT)[0] == 409  # the episode is over
    assert client.post("save", episode=1)[0] == 200  # saved already: not twice
    assert client.state() == after and len(load_jsonl(out)) == 1


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b"[]",
        b"\xff",
        b"[" * 50_000,
        b'{"episode": 1, "turn": 0}',  # a field is missing
        b'{"episode": 1, "turn": 0, "action": "hm", "out": "/tmp/x"}',  # one too many
        b'{"episode": 1, "turn": 0, "action": "hm", "action": "ha"}',  # twice
        b'{"episode": 1, "turn": 0, "action": null}',
        b'{"episode": true, "turn": 0, "action": "hm"}',
        b'{"episode": 1.0, "turn": 0, "action": "hm"}',
        b'{"episode": 1, "turn": NaN, "action": "hm"}',
        b'{"episode": 1' + b"0" * 5000 + b', "turn": 0, "action": "hm"}',
    ],
)
def test_json_is_read_strictly(body: bytes) -> None:
    with pytest.raises(Refused, match="expected") as refused:
        read_fields(body, {"episode": (int,), "turn": (int,), "action": (str,)})
    assert refused.value.status == 400


def test_foreign_requests_are_refused(client: Client) -> None:
    before = client.state()
    own = f"{LOOPBACK}:{client.port}"
    for headers, token, status in (
        ({"Host": "evil.example"}, None, 403),  # a name that was made to resolve to 127.0.0.1
        ({"Host": f"evil.example:{client.port}"}, None, 403),
        ({"Host": "127.0.0.1.evil.example"}, None, 403),
        ({"Host": "[::1"}, None, 403),
        ({"Host": own}, "", 403),
        ({"Host": own}, "x" * 22, 403),
        ({"Host": own}, client.token[:-1], 403),
        ({"Host": own, "Origin": "http://evil.example"}, None, 403),
        ({"Host": own, "Origin": "null"}, None, 403),
        ({"Host": own, "Content_Type": "text/plain"}, None, 415),  # a form can send this across sites
    ):
        sent = {"Content_Type": "application/json"} | headers
        body = json.dumps({"episode": 1, "turn": 0, "action": RIGHT}).encode()
        assert client.ask("POST", "step", body, token, **sent)[0] == status, headers
        if status == 403:
            for path in ("", "state", "view/1/1.png"):
                got, said, _ = client.ask("GET", path, None, token, **headers)
                assert got == 403 and client.token.encode() not in said
    assert client.state() == before
    for host in (own, "localhost:9000", "localhost"):  # a tunnel may have another port
        assert client.ask("GET", "state", Host=host)[0] == 200
    good = client.ask("POST", "step", body, Content_Type="application/json", Host=own, Origin=f"http://{own}")
    assert good[0] == 200


def test_bodies_are_bounded(client: Client) -> None:
    before = client.state()
    for length, status in ((str(MAX_BODY + 1), b"413"), ("9" * 12, b"413"), ("-1", b"411"), ("x", b"411")):
        with socket.create_connection((LOOPBACK, client.port), timeout=30) as connection:
            head = f"POST /{client.token}/step HTTP/1.1\r\nHost: {LOOPBACK}\r\nContent-Length: {length}\r\n\r\n"
            connection.sendall(head.encode())
            assert connection.recv(100).split()[1] == status
    assert client.state() == before
    action = "x" * (MAX_BODY - 200)
    status, state = client.post("step", episode=1, turn=0, action=action)
    assert status == 200 and state["turns"][0]["action"] == action


def test_only_the_page_its_state_and_its_pictures_are_served(client: Client) -> None:
    status, page, headers = client.ask("GET", "")
    assert status == 200 and b"<title>Play</title>" in page and b"{{" not in page and b"http" not in page
    assert "script-src 'nonce-" in headers["Content-Security-Policy"] and headers["Cache-Control"] == "no-store"
    assert headers["Referrer-Policy"] == "no-referrer" and headers["Cross-Origin-Resource-Policy"] == "same-origin"
    for path in (
        "view/1/0.png",
        "view/1/2.png",
        "view/2/1.png",
        "view/1/../1.png",
        "../etc/passwd",
        "play.html",
        "%2e",
    ):
        assert client.ask("GET", path)[0] == 404, path
    assert client.ask("GET", "step")[0] == 404


def test_any_text_is_a_turn_and_survives(client: Client, out: Path) -> None:
    hostile = "</script><img src=x onerror=alert(1)>\ud800\x00\u202e <image>"
    client.post("step", episode=1, turn=0, action=hostile)
    _, state = client.post("step", episode=1, turn=1, action=RIGHT)
    assert state["turns"][0]["action"] == hostile
    (kept,) = load_jsonl(out)
    assert kept.turns[0].action == hostile


def test_an_episode_that_cannot_be_written_is_not_lost(client: Client, out: Path) -> None:
    out.mkdir()
    _, state = client.post("step", episode=1, turn=0, action=RIGHT)
    assert state["result"]["correct"] and not state["saved"] and "Is a directory" in state["problem"]
    assert not client.post("save", episode=1)[1]["saved"]
    out.rmdir()
    _, state = client.post("save", episode=1)
    assert state["saved"] and state["problem"] is None and len(load_jsonl(out)) == 1


def test_episodes_are_appended(client: Client, out: Path) -> None:
    client.post("step", episode=1, turn=0, action=RIGHT)
    client.post("new", episode=1, task="image-0")
    client.post("step", episode=2, turn=0, action="left before the end")
    client.post("new", episode=2, task=None)
    client.post("step", episode=3, turn=0, action=r"\boxed{A}")
    assert [kept.correct for kept in load_jsonl(out)] == [True, False]
    assert len({kept.seed for kept in load_jsonl(out)}) == 2


def test_a_file_that_cannot_be_decoded_is_told(out: Path, tmp_path: Path) -> None:
    from pixel_env.media import ImageFile

    (tmp_path / "broken.png").write_bytes(b"no picture")
    broken = image_task(task_id="broken", media=ImageFile(tmp_path / "broken.png"))
    with serving(made_of(out, broken, image_task())) as client:
        client.post("new", episode=1, task="broken")
        state = client.state()
        assert "MediaError" in state["error"] and state["views"] == [] and state["turns_left"] == 0
        assert client.post("step", episode=state["episode"], turn=0, action=RIGHT)[0] == 409
        _, state = client.post("new", episode=state["episode"], task="image-0")
        assert state["error"] is None and len(state["views"]) == 1
    assert not out.exists()


def test_the_same_seed_draws_the_same_tasks(tmp_path: Path) -> None:
    def drawn(seed: int) -> list[str]:
        game = Game(gym.make("PixelReason-Mixed-v0", preset="micro"), tmp_path / "x.jsonl", seed)
        ids = []
        for _ in range(3):
            ids.append(game.state()["task"]["id"])
            game.new()
        return ids

    assert drawn(1) == drawn(1) != drawn(2)


def test_the_command_line() -> None:
    def read(*arguments: str) -> dict[str, Any]:
        return env_kwargs(parser().parse_args(arguments))

    default = {"split": "train", "difficulty": [1, 2, 3], "preset": "standard", "crop_padding": 0.0}
    assert read() == default
    assert read("--tasks", "read", "clip", "--levels", "2") == default | {"difficulty": [2], "suite": ["read", "clip"]}
    assert read("--tasks", "vstar:/data/v") == default | {"tasks": "vstar:/data/v"}
    with pytest.raises(ValueError, match="expected --tasks as one NAME:PATH, or suites out of search"):
        read("--tasks", "vstar:/data/v", "read")


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--out", "none/such.jsonl"], "expected --out in an existing folder"),
        (["--out", "notes.txt"], "notes.txt:1: "),
        (["--out", "cut.jsonl"], "expected the last line of cut.jsonl to be complete"),
        (["--tasks", "vstar:none"], "none"),
        (["--tasks", "letters"], "expected --tasks as one NAME:PATH, or suites"),
        (["--seed", "-1"], "non-negative"),
        (["--crop-padding", "2"], "expected crop_padding finite and from 0 to 1, got 2.0"),
    ],
)
def test_what_cannot_be_used_is_told(
    arguments: list[str], said: str, out: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(out.parent)
    Path("notes.txt").write_text("my notes\n", encoding="utf-8")
    game = made_of(out, image_task())
    game.step(RIGHT)
    Path("cut.jsonl").write_bytes(out.read_bytes().rstrip(b"\n"))
    assert main(["--preset", "micro", *arguments]) == 2
    assert said in capsys.readouterr().err
    assert Path("notes.txt").read_text(encoding="utf-8") == "my notes\n"


def test_the_command_serves_until_it_is_interrupted(tmp_path: Path) -> None:
    command = [
        sys.executable,
        "-m",
        "pixel_env.play",
        "--preset",
        "micro",
        "--tasks",
        "search",
        "--out",
        "played.jsonl",
    ]
    with subprocess.Popen(command, cwd=tmp_path, stdout=subprocess.PIPE, text=True, env=SAME_CODE) as played:
        assert played.stdout is not None
        found = re.fullmatch(r"Open http://127\.0\.0\.1:(\d+)/([\w-]{22})/\n", played.stdout.readline())
        assert found is not None
        client = Client(int(found[1]), found[2])
        state = client.state()
        assert state["task"]["suite"] == "search" and state["out"] == "played.jsonl"
        client.post("step", episode=1, turn=0, action=RIGHT)
        played.terminate()  # a shell in the background lets its children ignore SIGINT
        said, _ = played.communicate(timeout=60)
        assert "played.jsonl: 1 episode\n" in said
    assert played.returncode == 0
    (kept,) = load_jsonl(tmp_path / "played.jsonl")
    assert replay(kept) == kept and kept.env_id == "PixelReason-Mixed-v0"


def test_a_port_that_is_taken_is_told(client: Client, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["--preset", "micro", "--out", str(tmp_path / "x.jsonl"), "--port", str(client.port)]
    assert main(arguments) == 2
    assert "Address already in use" in capsys.readouterr().err
