"""Operations of one's own: described, called, shown, counted, recorded and played again."""

import copy
import dataclasses
import inspect
import json
import pickle
import subprocess
import sys
from pathlib import Path
from runpy import run_path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from fakes import image_task, tasks, video_task
from gymnasium.utils.env_checker import check_env
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageEnhance

from pixel_env import Operation, PixelReasonEnv
from pixel_env.actions import SCHEMAS, Answer, CustomCall, Malformed, parse, render
from pixel_env.chat import messages, native_call
from pixel_env.custom_operations import OperationError
from pixel_env.faithfulness import calls, faithfulness
from pixel_env.game import Game
from pixel_env.json_schema import Mismatch, check_schema, draw, fitted
from pixel_env.media import view
from pixel_env.playback import Player
from pixel_env.prompts import OPERATIONS, functions_apart
from pixel_env.rollout import Episode, rollout
from pixel_env.tasks import Cue, ProceduralTasks
from pixel_env.trajectory import Trajectory, load_jsonl, replay, save_jsonl
from pixel_env.view import main
from pixel_env.viewer import page_data, to_html
from pixel_env.wrappers import CuriosityReward, OperationPenalty

EXAMPLE = Path(__file__).parents[1] / "docs" / "examples" / "custom_operation.py"
EXAMPLES = run_path(str(EXAMPLE))
ROTATE, CONTRAST = EXAMPLES["ROTATE"], EXAMPLES["CONTRAST"]

IMAGE = {"type": "integer"}
NOISE = np.random.default_rng(0).integers(0, 256, (448, 448, 3), dtype=np.uint8)
RIGHT = r"\boxed{B}"


def schema(name: str = "make", required: list[str] | None = None, **properties: Any) -> dict[str, Any]:
    parameters = {"type": "object", "properties": properties, "required": required or []}
    return {"type": "function", "function": {"name": name, "description": "Make.", "parameters": parameters}}


def made(function: Any, **properties: Any) -> Operation:
    parameters = inspect.signature(function).parameters
    required = [name for name in properties if parameters[name].default is inspect.Parameter.empty]
    return Operation(schema(required=required, **properties), function)


def call(name: str, **arguments: Any) -> str:
    return f"<tool_call>{json.dumps({'name': name, 'arguments': arguments})}</tool_call>"


def environment(*operations: str | Operation, **changes: Any) -> PixelReasonEnv:
    task = image_task(NOISE, cue=Cue(box=(40.0, 40.0, 80.0, 80.0)), needs_operation=True)
    fields = {"tasks": tasks(task), "suite": "search", "preset": "micro"}
    env = PixelReasonEnv(**(fields | changes), operations=operations)  # type: ignore[arg-type]
    env.reset(seed=0)
    return env


def step(env: gym.Env[Any, str], action: str) -> tuple[str, tuple[np.ndarray, ...], dict[str, Any]]:
    observation, _, _, _, info = env.step(action)
    assert observation in env.observation_space
    assert observation["text"].count("<image>") == len(observation["images"])
    return observation["text"], observation["images"], info


def shown(picture: np.ndarray, size: tuple[int, int] = (112, 112)) -> np.ndarray:
    height, width, _ = picture.shape
    return view(Image.fromarray(picture), (0, 0, width, height), size)


# --- full episodes ----------------------------------------------------------------------------------------------------


