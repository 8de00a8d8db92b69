"""Demonstrations told by a teacher: what is kept, what is dropped and why, and that nothing is asked twice."""

import dataclasses
import json
import os
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gymnasium as gym
import pytest
from chat_server import Answer, completion, images, refusal, serving
from scripted_teacher import GOOD, ScriptedTeacher, noise, request_of, seeds, video
from test_sft import spans
from tiny_vlm import encoder

from agents import endpoint, taught
from agents.demonstrations import LOOKS
from agents.examples import Examples
from agents.expert import UnsuitedError
from agents.make_demonstrations import main
from agents.outcomes import REASONS, Outcome, Record
from agents.sft_data import recorded
from pixel_env.tasks import load_tasks
from pixel_env.trajectory import Trajectory, load_jsonl, replay

ROOT = Path(__file__).parents[1]
CALL = '<tool_call>{"name": "crop_image", "arguments": {"bbox_2d": [0, 0, 9, 9], "target_image": 1}}</tool_call>'


@pytest.fixture(autouse=True)
def no_pauses_and_no_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    async def skip(_: float) -> None:
        pass

    monkeypatch.setattr(endpoint, "_sleep", skip)
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")


Make = Callable[..., dict[str, Any]]


@pytest.fixture
def make(tmp_path: Path) -> Make:
    """Run the command; returns its report."""

    def command(teacher: Any, *arguments: str, out: str = "out", code: int = 0) -> dict[str, Any]:
        with serving(teacher) as server:
            given = ["--preset", "micro", *arguments, "--teacher", f"tiny@{server.url}", "--out", str(tmp_path / out)]
            assert main(given) == code
        return {} if code else json.loads((tmp_path / out / "report.json").read_text())

    return command


def records(path: Path) -> list[Record]:
    return [Record.from_json(line) for line in (path / "records.jsonl").read_text().splitlines()]


def reasons(path: Path) -> dict[str, str]:
    """Task: why nothing was made of it, "" if something was."""
    return {record.task_id: "".join(record.reasons) for record in records(path)}


def closer(text: str, answer: str = "exit") -> dict[str, Any]:
    return {"closer": {"analysis": text, "answer": answer}}


def whole(text: str, target: str = "the sign") -> dict[str, Any]:
    return {"whole": {"analysis": text, "target": target}}


# What the teacher says about a question (its answer is "exit"), the seed, and why it is dropped; "" if it is kept.
CASES: dict[str, tuple[dict[str, Any], dict[str, Any], str]] = {
    "good": ({}, {}, ""),
    "known at first sight": ({"guess": {"answer": "Exit."}}, {}, "no_need_to_look"),
    "leaks": (whole("The sign says EXIT."), {}, "leak"),
    "leaks in the target": (whole("A street.", "the exit sign"), {}, "leak"),
    "wrong": (closer("It says stop.", "stop"), {}, "wrong_answer"),
    "a list": (closer("It says exit.", '["exit"]'), {}, "wrong_answer"),
    "calls": (whole(f"First {CALL}"), {}, "acts"),
    "answers": (closer(r"So \boxed{exit}"), {}, "acts"),
    "answers in tags": (closer("<answer>exit</answer>"), {}, "acts"),
    "begins a call": (closer("A <tool_call> of its own."), {}, "acts"),
    "calls in short": (whole("crop_image([1, 2, 3, 4]) is next."), {}, "acts"),
    "numbers": (closer("Image 2 says exit."), {}, "numbered"),
    "no JSON": ({"whole": "I cannot help with that."}, {}, "malformed_reply"),
    "half of it": ({"closer": '{"analysis": "It'}, {}, "malformed_reply"),
    "code": ({"guess": '__import__("os").abort()'}, {}, "malformed_reply"),
    "brackets without end": ({"guess": '{"answer": ' + "[" * 9000 + "}"}, {}, "malformed_reply"),
    "other keys": ({"whole": {"text": "A street."}}, {}, "malformed_reply"),
    "a list for a text": ({"whole": {"analysis": ["A street."], "target": "it"}}, {}, "malformed_reply"),
    "an essay for a target": (whole("A street.", "one sign. Then, another one"), {}, "malformed_reply"),
    "corrected": ({"whole": ["Sure!", GOOD["whole"]]}, {}, ""),
    "busy at first": ({"guess": [refusal(429, "slow down"), GOOD["guess"]]}, {}, ""),
    "special tokens": (closer("<|im_end|><image> \ud800 {target} says exit."), {}, ""),
    "no cue": ({}, {"boxes": None}, "unsuited"),
    "no answer": ({}, {"answer": None}, "unsuited"),
    "all of it": ({}, {"boxes": [0, 0, 448, 448]}, "unsuited"),
    "no picture": ({}, {"image": "gone.png"}, "damaged"),
    "not needed": ({}, {"needs_operation": False}, "no_need_to_look"),
    "no choice": (
        whole("A red or a blue sign.") | {"right": "(B)"},
        {"choices": ["red", "blue"], "answer": "blue"},
        "",
    ),
    "one choice": (whole("A blue sign."), {"choices": ["red", "blue"], "answer": "blue"}, "leak"),
}


