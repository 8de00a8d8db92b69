"""Recorded demonstrations: what is trained of each, the numbers in its calls, and records that cannot be used."""

import copy
import json
from pathlib import Path
from typing import Any

import gymnasium as gym
import pytest
from layouts import crop_call, frames_call, message, pixelreasoner_sft, save, sft_record, write_json
from test_sft import spans
from tiny_vlm import encoder

from agents.demonstrations import kinds
from agents.examples import Examples, observations, to_example
from agents.sft_data import Look, erroneous, recorded
from pixel_env.tasks import load_tasks
from pixel_env.trajectory import Trajectory, replay


def made(path: Path, **settings: Any) -> gym.Env[Any, str]:
    return gym.make("PixelReason-Mixed-v0", tasks=f"pixelreasoner-sft:{path}", **settings)


def crop(x1: int, y1: int, x2: int, y2: int, image: int) -> str:
    bbox = f"[{x1}, {y1}, {x2}, {y2}]"
    return (
        f'<tool_call>{{"name": "crop_image", "arguments": {{"bbox_2d": {bbox}, "target_image": {image}}}}}</tool_call>'
    )


def select(*frames: int) -> str:
    return f'<tool_call>{{"name": "select_frames", "arguments": {{"target_frames": {list(frames)}}}}}</tool_call>'


EXIT, RUNS, RIGHT = r"It reads exit. \boxed{exit}", r"He runs. \boxed{B}", crop(210, 140, 252, 168, 1)
# Kind, what is trained, and what is played without loss. The image is shown as it is, 420 x 280; a crop of 378 x 252 is
# shown as 840 x 560 (30 x 20 cells of 28, the most that crop_pixels = 640 cells allow). Frames of 84 x 56 are shown as
# images 1 to 4, those selected four times larger, as images 5, 6, ...
EXPECTED = {
    "a side at 1.0": ("single", [f"I zoom in. {crop(210, 140, 420, 280, 1)}", EXIT], []),
    "two wrong boxes": (
        "recrop_twice",
        [f"Again. {RIGHT}", EXIT],
        [f"Here? {crop(0, 0, 42, 28, 1)}", f"No sign. {crop(336, 0, 378, 28, 1)}"],
    ),
    "too large, back at image 1": (
        "zoom_further",
        [f"Closer. {RIGHT}", EXIT],
        [f"All of it. {crop(0, 0, 378, 252, 1)}"],
    ),
    "too large, as it says": (
        "zoom_further",
        [f"That was too large. {crop(420, 280, 630, 420, 2)}", EXIT],
        [f"Here. {crop(0, 0, 378, 252, 1)}"],
    ),
    "step by step": (
        "single",
        [f"The shop. {crop(0, 0, 378, 252, 1)}", f"Its sign. {crop(420, 280, 630, 420, 2)}", EXIT],
        [],
    ),
    "a call that failed": (
        "recrop_once",
        [f"Image 1. {RIGHT}", EXIT],
        ["Here. " + RIGHT.replace("[210, 140, 252, 168]", "[0.5, 0.5, 0.6, 0.6]").replace(": 1}", ": 7}")],
    ),
    "textual": ("textual", [r"I can read it: exit. \boxed{A}"], []),
    "frames": ("single", [f"Look. {select(2, 3)}", RUNS], []),
    "other frames": ("reselect", [f"Later. {select(3, 4)}", RUNS], [f"Look. {select(1)}"]),
    "a selected frame": ("single", [f"Look. {select(2, 3)}", f"His feet. {crop(84, 56, 168, 112, 6)}", RUNS], []),
    "a frame": ("single", [f"His feet. {crop(42, 28, 84, 56, 3)}", RUNS], []),
}


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return pixelreasoner_sft(tmp_path_factory.mktemp("sft"))


@pytest.fixture(scope="module")
def played(path: Path) -> list[Trajectory]:
    return recorded(made(path), progress=False)


@pytest.mark.parametrize(("row", "expected"), list(enumerate(EXPECTED.values())), ids=list(EXPECTED))
def test_what_is_trained(row: int, expected: tuple[str, list[str], list[str]], played: list[Trajectory]) -> None:
    trajectory = played[row]
    kind, trained, untrained = expected
    assert (trajectory.error, trajectory.kind, trajectory.correct) == (None, kind, True)
    assert [turn.action for turn in trajectory.turns if not turn.trained] == untrained
    assert trajectory.num_errors == int(row == 5)
    env = gym.make(trajectory.env_id, **trajectory.env_kwargs)
    example = to_example(encoder(), trajectory, observations(trajectory, env))
    assert spans(encoder(), example, 1) == [f"{action}<|im_end|>" for action in trained]