def test_an_episode_with_both() -> None:
    env = OperationPenalty(environment("crop_image", ROTATE, CONTRAST))
    env.reset(seed=0)
    text, images, info = step(env, "It is on its side. " + call("rotate", target_image=1, degrees=90))
    turned = np.rot90(NOISE, -1)
    assert text == "Image 2 (112x112), rotate of image 1: <image>"
    np.testing.assert_array_equal(images[0], shown(turned))
    assert (info["operation"], info["operation_error"], info["num_operations"]) == ("rotate", None, 1)
    # A crop of it is cut from the turned picture at its full resolution.
    text, images, _ = step(env, "crop_image([56, 0, 112, 28], 2)")
    assert text == "Image 3 (140x56), cut from image 2: <image>"
    np.testing.assert_array_equal(images[0], view(Image.fromarray(turned), (224, 0, 448, 112), (140, 56)))
    # And so is what works on the crop.
    text, images, _ = step(env, call("enhance_contrast", target_image=3, factor=3.0))
    assert text == "Image 4 (140x56), enhance_contrast of image 3: <image>"
    sharper = ImageEnhance.Contrast(Image.fromarray(turned[:112, 224:])).enhance(3.0)
    np.testing.assert_array_equal(images[0], shown(np.asarray(sharper), (140, 56)))
    # Crops of what was shown before are cut from the source, as ever.
    _, images, _ = step(env, "crop_image([56, 0, 112, 28], 1)")
    np.testing.assert_array_equal(images[0], view(Image.fromarray(NOISE), (224, 0, 448, 112), (140, 56)))
    _, reward, terminated, _, info = env.step(RIGHT)
    assert terminated and info["reward_terms"]["operation_penalty"] == pytest.approx(-0.15)  # three beyond the first
    assert reward == pytest.approx(0.85)


def test_the_prompt_lists_them_last_and_in_order() -> None:
    env = environment(CONTRAST, "select_frames", ROTATE, "crop_image")
    listed = env.instructions.split("<tools>\n")[1].split("\n</tools>")[0].splitlines()
    assert [json.loads(line) for line in listed] == [*SCHEMAS, CONTRAST.schema, ROTATE.schema]
    assert env.operations == (*OPERATIONS, "enhance_contrast", "rotate")
    text = env.reset()[0]["text"]
    assert "select_frames to see frames of a video larger, enhance_contrast, rotate. You have 5 turns" in text


def test_functions_are_told_apart_for_servers_that_describe_them() -> None:
    for offered in ((ROTATE,), ("crop_image", ROTATE, CONTRAST)):
        env = environment(*offered)
        rest, schemas = functions_apart(env.instructions)
        assert [one["function"]["name"] for one in schemas] == list(env.operations)
        assert "<tools>" not in rest and ("bbox_2d" in rest) == ("crop_image" in env.operations)
    changed = env.instructions.replace("one function", "two functions")
    assert functions_apart(changed) == (changed, [])


@pytest.mark.parametrize(
    ("action", "said"),
    [
        (call("rotate", target_image=1), "the arguments of rotate with target_image and degrees, got `"),
        (call("rotate", target_image=1, degrees=90, by=1), "with target_image and degrees only, got `[\"by\"]`"),
        (call("rotate", target_image=1, degrees=45), "expected degrees as one of 90, 180, 270, got `45`"),
        (call("rotate", target_image="1", degrees=90), 'target_image as an integer of at least 1, got `"1"`'),
        (call("rotate", target_image=True, degrees=90), "target_image as an integer of at least 1, got `true`"),
        (call("enhance_contrast", target_image=1, factor=4.5), "factor as a number from 0 to 4, got `4.5`"),
        (call("enhance_contrast", target_image=1, factor=float("nan")), "factor as a number from 0 to 4, got `NaN`"),
        (call("enhance_contrast", target_image=1, factor=10**400), "factor as a number from 0 to 4, got `1000"),
        ('<tool_call>{"name": "rotate", "arguments": [1, 90]}</tool_call>', "rotate as an object, got `[1, 90]`"),
        (call("flip", target_image=1), "crop_image or select_frames or rotate or enhance_contrast, got `\"flip\"`"),
        ('<tool_call>{"name": ["rotate"], "arguments": {}}</tool_call>', 'or enhance_contrast, got `["rotate"]`'),
    ],
)  # fmt: skip
def test_wrong_calls_say_what_was_expected(action: str, said: str) -> None:
    env = environment("crop_image", ROTATE, CONTRAST)
    text, images, info = step(env, action)
    assert text.startswith("Error: expected ") and said in text and text.endswith("Turns left: 4.") and not images
    assert (info["malformed"], info["operation_error"]) == (True, "malformed_call")
    assert (info["num_operations"], info["num_errors"]) == (1, 1)