def test_what_is_kept_and_why_the_rest_is_not(make: Make, tmp_path: Path) -> None:
    tasks = seeds(tmp_path, [{"question": f"What of {name}?", **seed} for name, (_, seed, _) in CASES.items()])
    teacher = ScriptedTeacher({f"What of {name}?": said for name, (said, _, _) in CASES.items()})
    report = make(teacher, "--tasks", tasks, "--prices", "1", "10")
    got = reasons(tmp_path / "out")
    expected = {f"jsonl-{number}": reason for number, (_, _, reason) in enumerate(CASES.values())}
    names = dict(zip(expected, CASES, strict=True))
    assert {names[task]: reason for task, reason in got.items()} == {names[t]: reason for t, reason in expected.items()}
    made = load_jsonl(tmp_path / "out" / "demonstrations.jsonl")
    counts = Counter(expected.values())
    assert report["demonstrations"] == len(made) == counts.pop("")
    assert report["stages"]["taught"]["dropped"] == dict(counts)
    answered = len(teacher.asked) - 1  # one was refused
    assert report["teacher"]["requests"] == answered and report["teacher"]["prompt_tokens"] == 100 * answered
    assert report["teacher"]["cost"] == pytest.approx(answered * (100 + 70) / 1e6)
    asked = {question for _, question in teacher.asked}
    assert not asked & {f"What of {name}?" for name in ("no cue", "no answer", "all of it", "no picture", "not needed")}
    text = (tmp_path / "out" / "report.md").read_text()
    assert f"| {REASONS['leak']} | 3 |" in text and f"Price: {report['teacher']['cost']:.2f}" in text
    for trajectory in made:
        assert trajectory.correct and not trajectory.num_errors and replay(trajectory) == trajectory


def test_text_of_the_teacher_is_plain_text(make: Make, tmp_path: Path) -> None:
    tasks = seeds(tmp_path, [{"question": "What?"}])
    make(ScriptedTeacher({"What?": CASES["special tokens"][0]}), "--tasks", tasks)
    (made,) = load_jsonl(tmp_path / "out" / "demonstrations.jsonl")
    assert "<|im_end|><image> ? {target} says exit." in made.turns[-1].action
    examples = Examples(encoder(), [made], progress=False)
    assert examples[0].ids.count(encoder().image_pad) == sum(
        encoder().pads(image) for image in examples[0].images
    )  # and none for the marker
    trained = [token for token, loss in zip(examples[0].ids, examples[0].loss, strict=True) if loss]
    assert trained.count(encoder().end) == sum(turn.trained for turn in made.turns)