def test_what_is_read_is_the_environments_own(path: Path, played: list[Trajectory]) -> None:
    sign, clip = played[1], played[9]
    assert sign.first_observation.startswith("Image 1 (420x280): <image>\nWhat does the sign say?\nLook at the visual")
    assert [turn.observation for turn in sign.turns] == [
        "Image 2 (168x112), cut from image 1: <image>",
        "Image 3 (168x112), cut from image 1: <image>",
        "Image 4 (168x112), cut from image 1: <image>",
        "Answer received.",
    ]
    assert clip.turns[0].observation == (
        "Image 5 is frame 2 (0.5 s), 336x224: <image>\nImage 6 is frame 3 (1.0 s), 336x224: <image>"
    )
    assert clip.turns[1].observation.endswith("cut from image 6: <image>")
    assert "(A) sits\n(B) runs\nLook at" in clip.first_observation
    everything = "".join(t.first_observation + "".join(turn.observation for turn in t.turns) for t in played)
    assert "Guidelines" not in everything and "Here is the result" not in everything
    assert played[5].turns[0].observation == (
        "Error: target_image 7 does not exist; images 1 to 1 have been shown. Turns left: 4."
    )


def test_they_are_trajectories_like_all_others(played: list[Trajectory]) -> None:
    assert [replay(trajectory) for trajectory in played] == played
    assert Examples(encoder(), played, progress=False).lengths[6] < 1500
    assert kinds(played) == {
        "single": 5, "recrop_once": 1, "recrop_twice": 1, "zoom_further": 2, "reselect": 1, "textual": 1,
    }  # fmt: skip


@pytest.mark.parametrize(
    ("coordinates", "expected"),
    [("pixel", [210, 140, 252, 168]), ("fraction", [0.5, 0.5, 0.6, 0.6]), ("thousandth", [500, 500, 600, 600])],
)
def test_boxes_are_written_in_the_unit_of_the_environment(path: Path, coordinates: str, expected: list[float]) -> None:
    third = recorded(made(path, coordinates=coordinates), progress=False)[1].turns[2].action
    call = json.loads(third.partition("<tool_call>")[2].partition("</tool_call>")[0])
    assert call["arguments"] == {"bbox_2d": expected, "target_image": 1}


def test_the_margin_of_the_release_is_the_environments(path: Path) -> None:
    env = made(path, crop_padding=0.1)
    env.reset(options={"task": 1})
    views = env.step(recorded(made(path, crop_padding=0.1), progress=False)[1].turns[2].action)[4]["views"]
    assert views[0].region == pytest.approx((168, 112, 294, 196))  # 42 and 28 pixels on every side


@pytest.mark.parametrize(
    ("looks", "expected"),
    [
        ([], []),
        ([Look("", 0, range(1, 2))], [False]),
        ([Look("", 0, range(0))], [True]),  # failed
        ([Look("", 0, range(1, 2)), Look("", 1, range(2, 3))], [False, False]),  # looks at what came back
        ([Look("", 0, range(1, 2)), Look("", 0, range(2, 3))], [True, False]),  # looks back
        ([Look("", 0, range(1, 2)), Look("", 0, range(0))], [False, True]),  # a failure shows nothing to judge by
        ([Look("", 0, range(1, 2)), Look("", 9, range(0)), Look("", 1, range(2, 3))], [False, True, False]),
        ([Look("", 0, range(1, 2)), Look("A mistake.", 1, range(2, 3))], [True, False]),
        ([Look("This may be wrong.", 0, range(1, 2)), Look("", 1, range(2, 3))], [False, False]),  # of nothing before
        ([Look("", None, range(4, 6)), Look("", 5, range(6, 7))], [False, False]),
        ([Look("", None, range(4, 6)), Look("", None, range(6, 7))], [True, False]),
    ],
)
def test_erroneous_calls(looks: list[Look], expected: list[bool]) -> None:
    assert erroneous(looks) == expected


def calls(*turns: str, media: Any = "images/2-0.jpg") -> dict[str, Any]:
    return sft_record("What?", media, *[(turn, 1) for turn in turns])