def test_calls_that_cannot_be_done_say_why() -> None:
    env = environment(ROTATE, CONTRAST)
    text, _, info = step(env, call("rotate", target_image=3, degrees=90))
    assert text == "Error: target_image 3 does not exist; images 1 to 1 have been shown. Turns left: 4."
    assert (info["operation"], info["operation_error"], info["malformed"]) == ("rotate", "unknown_image", False)
    text, _, info = step(env, call("enhance_contrast", target_image=1, factor=1))
    assert text == (
        "Error: enhance_contrast: factor 1 changes nothing; more raises the contrast, less lowers it. Turns left: 3."
    )
    assert (info["operation_error"], info["num_operations"], info["num_errors"]) == ("refused", 2, 2)
    text, _, info = step(env, "crop_image([0, 0, 50, 50])")  # not on offer
    assert text.startswith("Error: crop_image is not available; rotate and enhance_contrast is.")


def test_not_offered_it_is_an_unknown_name() -> None:
    text, _, info = step(environment(), call("rotate", target_image=1, degrees=90))
    assert "no functions are available" in text and info["operation_error"] == "not_offered"
    text, _, _ = step(environment("crop_image"), call("rotate", target_image=1, degrees=90))
    assert 'expected the name crop_image or select_frames, got `"rotate"`' in text


def test_messages_of_functions_are_brief_and_hold_no_marker() -> None:
    def fail() -> None:
        raise ValueError("<image>\ud800" + "x" * 10_000)

    text, images, _ = step(environment(made(fail)), call("make"))
    assert not images and len(text) < 600
    text.encode()


@pytest.mark.parametrize(
    ("result", "message"),
    [
        (None, "make: TypeError: expected PIL images or arrays .* got NoneType"),
        ("a.png", "got str"),
        ([NOISE, 3], "got int"),
        (NOISE.astype(np.float32), r"got array \(448, 448, 3\) float32"),
        (NOISE[..., 0], r"got array \(448, 448\) uint8"),
    ],
)
def test_what_is_no_picture_is_the_fault_of_the_function(result: Any, message: str) -> None:
    with pytest.raises(OperationError, match=message):
        environment(made(lambda: result)).step(call("make"))


def test_a_bug_breaks_the_episode_off_and_no_other() -> None:
    def buggy(target_image: Image.Image) -> Image.Image:
        return target_image.no_such_method()

    class Caller:
        def act(self, conversations: Any) -> list[str]:
            return [call("make", target_image=1) if c.task_id == first else r"\boxed{A}" for c in conversations]

    first = ProceduralTasks(("search",), preset="micro")[0].task_id
    played = rollout(
        Caller(), "PixelReason-Zoom-v0", [0, 1], suite=["search"], preset="micro", progress=False,
        operations=[made(buggy, target_image=IMAGE)],
    )  # fmt: skip
    assert played[0].error == "OperationError: make: AttributeError: 'Image' object has no attribute 'no_such_method'"
    assert played[1].error is None and played[1].terminated


@pytest.mark.parametrize(
    ("result", "said"),
    [
        ([], "make: expected 1 to 8 pictures, got 0"),
        ([NOISE] * 9, "make: expected 1 to 8 pictures, got 9"),
        (Image.new("RGB", (0, 5)), "make: expected a picture of 1 to 67108864 pixels, got 0 x 5"),
        (np.broadcast_to(np.zeros(3, np.uint8), (9000, 9000, 3)), "pixels, got 9000 x 9000"),
    ],
    ids=["none", "nine", "empty", "huge"],
)
def test_pictures_that_cannot_be_shown(result: Any, said: str) -> None:
    text, images, info = step(environment(made(lambda: result)), call("make"))
    assert said in text and not images and info["operation_error"] == "refused"