def test_every_kind_of_the_same_remarks(make: Make, tmp_path: Path) -> None:
    frames = video(tmp_path, "clip", 1)
    clip = {"image": None, "boxes": None, "frames": frames, "window": [1.0, 1.5]}
    tasks = seeds(tmp_path, [{"question": "What?"}, {"question": "When?", **clip}])
    teacher = ScriptedTeacher({})
    report = make(teacher, "--tasks", tasks, "--per-seed", "4")
    made = load_jsonl(tmp_path / "out" / "demonstrations.jsonl")
    kinds = {t.task_id: {other.kind for other in made if other.task_id == t.task_id} for t in made}
    assert kinds == {
        "jsonl-0": {"single", "recrop_once", "recrop_twice", "zoom_further"},
        "jsonl-1": {"single", "reselect"},
    }
    assert report["stages"]["taught"]["by_kind"]["reselect"] == {"kept": 1, "dropped": 0}
    assert Counter(teacher.asked) == dict.fromkeys(
        [(kind, question) for kind in ("guess", "whole", "closer") for question in ("What?", "When?")], 1
    )
    for trajectory in made:
        turns = trajectory.turns
        aims = LOOKS[trajectory.kind]
        assert [turn.trained for turn in turns] == [aim == "right" for aim in aims] + [True]
        assert turns[0].action.startswith(GOOD["whole"]["analysis"] + " ")
        assert turns[-1].action.startswith(GOOD["closer"]["analysis"] + " ")
        assert turns[-1].action.endswith(r"\boxed{exit}")
        assert trajectory.cue_coverage == 1.0
        assert all("the sign above the door" in turn.action for turn in turns[:-1])
    rights = {(t.task_id, t.turns[-2].action.partition("<tool_call>")[2]) for t in made}
    assert len(rights) == 2  # what the teacher saw closer, in every kind
    assert "frames 3 and 4" in next(t for t in made if t.kind == "reselect").turns[1].action