FRAMES = [f"videos/7/{number}.jpg" for number in range(4)]
ASKED, ANSWERED = message("user", "What?", "images/2-0.jpg"), message("assistant", r"\boxed{x}")
ONE = {"message_list": [ASKED, ANSWERED]}
DAMAGED: dict[str, tuple[Any, str]] = {
    "no list": ({"messages": []}, "expected message_list as 2 to 100 messages, got None"),
    "one message": ({"message_list": [ASKED]}, "expected message_list as 2 to 100 messages, got 1"),
    "no role": ({"message_list": [ASKED, {"content": "x"}]}, "expected message 1 .* with a role"),
    "roles": ({"message_list": [ASKED, ANSWERED, ANSWERED]}, "expected message 2 .* of the user, got"),
    "no reply": ({"message_list": [ASKED, ANSWERED, ASKED]}, "expected an answer of the assistant"),
    "item": (
        {"message_list": [{"role": "user", "content": [{"image": 7}]}, ANSWERED]},
        "expected each content of message 0 .* the path of an image",
    ),
    "no image": ({"message_list": [message("user", "What?"), ANSWERED]}, "got 0 images and 0 videos"),
    "no question": (
        {"message_list": [message("user", "<image>\n\nGuidelines: x", "images/2-0.jpg"), ANSWERED]},
        "expected a question in message 0",
    ),
    "image gone": (calls(r"\boxed{x}", media="images/gone.jpg"), r"got none at images/gone\.jpg"),
    "image outside": (calls(r"\boxed{x}", media="../2-0.jpg"), "expected a path inside the data root"),
    "no picture": (calls(r"\boxed{x}", media="sft.json"), "sft.json"),
    "no answer": (calls("It is exit."), r"expected an answer in \\boxed\{\} in the last message, got 'It is exit\.'"),
    "a call at the end": (calls(crop_call([0, 0, 0.5, 0.5])), "in the last message, got .*</tool_call>'"),
    "no such option": (
        sft_record("Which?\n(A) a (B) b", "images/2-0.jpg", (r"\boxed{C}", 0)),
        "expected an answer that names one option of",
    ),
    "no call": (calls("Hm.", r"\boxed{x}"), "expected message 2 .* with a call in <tool_call></tool_call>, got this"),
    "broken call": (calls("<tool_call>{</tool_call>", r"\boxed{x}"), "expected valid JSON in the call, got `{`"),
    "two calls": (calls(2 * crop_call([0, 0, 1, 1]), r"\boxed{x}"), "expected one call a turn, got 2"),
    "pixels": (
        calls(crop_call([10, 20, 300, 400]), r"\boxed{x}"),
        r"message 2 .*: expected bbox_2d in fractions from 0 to 1 of the image, got \[10\.0, 20\.0, 300\.0, 400\.0\]",
    ),
    "fails here": (calls(crop_call([0, 0, 1, 1], 3), r"\boxed{x}"), "to work as in the data, got 'Error: t"),
    "works here": (
        sft_record("What?", "images/2-0.jpg", (crop_call([0, 0, 1, 1]), 0), (r"\boxed{x}", 0)),
        "message 2 .* to fail as in the data, got 'Image 2",
    ),
    "the video itself": (
        calls(frames_call([1]), crop_call([0, 0, 1, 1], 1), r"\boxed{x}", media=FRAMES),
        "message 4 .*: expected target_image of at least 2 after an operation on a video",
    ),
    "frame 0": (calls(frames_call([0]), r"\boxed{x}", media=FRAMES), r"target_frames \[0\] do not exist"),
    "a frame not shown": (
        calls(frames_call([9]), r"\boxed{x}", media=[FRAMES[0]] * 17),
        "expected one of the 16 frames shown of 17, got frame 9; make the environment with a larger num_frames",
    ),
    "turns": (calls(*[crop_call([0, 0, 1, 1])] * 5, r"\boxed{x}"), "expected at most max_turns = 5 turns, got 6"),
}  # fmt: skip


@pytest.mark.parametrize(("record", "problem"), DAMAGED.values(), ids=DAMAGED)
def test_damaged_records_are_errors_and_the_rest_goes_on(tmp_path: Path, record: Any, problem: str) -> None:
    path = pixelreasoner_sft(tmp_path / "data")
    save(tmp_path / "2-0.jpg")
    write_json(path, [ONE, record, ONE])
    before, damaged, after = recorded(made(path), progress=False)
    assert before.error is after.error is None
    assert damaged.error is not None and damaged.kind == "damaged"
    with pytest.raises(ValueError, match=problem):
        raise ValueError(damaged.error)
    if record is not DAMAGED["no picture"][0]:
        assert "sft.json, row 1 (the first is 0): " in damaged.error


def test_text_first_plain_content_and_lone_surrogates(tmp_path: Path) -> None:
    path = pixelreasoner_sft(tmp_path)
    record = copy.deepcopy(ONE)
    record["message_list"][0]["content"].reverse()
    record["message_list"][1]["content"] = "\ud800 <|im_end|> \\boxed{x}"
    (trajectory,) = recorded(made(write_json(path, [record])), progress=False)
    assert trajectory.turns[0].action == r"? <|im_end|> \boxed{x}" and trajectory.correct
    example = to_example(encoder(), trajectory, observations(trajectory, made(path)))
    assert [token for token, loss in zip(example.ids, example.loss, strict=True) if loss].count(encoder().end) == 1


def test_records_are_a_task_set(path: Path) -> None:
    tasks = load_tasks("pixelreasoner-sft", path)
    assert (tasks[0].answers, tasks[6].answers, tasks[7].answers) == (("exit",), ("exit",), ("runs",))
    assert len(tasks.only("image")) == 7 and len(tasks.only("video")) == 4
    with pytest.raises(ValueError, match="expected an environment with tasks='pixelreasoner-sft:PATH', got Procedural"):
        recorded(gym.make("PixelReason-Mixed-v0"))