def test_several_pictures_of_several_kinds_in_the_budget() -> None:
    def kinds(target_images: list[Image.Image]) -> list[Any]:
        half = Image.new("RGBA", (56, 28), (255, 0, 0, 0))  # transparent: white
        return [half, np.zeros((1000, 10, 3), np.uint8), Image.new("L", (3, 3), 9), *target_images]

    env = environment(
        "crop_image", made(kinds, target_images={"type": "array", "items": IMAGE}), render_mode="rgb_array"
    )
    step(env, "crop_image([28, 28, 56, 56])")
    text, images, _ = step(env, call("make", target_images=[2, 1]))
    lines = text.splitlines()
    assert [line.partition(" (")[0] for line in lines] == [f"Image {number}" for number in range(3, 8)]
    assert all("make of images 2 and 1: <image>" in line for line in lines)
    assert (images[0] == 255).all() and (images[1] == 0).all() and (images[2] == 9).all()
    assert [image.shape[:2] for image in images] == [(56, 140), (448, 28), (28, 28), (112, 112), (112, 112)]
    np.testing.assert_array_equal(images[3], shown(NOISE[112:224, 112:224]))
    np.testing.assert_array_equal(images[4], shown(NOISE))
    canvas = env.render()
    assert canvas is not None and canvas.shape == (544, 960, 3)


def test_a_call_cannot_ask_for_any_number_of_copies() -> None:
    count = made(
        lambda target_images: Image.new("L", (28, 28), len(target_images)),
        target_images={"type": "array", "items": IMAGE},
    )
    env = environment(count)
    text, _, info = step(env, call("make", target_images=[1] * 1000))
    assert text == "Error: target_images holds 1000 images; at most 16 may be used in one call. Turns left: 4."
    assert (info["operation"], info["operation_error"]) == ("make", "too_many_images")
    assert (step(env, call("make", target_images=[1] * 16))[1][0] == 16).all()


def test_functions_get_pictures_of_their_own() -> None:
    def paint(target_image: Image.Image) -> Image.Image:
        target_image.paste((0, 0, 0), (0, 0, 448, 448))
        return target_image

    env = environment("crop_image", made(paint, target_image=IMAGE))
    _, images, _ = step(env, call("make", target_image=1))
    assert (images[0] == 0).all()
    _, images, _ = step(env, "crop_image([0, 0, 112, 112], 1)")
    np.testing.assert_array_equal(images[0], shown(NOISE))


def test_optional_arguments_and_none_at_all() -> None:
    def plain(level: int = 7) -> np.ndarray:
        return np.full((28, 28, 3), level, np.uint8)

    env = environment(made(plain, level={"type": "integer", "minimum": 0, "maximum": 255}))
    text, images, _ = step(env, call("make"))
    assert text == "Image 2 (112x112), make: <image>" and (images[0] == 7).all()
    assert (step(env, call("make", level=9.0))[1][0] == 9).all()  # 9.0 is an integer in JSON Schema, and arrives as one


def test_frames_of_a_video() -> None:
    turn = made(lambda target_image: target_image.rotate(90, expand=True), target_image=IMAGE)
    env = environment("crop_image", "select_frames", turn, tasks=tasks(video_task()), suite="clip")
    text, images, _ = step(env, call("make", target_image=4))
    assert text == "Image 17 (84x112), make of image 4: <image>" and (images[0] == 30).all()
    step(env, "select_frames([2])")
    _, images, _ = step(env, "crop_image([0, 0, 28, 28], 17)")
    assert (images[0] == 30).all()
    game = Game(env, Path("unused.jsonl"))
    game.step(call("make", target_image=4))
    last = json.loads(json.dumps(game.state()))["views"][-1]
    assert last == {"number": 17, "width": 84, "height": 112, "frame": None, "seconds": None}


def test_rewards_count_them_as_operations() -> None:
    env = CuriosityReward(environment(ROTATE), over="all", group_size=8)
    for _ in range(7):
        env.reset()
        env.step(RIGHT)
    env.reset()
    step(env, call("rotate", target_image=1, degrees=180))
    _, _, _, _, info = env.step(RIGHT)
    assert info["rapr"] == 1 / 8 and info["reward_terms"]["curiosity"] == pytest.approx(0.0875)