def test_what_goes_wrong_on_the_stage_is_told_by_kind(
    make: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    demonstrate, replayed = taught.demonstrate, taught.replay

    def unsuited_once(task: Any, env: Any, rng: Any, kind: str, remarks: Any) -> Trajectory:
        if kind == "recrop_once":
            raise UnsuitedError("no wrong box found")
        return demonstrate(task, env, rng, kind, remarks)

    def other(made: Trajectory, env: Any) -> Trajectory:
        return replayed(made, env) if made.kind != "single" else dataclasses.replace(made, score=0.5)

    monkeypatch.setattr(taught, "demonstrate", unsuited_once)
    monkeypatch.setattr(taught, "replay", other)
    report = make(ScriptedTeacher({}), "--tasks", seeds(tmp_path, [{"question": "What?"}]), "--per-seed", "9")
    (record,) = records(tmp_path / "out")
    assert {outcome.kind: (outcome.reason, outcome.detail) for outcome in record.outcomes} == {
        "single": ("replay", ""),
        "recrop_once": ("unsuited", "no wrong box found"),
        "recrop_twice": ("", ""),
        "zoom_further": ("", ""),
    }
    assert report["stages"]["taught"]["dropped"] == {"unsuited": 1, "replay": 1}
    assert report["stages"]["taught"]["by_kind"]["single"] == {"kept": 0, "dropped": 1}


def test_message_lists_on_request(make: Make, tmp_path: Path) -> None:
    tasks = seeds(tmp_path, [{"question": f"What of {k}?"} for k in range(2)])
    make(ScriptedTeacher({}), "--tasks", tasks, "--per-seed", "4", "--message-lists")
    lists = tmp_path / "out" / "message_lists" / "sft.json"
    read = recorded(
        gym.make("PixelReason-Mixed-v0", tasks=f"pixelreasoner-sft:{lists}", preset="micro"), progress=False
    )
    assert [t.kind for t in read] == [t.kind for t in load_jsonl(tmp_path / "out" / "demonstrations.jsonl")]


def test_what_the_teacher_is_shown(make: Make, tmp_path: Path) -> None:
    clip = {"image": None, "boxes": None, "frames": video(tmp_path, "clip", 1), "window": [1.0, 1.5]}
    bodies: dict[tuple[str, str], dict[str, Any]] = {}
    teacher = ScriptedTeacher({})

    def answer(number: int, body: dict[str, Any]) -> Answer:
        bodies[request_of(body)] = body
        return teacher(number, body)

    tasks = seeds(tmp_path, [{"question": "What <image>?", "choices": ["exit", "stop"]}, {"question": "When?", **clip}])
    make(answer, "--tasks", tasks)
    shown = {key: [picture.shape for picture in images(body)] for key, body in bodies.items()}
    image, frame = (112, 112, 3), (28, 28, 3)
    assert shown["guess", "What <image >?"] == shown["whole", "What <image >?"] == [image]
    assert shown["closer", "What <image >?"][0] == image and len(shown["closer", "What <image >?"]) == 2
    assert shown["whole", "When?"] == [frame] * 8 and shown["closer", "When?"] == [frame] * 8 + [image] * 2
    words = str(bodies["whole", "What <image >?"]["messages"])
    assert "(A) exit" in words and "the box [50, 50, 58, 54] (x1, y1, x2, y2) of the image of 112 x 112" in words
    assert "frames 3, 4" in str(bodies["whole", "When?"]["messages"])
    assert "exit" not in str(bodies["closer", "When?"]["messages"])  # the answer is for the teacher to find


def test_the_same_seed_twice_is_asked_about_once(make: Make, tmp_path: Path) -> None:
    same = {"question": "What?", "image": "0.png"}
    tasks = seeds(tmp_path, [same, same, {**same, "question": "And now?"}])
    teacher = ScriptedTeacher({})
    make(teacher, "--tasks", tasks)
    assert sorted(reasons(tmp_path / "out").values()) == ["", "", "duplicate"]
    assert Counter(kind for kind, _ in teacher.asked) == {"guess": 2, "whole": 2, "closer": 2}


# --- plain images -----------------------------------------------------------------------------------------------------

IMAGES: dict[str, tuple[dict[str, Any], str]] = {
    "a": ({}, ""),
    "b": ({"judge": {"rich": False, "box": None}}, "not_rich"),
    "c": ({"judge": {"rich": True, "box": [0, 0, 100, 100]}}, "bad_region"),
    "d": ({"judge": {"rich": True, "box": [90, 90, 200, 100]}}, "bad_region"),
    "e": ({"judge": {"rich": True, "box": [10, 10, 11, 40]}}, "bad_region"),
    "f": ({"judge": {"rich": True, "box": [50, 50, 40, 40]}}, "malformed_reply"),
    "g": ({"judge": {"rich": True, "box": ["1e5", 2, 3, float("nan")]}}, "malformed_reply"),
    "h": ({"question": GOOD["question"] | {"question": "What is on the door in the zoomed area?"}}, "mentions_crop"),
    "i": ({"question": GOOD["question"] | {"question": "Is it a cat on the door?"}}, "leak"),
    "j": ({"question": GOOD["question"] | {"answer": "a dog"}}, "bad_question"),
    "k": ({"question": GOOD["question"] | {"choices": ["a cat", "A cat", "a fish", "a tree"]}}, "malformed_reply"),
    "l": ({"question": GOOD["question"] | {"choices": ["a cat", "a cat.", "a fish", "x"]}}, "bad_question"),
    "m": ({"question": GOOD["question"] | {"choices": ["(A) 1", "(B) 2", "(C) 3", "(D) 4"], "answer": "C"}}, ""),
}


class ImageTeacher(ScriptedTeacher):
    """Knows a plain image by its pixels: the request does not name it."""

    def __init__(self) -> None:
        super().__init__({GOOD["question"]["question"]: {"right": "B"}})
        self.order: dict[bytes, str] = {}

    def __call__(self, number: int, body: dict[str, Any]) -> Answer:
        kind, _ = request_of(body)
        name = self.order[images(body)[0].tobytes()]
        if kind in IMAGES[name][0]:
            self.asked.append((kind, name))
            return completion(json.dumps(IMAGES[name][0][kind]))
        if kind == "closer" and name == "m":
            self.asked.append((kind, name))
            return completion(json.dumps(GOOD["closer"] | {"answer": "3"}))
        return super().__call__(number, body)


def test_plain_images_become_questions_and_these_demonstrations(make: Make, tmp_path: Path) -> None:
    folder = tmp_path / "photos"
    for number, name in enumerate(IMAGES):
        noise(folder / f"{name}.png", number)
    (folder / "z.png").write_bytes((folder / "a.png").read_bytes())
    teacher = ImageTeacher()
    env = gym.make("PixelReason-Mixed-v0", tasks=f"images:{folder}", preset="micro")
    for number, name in enumerate(IMAGES):
        teacher.order[env.reset(options={"task": number})[0]["images"][0].tobytes()] = name
    report = make(teacher, "--tasks", f"images:{folder}", "--per-seed", "2")
    asked = {r.index: "".join(r.reasons) for r in records(tmp_path / "out") if r.stage == "question"}
    first, last = asked.pop(0), asked.pop(13)
    assert sorted([first, last]) == ["", "duplicate"]  # whichever is drawn first
    assert {list(IMAGES)[k]: reason for k, reason in asked.items()} == {
        name: reason for name, (_, reason) in IMAGES.items() if name != "a"
    }
    made = load_tasks("jsonl", tmp_path / "out" / "questions-0" / "questions.jsonl")
    by_question = {made[k].choices: made[k] for k in range(len(made))}
    assert by_question["1", "2", "3", "4"].answers == ("3",)
    task = by_question["a loaf", "a cat", "a fish", "a tree"]
    assert task.cue is not None and task.cue.box == (160.0, 160.0, 240.0, 224.0) and task.answers == ("a cat",)
    assert report["stages"]["question"]["kept"] == 2 and report["stages"]["taught"]["kept"] == 2
    trajectories = load_jsonl(tmp_path / "out" / "demonstrations.jsonl")
    assert len(trajectories) == 4 and all(replay(t) == t and t.correct for t in trajectories)


# --- kills, refusals, and going on -----------------------------------------------------------------------------------


def test_what_was_not_answered_is_asked_again_and_nothing_else(make: Make, tmp_path: Path) -> None:
    tasks = seeds(tmp_path, [{"question": f"What of {k}?"} for k in range(4)])
    broken = ScriptedTeacher({"What of 2?": {"closer": refusal(400, "too long")}})
    report = make(broken, "--tasks", tasks)
    assert report["stages"]["taught"]["dropped"] == {"no_reply": 1}
    assert len(records(tmp_path / "out")) == 3
    healed = ScriptedTeacher({})
    report = make(healed, "--tasks", tasks)
    assert healed.asked == [("closer", "What of 2?")]  # its other replies were kept
    assert report["demonstrations"] == 4 and report["teacher"]["requests"] == 12
    whole_run = make(ScriptedTeacher({}), "--tasks", tasks, out="whole")
    assert {**whole_run, "command": ""} == {**report, "command": ""}
    written = [(tmp_path / out / "demonstrations.jsonl").read_bytes() for out in ("out", "whole")]
    assert written[0] == written[1]


def test_after_a_kill_nothing_is_asked_twice(tmp_path: Path) -> None:
    """The server kills the run instead of answering its eighth request; eighteen make it whole."""
    tasks = seeds(tmp_path, [{"question": f"What of {k}?"} for k in range(6)])
    teacher, child = ScriptedTeacher({}), list[subprocess.Popen[bytes]]()

    def answer(number: int, body: dict[str, Any]) -> Answer:
        if number == 7:
            os.kill(child[0].pid, signal.SIGKILL)
            return Answer(b"", how="cut")
        return teacher(number, body)

    with serving(answer) as server:
        command = [sys.executable, "agents/make_demonstrations.py", "--tasks", tasks, "--preset", "micro"]
        command += ["--teacher", f"tiny@{server.url}", "--concurrency", "1", "--out"]
        for status in (-signal.SIGKILL, 0):
            child[:] = [subprocess.Popen([*command, str(tmp_path / "out")], cwd=ROOT, stdout=subprocess.DEVNULL)]
            assert child[0].wait(120) == status
            if status:
                with (tmp_path / "out" / "records.jsonl").open("a") as file:
                    file.write('{"stage": "tau')
        assert len(server.bodies) == 18 + 1
        assert [body for i, body in enumerate(server.bodies) if body in server.bodies[:i]] == [server.bodies[7]]
        assert main([*command[2:-1], "--out", str(tmp_path / "whole")]) == 0
    for name in ("demonstrations.jsonl", "records.jsonl"):
        assert (tmp_path / "out" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()


def test_a_stop_says_how_to_go_on(tmp_path: Path) -> None:
    tasks, child = seeds(tmp_path, [{"question": "What?"}]), list[subprocess.Popen[bytes]]()

    def answer(number: int, body: dict[str, Any]) -> Answer:
        child[0].send_signal(signal.SIGINT)
        return Answer(b"", how="hang")

    signal.signal(signal.SIGINT, signal.default_int_handler)  # a child would inherit that a background job ignores it
    with serving(answer) as server:
        command = [sys.executable, "agents/make_demonstrations.py", "--tasks", tasks, "--preset", "micro"]
        command += ["--teacher", f"tiny@{server.url}", "--out", str(tmp_path / "out")]
        child.append(subprocess.Popen(command, cwd=ROOT, stderr=subprocess.PIPE))
        said = child[0].communicate(timeout=120)[1].decode()
    assert child[0].returncode == 130 and said.endswith(f"go on with the same command and --out {tmp_path / 'out'}\n")
    assert "Traceback" not in said


def test_no_more_requests_at_once_than_allowed(tmp_path: Path) -> None:
    tasks = seeds(tmp_path, [{"question": f"What of {k}?"} for k in range(8)])
    with serving(ScriptedTeacher({})) as server:
        given = ["--tasks", tasks, "--preset", "micro", "--teacher", f"tiny@{server.url}", "--concurrency", "3"]
        assert main([*given, "--out", str(tmp_path / "out")]) == 0
        assert server.most_running <= 3


# --- textual ----------------------------------------------------------------------------------------------------------


def test_the_micro_model_gives_the_textual_ones(tmp_path: Path) -> None:
    given = ["--tasks", "search", "--preset", "micro", "--limit", "96", "--textual", "3", "--sampler", "micro"]
    given += ["--sampler-temperature", "0.7", "--tries", "2", "--out", str(tmp_path)]
    assert main(given) == 0
    made = load_jsonl(tmp_path / "demonstrations.jsonl")
    kept = [outcome for record in records(tmp_path) for outcome in record.outcomes]
    assert {t.kind for t in made} <= {"textual"} and len(made) == sum(not outcome.reason for outcome in kept)
    assert len(made) == 3
    for trajectory in made:
        assert trajectory.correct and len(trajectory.turns) == 1 and not trajectory.num_operations
        assert replay(trajectory) == trajectory
    before = (tmp_path / "records.jsonl").read_bytes()
    assert main(given) == 0 and (tmp_path / "records.jsonl").read_bytes() == before


class Sampler:
    """Right for tasks of even numbers at the second try, looks at all others."""

    def __init__(self) -> None:
        self.tries = Counter[str]()

    def act(self, conversations: Any) -> list[str | Exception]:
        return [self.turn(conversation) for conversation in conversations]

    def turn(self, conversation: Any) -> str | Exception:
        self.tries[conversation.task_id] += not conversation.actions
        number = int(conversation.task_id.rpartition("-")[2])
        if number == 6:
            return RuntimeError("out of order")
        if number % 2 and not conversation.actions:
            return CALL
        return r"\boxed{exit}" if number % 2 or self.tries[conversation.task_id] > 1 else r"\boxed{stop}"


SAMPLER = Sampler()


def test_sampling_keeps_what_is_right_and_took_no_operation(tmp_path: Path) -> None:
    needed = [{"needs_operation": True}] * 2
    tasks = seeds(tmp_path, [{"question": f"What of {k}?", **more} for k, more in enumerate([{}] * 7 + needed)])
    given = ["--tasks", tasks, "--preset", "micro", "--textual", "9", "--sampler", f"{__name__}:SAMPLER"]
    assert main([*given, "--tries", "2", "--out", str(tmp_path / "out")]) == 0
    assert reasons(tmp_path / "out") == {
        **{f"jsonl-{k}": "" for k in (0, 2, 4)},
        **{f"jsonl-{k}": "looked" for k in (1, 3, 5)},
    }  # one broke off, and is played again the next time
    assert [t.turns[0].action for t in load_jsonl(tmp_path / "out" / "demonstrations.jsonl")] == [r"\boxed{exit}"] * 3
    assert json.loads((tmp_path / "out" / "report.json").read_text())["stages"]["textual"]["dropped"] == {
        "looked": 3,
        "no_reply": 1,
    }


# --- training, and mistakes of the caller -----------------------------------------------------------------------------


def test_demonstrations_of_several_sets_are_trained_on(make: Make, tmp_path: Path) -> None:
    sets = [seeds(tmp_path / name, [{"question": f"What of {name}?"}]) for name in ("one", "two")]
    make(ScriptedTeacher({}), "--tasks", *sets)
    made = load_jsonl(tmp_path / "out" / "demonstrations.jsonl")
    assert [t.env_kwargs["tasks"] for t in made] == sets
    examples = Examples(encoder(), made, cached_bytes=0, progress=False)
    for index, trajectory in enumerate(made):
        assert spans(encoder(), examples[index], 1) == [
            f"{turn.action}<|im_end|>" for turn in trajectory.turns if turn.trained
        ]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ([], "expected --teacher, or --textual and --sampler, got neither"),
        (["--teacher", "gpt"], "expected --teacher MODEL@http://HOST:PORT/v1, got 'gpt'"),
        (["--textual", "3"], "expected --textual and --sampler together"),
        (["--textual", "3", "--sampler", "no such"], "unknown policy 'no such'"),
        (["--teacher", "m@http://x/v1", "--per-seed", "0"], "expected --per-seed of at least 1, got 0"),
        (["--teacher", "m@http://x/v1", "--crop-padding", "-1"], "expected --crop-padding of at least 0"),
        (["--teacher", "m@http://x/v1", "--tasks", "chess"], "expected --tasks as NAME:PATH or one of search"),
        (["--teacher", "m@http://x/v1", "--tasks", "vstar:/nowhere"], "--tasks vstar:/nowhere: expected a folder"),
    ],
)
def test_mistakes_are_told_in_one_line(
    arguments: list[str], said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["--tasks", "search", *arguments, "--out", str(tmp_path / "out")]) == 2
    error = capsys.readouterr().err
    assert said in error and error.count("\n") == 1, error


def test_a_folder_of_another_run_is_left_alone(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    tasks = seeds(tmp_path, [{"question": "What?"}])
    with serving(ScriptedTeacher({})) as server:
        given = ["--tasks", tasks, "--preset", "micro", "--teacher", f"tiny@{server.url}", "--out", str(tmp_path / "o")]
        assert main(given) == 0 and main([*given, "--concurrency", "2", "--prices", "1", "2"]) == 0
        assert main([*given, "--seed", "1"]) == 2
    assert "holds other demonstrations, with --seed 0; choose another --out" in capsys.readouterr().err


def test_a_record_survives_its_file(tmp_path: Path, make: Make) -> None:
    make(ScriptedTeacher({}), "--tasks", seeds(tmp_path, [{"question": "What?"}]))
    (record,) = records(tmp_path / "out")
    assert Record.from_json(record.to_json()) == record and isinstance(record.trajectories[0], Trajectory)
    assert isinstance(record.outcomes[0], Outcome)
    for line in ("{", "[]", '{"stage": "taught"}'):
        with pytest.raises(ValueError, match=r"expected a record|Expecting|expected"):
            Record.from_json(line)