def test_counterfactual_views() -> None:
    _, images, _ = step(environment(ROTATE, counterfactual="blank"), call("rotate", target_image=1, degrees=90))
    assert (images[0] == 128).all()
    with pytest.raises(ValueError, match="expected counterfactual 'none' or 'blank' with operations of one's own"):
        environment(ROTATE, counterfactual="other_task")


# --- the environment as an object -------------------------------------------------------------------------------------


def test_check_env_and_sampled_actions() -> None:
    with gym.make("PixelReason-Zoom-v0", preset="micro", operations=("crop_image", ROTATE, CONTRAST)) as env:
        check_env(env.unwrapped)  # warnings are errors
        env.action_space.seed(0)
        sampled = [env.action_space.sample() for _ in range(200)]
        assert {parse(text, [ROTATE.schema]).name for text in sampled if '"rotate"' in text} == {"rotate"}  # type: ignore[union-attr]
        errors = set()
        for text in sampled:
            env.reset()
            info = env.step(text)[4]
            errors.add((info["operation"], info["operation_error"]))
        assert {
            ("rotate", None),
            ("enhance_contrast", None),
            ("rotate", "unknown_image"),
            ("crop_image", None),
        } <= errors
        assert repr(env.action_space).endswith(", rotate, enhance_contrast)")
        assert env.action_space == copy.deepcopy(env.action_space) != gym.make("PixelReason-Zoom-v0").action_space


def brighter(target_image: Image.Image, by: int) -> Image.Image:
    return target_image.point(lambda value: value + by)


BRIGHTER = made(brighter, target_image=IMAGE, by={"type": "integer", "minimum": 0, "maximum": 99})


def test_copies_and_processes() -> None:
    env = environment("crop_image", BRIGHTER)
    step(env, call("make", target_image=1, by=20))
    for twin in (copy.deepcopy(env), pickle.loads(pickle.dumps(env))):
        np.testing.assert_array_equal(
            *(step(e, "crop_image([0, 0, 50, 50], 2)")[1][0] for e in (twin, copy.deepcopy(env)))
        )
    vector = gym.make_vec(
        "PixelReason-Zoom-v0", num_envs=2, vectorization_mode="async", vector_kwargs={"context": "spawn"},
        preset="micro", operations=["crop_image", BRIGHTER],
    )  # fmt: skip
    try:
        first, _ = vector.reset(seed=0)
        observation, *_ = vector.step((call("make", target_image=1, by=20), call("make", target_image=2, by=20)))
        assert observation["text"][0] == "Image 2 (112x112), make of image 1: <image>"
        assert observation["images"][0][0].mean() > first["images"][0][0].mean()
        assert observation["text"][1].startswith("Error: target_image 2 does not exist")
    finally:
        vector.close()


@pytest.mark.parametrize(
    ("operations", "message"),
    [
        (
            ["zoom"],
            r"expected each of operations to be one of 'crop_image', 'select_frames' or an Operation, got 'zoom'",
        ),
        ([brighter], "or an Operation, got <function brighter"),
        ([BRIGHTER, BRIGHTER], r"expected operations of different names, got \['make', 'make'\]"),
        ([Operation(schema("crop_image"), lambda: None)], "expected operations of different names, got"),
    ],
)
def test_operations_are_checked(operations: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        environment(*operations)


def test_the_release_has_its_own_operations_only() -> None:
    with pytest.raises(ValueError, match=r"expected both operations or none in protocol 'pixelreasoner', got .*'make'"):
        environment("crop_image", "select_frames", BRIGHTER, protocol="pixelreasoner")


# --- records ----------------------------------------------------------------------------------------------------------


def episode_of(env: gym.Env[Any, str], *actions: str) -> Trajectory:
    episode = Episode(env)
    episode.reset(0, seed=3)
    for action in actions:
        episode.step(action)
    return episode.trajectory()


def recorded() -> tuple[gym.Env[Any, str], Trajectory]:
    env = gym.make("PixelReason-Zoom-v0", preset="micro", operations=("crop_image", ROTATE))
    turns = (call("rotate", target_image=1, degrees=90), "crop_image([0, 0, 56, 56], 2)", r"\boxed{A}")
    return env, episode_of(env, *turns)


def test_records_are_played_again(tmp_path: Path) -> None:
    env, trajectory = recorded()
    assert trajectory.env_kwargs["operations"] == ["crop_image", "rotate"]
    assert [turn.operation for turn in trajectory.turns] == ["rotate", "crop_image", None]
    assert json.loads(trajectory.turns[0].action[11:-12])["arguments"] == {"target_image": 1, "degrees": 90}
    assert trajectory.cue_coverage is None  # nobody knows what of the cue a turned picture shows
    save_jsonl(tmp_path / "t.jsonl", [trajectory])
    (loaded,) = load_jsonl(tmp_path / "t.jsonl")
    assert loaded == trajectory == replay(loaded, env)
    assert calls(loaded, env) == []
    assert faithfulness([loaded], env).calls == 0
    with pytest.raises(ValueError, match="got 'rotate'; a trajectory holds only the name of an Operation"):
        replay(loaded)


def test_what_json_cannot_hold_is_told() -> None:
    env = gym.make("PixelReason-Zoom-v0", preset="micro")
    assert env.spec is not None
    env.spec.kwargs["scorer"] = object()
    with pytest.raises(TypeError, match="expected keyword arguments that JSON can hold, got <object"):
        Episode(env)


def test_the_viewer_shows_calls_pictures_and_numbers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _, trajectory = recorded()
    data = page_data({"run": [trajectory]}, operations=[ROTATE])
    (episode,) = data["episodes"]
    turned, cut, _ = episode["turns"]
    assert episode["problem"] == "" and (turned["operation"], episode["operations"]) == ("rotate", 2)
    assert '"degrees": 90' in turned["action"] and "rotate of image 1" in turned["observation"]
    for turn, number in ((turned, 2), (cut, 3)):
        (shot,) = turn["views"]
        assert f"Image {number} ({shot['width']}x{shot['height']})" in turn["observation"]
        assert (shot["number"], shot["frame"], shot["box"]) == (number, None, None)
        assert len(data["pictures"][shot["picture"]]) > 100
        assert turn["coverage"] is None and not turn["missed"]
    assert "rotate of image 1" in to_html({"run": [trajectory]}, operations=[ROTATE])
    # Without the function the page says so, and shows the texts.
    (episode,) = page_data({"run": [trajectory]})["episodes"]
    assert "cannot be played again" in episode["problem"] and "'rotate'" in episode["problem"]
    assert "rotate of image 1" in episode["turns"][0]["observation"] and not episode["turns"][0]["views"]
    assert Player(operations=[CONTRAST]).play(trajectory).problem

    monkeypatch.syspath_prepend(EXAMPLE.parent)
    save_jsonl(tmp_path / "t.jsonl", [trajectory])
    command = [str(tmp_path / "t.jsonl"), "-o", str(tmp_path / "page.html")]
    assert main([*command, "--operation", "custom_operation:ROTATE"]) == 0
    page = (tmp_path / "page.html").read_text()
    assert "rotate of image 1" in page and "cannot be played again" not in page
    assert main(command) == 0 and "cannot be played again" in (tmp_path / "page.html").read_text()


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("no_such_module:X", "cannot be imported: No module named"),
        ("json:X", "cannot be imported: module 'json' has no attribute"),
        ("", "cannot be imported"),
        ("json:dumps", "expected a pixel_env.Operation at json:dumps, got function"),
    ],
)
def test_the_command_says_what_is_no_operation(name: str, message: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["t.jsonl", "--operation", name])
    assert message in capsys.readouterr().err


def test_endpoints_get_them_as_native_tools() -> None:
    env = environment("crop_image", ROTATE)
    episode = Episode(env)
    episode.reset(0)
    turn = "On its side. " + call("rotate", target_image=1, degrees=90)
    episode.step(turn)
    said = messages(episode.conversation, "native", lambda image: "data")
    assert said[2]["tool_calls"][0]["function"]["name"] == "rotate" and said[3]["role"] == "tool"
    assert native_call(turn, "x") is None  # nobody offered it


def test_the_example_runs() -> None:
    done = subprocess.run([sys.executable, "-W", "error", str(EXAMPLE)], capture_output=True, text=True, check=True)
    assert done.stdout.endswith(
        "Image 2 (112x112), rotate of image 1: <image>\n"
        "Image 3 (112x112), cut from image 2: <image>\n"
        "Error: expected factor as a number from 0 to 4, got `9`. Turns left: 2.\n"
    )


# --- schemas ----------------------------------------------------------------------------------------------------------

TEXT = {"type": "string"}


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        ({"type": "tool"}, ValueError, 'expected a schema {"type": "function"'),
        ({"strict": True}, ValueError, 'expected a schema {"type": "function"'),
        ({"function": {"name": "a"}}, ValueError, "expected a function with name, description and parameters"),
        (
            {"function": {"name": "a b", "description": "", "parameters": {}}},
            ValueError,
            "expected a name of at most 64",
        ),
        (
            {"function": {"name": "a", "description": "", "parameters": TEXT}},
            ValueError,
            "of a as an object, got string",
        ),
        (
            {"function": {"name": "a", "description": "", "parameters": 3}},
            TypeError,
            "schema of the parameters of a as a",
        ),
        ({"function": {1, 2}}, TypeError, "set is not JSON serializable"),
        ({"function": float("nan")}, ValueError, "not JSON compliant"),
    ],
)
def test_the_form_of_a_schema_is_checked(changes: dict[str, Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        Operation(schema() | changes, lambda: None)


@pytest.mark.parametrize(
    ("inner", "error", "message"),
    [
        ({"type": "null"}, ValueError, "expected the type of x to be one of object, array, .*, got 'null'"),
        ({"type": ["string", "null"]}, ValueError, "expected the type of x to be one of"),
        ({}, ValueError, "expected the type of x to be one of .*, got None"),
        (
            TEXT | {"pattern": "a+"},
            ValueError,
            "expected x, a string, with no keyword but description, enum, got pattern",
        ),
        (TEXT | {"minimum": 1}, ValueError, "with no keyword but description, enum, got minimum"),
        (TEXT | {"enum": []}, ValueError, "expected the enum of x as a list, each a string"),
        (TEXT | {"enum": ["a", 1]}, ValueError, "expected the enum of x as a list, each a string"),
        (IMAGE | {"enum": [1, 5], "maximum": 3}, ValueError, r"that fits, got \[1, 5\]"),
        (IMAGE | {"minimum": 0.5}, ValueError, "expected minimum and maximum of x, each an integer, in this order"),
        (IMAGE | {"minimum": 2, "maximum": 1}, ValueError, r"in this order, got \[2, 1\]"),
        (IMAGE | {"minimum": "2"}, ValueError, "each an integer"),
        ({"type": "array"}, TypeError, "expected the schema of each of x as a dict, got None"),
        ({"type": "array", "items": TEXT, "maxItems": 1.5}, ValueError, "expected minItems and maxItems of x"),
        ({"type": "object", "properties": []}, TypeError, "expected the properties of x as a dict"),
        ({"type": "object", "required": ["y"]}, ValueError, "expected what x requires among"),
        ({"type": "object", "properties": {"y": {"type": "date"}}}, ValueError, "expected the type of y"),
    ],
)
def test_rules_that_would_not_be_enforced_are_refused(inner: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        Operation(schema(x=inner), lambda x: None)


@pytest.mark.parametrize(
    ("properties", "required", "function", "error", "message"),
    [
        (
            {"target_image": TEXT},
            [],
            lambda target_image: None,
            ValueError,
            "target_image of make as integer, got string",
        ),
        ({"target_images": IMAGE}, [], lambda target_images: None, ValueError, "as array of integer, got integer"),
        (
            {"x": TEXT},
            [],
            lambda: None,
            TypeError,
            "that can be called with x by name, as the schema allows: got an unexp",
        ),
        ({"x": TEXT}, [], lambda x, y: None, TypeError, "missing a required argument: 'y'"),
        ({"x": TEXT}, [], lambda x: None, TypeError, "missing a required argument: 'x'"),  # a call may leave it out
        ({"x": TEXT}, ["x"], lambda x, /: None, TypeError, "'x'"),
    ],
)
def test_function_and_schema_must_agree(
    properties: Any, required: Any, function: Any, error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        Operation(schema(required=required, **properties), function)


def test_a_schema_cannot_be_changed_from_outside() -> None:
    mine = schema(x=TEXT)
    operation = Operation(mine, lambda x="": None)
    mine["function"]["name"] = "other"
    assert operation.name == "make"
    with pytest.raises(dataclasses.FrozenInstanceError):
        operation.schema = {}  # type: ignore[misc]


leaves = (
    st.just({"type": "boolean"})
    | st.lists(st.text(max_size=3), min_size=1, max_size=3).map(lambda words: TEXT | {"enum": words})
    | st.just(TEXT)
    | st.tuples(st.sampled_from(["integer", "number"]), st.integers(-50, 50), st.integers(0, 50)).map(
        lambda t: {"type": t[0], "minimum": t[1], "maximum": t[1] + t[2]}
    )
    | st.sampled_from([{"type": "integer"}, {"type": "number", "maximum": -1.5}])
)
schemas = st.recursive(
    leaves,
    lambda inner: (
        st.tuples(inner, st.integers(0, 2), st.integers(0, 2)).map(
            lambda t: {"type": "array", "items": t[0], "minItems": t[1], "maxItems": t[1] + t[2]}
        )
        | st.dictionaries(st.text(max_size=3), inner, max_size=3).map(
            lambda properties: {"type": "object", "properties": properties, "required": list(properties)[:1]}
        )
    ),
    max_leaves=4,
)
values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=3),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=6,
)


@given(schemas, st.integers(0, 2**32))
@settings(deadline=None)
def test_what_is_drawn_fits(inner: dict[str, Any], seed: int) -> None:
    check_schema(inner, "x")
    drawn = draw(inner, np.random.default_rng(seed))
    assert fitted(json.loads(json.dumps(drawn)), inner, "x") == drawn


@given(schemas, values)
@settings(deadline=None)
def test_any_value_fits_or_is_told(inner: dict[str, Any], value: Any) -> None:
    try:
        again = fitted(value, inner, "x")
    except Mismatch as mismatch:
        expected, _got = mismatch.args
        assert isinstance(expected, str)
    else:
        assert again == value and fitted(again, inner, "x") == again


@given(st.dictionaries(st.sampled_from(["target_image", "target_images", "word", "x"]), values) | values, st.text())
@settings(deadline=None)
def test_parse_is_total_and_the_inverse_of_render(arguments: Any, around: str) -> None:
    listed = [schema(target_image=IMAGE, target_images={"type": "array", "items": IMAGE}, word=TEXT)]
    text = f"{around}<tool_call>{json.dumps({'name': 'make', 'arguments': arguments})}</tool_call>"
    action = parse(text, listed)
    assert isinstance(action, CustomCall | Malformed | Answer) and action.__class__ is not Answer
    if isinstance(action, CustomCall):
        assert parse(render(action, listed), listed) == action
        with pytest.raises(ValueError, match="expected an action that can be written down"):
            render(action)


def test_image_numbers_count_from_0_inside() -> None:
    listed = [schema(target_image=IMAGE, target_images={"type": "array", "items": IMAGE})]
    action = parse(call("make", target_image=1, target_images=[3.0, 1]), listed)
    assert action == CustomCall("make", {"target_image": 0, "target_images": [2, 0]})
