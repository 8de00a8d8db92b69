"""The evaluation command: what it writes, that it goes on after a kill, and what it says about mistakes."""

import json
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import layouts
import pytest
from chat_server import completion, refusal, serving, tool_call

from agents import players
from benchmarks import evaluate
from benchmarks.evaluation_settings import parse
from benchmarks.fingerprint import fingerprint
from pixel_env.rollout import Conversation
from pixel_env.trajectory import load_jsonl, replay

MICRO = ("--preset", "micro")
Command = Callable[..., dict[str, Any]]


@pytest.fixture(autouse=True)
def few_resamples(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pixel_env.evaluation.RESAMPLES", 200)


class Asked:
    """Answers (A), or breaks off where `stop` says so; remembers what it was asked."""

    def __init__(self, stop: int | None = None, text: str = r"\boxed{A}") -> None:
        self.conversations, self.stop, self.text = list[Conversation](), stop, text

    def act(self, conversations: Sequence[Conversation]) -> list[str]:
        if self.stop is not None and len(self.conversations) >= self.stop:
            raise KeyboardInterrupt
        self.conversations += conversations
        return [self.text] * len(conversations)


POLICY: Asked


def use(policy: Asked, monkeypatch: pytest.MonkeyPatch) -> Asked:
    monkeypatch.setitem(globals(), "POLICY", policy)
    return policy


@pytest.fixture
def run(tmp_path: Path) -> Command:
    def command(*arguments: str, out: str = "out", code: int = 0) -> dict[str, Any]:
        assert evaluate.main([*arguments, "--out", str(tmp_path / out)]) == code
        return {} if code else json.loads((tmp_path / out / "result.json").read_text())

    return command


def test_the_result_says_what_it_depends_on(run: Command, tmp_path: Path) -> None:
    result = run("--tasks", "search", "clip", *MICRO, "--policy", "oracle", "--limit", "4", "--samples", "2")
    assert result["overall"]["summary"]["score"]["mean"] == 1.0
    assert [part["tasks"] for part in result["parts"].values()] == [4, 4]
    assert result["overall"]["summary"]["episodes"] == 16
    assert {k["k"]: (k["average"]["mean"], k["tasks"]) for k in result["overall"]["at_k"]} == {1: (1, 8), 2: (1, 8)}
    assert result["environment"]["view_pixels"] == 112 * 112 and result["environment"]["coordinates"] == "pixel"
    assert result["command"] and result["commit"] and result["machine"]["versions"]["gymnasium"]
    assert result["scorer"] == "strict" and result["seeds"] == {"sampling": 0, "bootstrap": 0}
    assert result["parts"]["search"]["faithfulness"]["whole_cue_rate"]["mean"] == 1.0
    trajectories = load_jsonl(tmp_path / "out" / "trajectories.jsonl")
    assert len(trajectories) == 16 and replay(trajectories[-1]) == trajectories[-1]


def test_visual_tokens_are_cells_of_the_pictures(run: Command, tmp_path: Path) -> None:
    result = run("--tasks", "search", *MICRO, "--policy", "direct", "--limit", "4")
    shown = [json.loads(line)["visual_tokens"] for line in (tmp_path / "out" / "costs.jsonl").read_text().splitlines()]
    # 112 x 112 pixels are at most 4 x 4 cells; an answer shows nothing more.
    assert all(0 < first <= 16 and last == 0 for first, last in shown)
    assert result["overall"]["visual_tokens"]["mean"] == sum(first for first, _ in shown) / 4


def test_the_fingerprint_is_that_of_the_questions(run: Command) -> None:
    arguments = ("--tasks", "search", *MICRO, "--policy")
    same = [run(*arguments, p, "--limit", "3", out=p)["fingerprint"] for p in ("grid", "direct")]
    other = run(*arguments, "direct", "--limit", "4", out="four")["fingerprint"]
    assert same[0] == same[1] != other
    assert fingerprint(["a", "b"]) == fingerprint(["b", "a"]) != fingerprint(["a", "c"])


def test_after_a_kill_nothing_is_asked_twice(
    run: Command, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ("--tasks", "search", *MICRO, "--limit", "6", "--samples", "2", "--batch-episodes", "3")
    policy = ("--policy", f"{__name__}:POLICY")
    first = use(Asked(stop=6), monkeypatch)
    run(*arguments, *policy, code=130)
    assert "go on with the same command and --out" in capsys.readouterr().err
    with (tmp_path / "out" / "trajectories.jsonl").open("a") as file:
        file.write('{"env_id": "cut sho')
    second = use(Asked(), monkeypatch)
    result = run(*arguments, *policy)
    assert len(first.conversations) == 6 and len(second.conversations) == 6
    assert result["overall"]["summary"]["episodes"] == 12
    third = use(Asked(), monkeypatch)
    assert run(*arguments, *policy)["overall"] == result["overall"] and not third.conversations
    alone = use(Asked(), monkeypatch)
    run(*arguments, *policy, out="alone")
    assert len(alone.conversations) == 12
    written = [(tmp_path / out / "trajectories.jsonl").read_text() for out in ("out", "alone")]
    assert written[0] == written[1]


def test_errors_are_counted_and_can_be_tried_again(
    run: Command, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    class Broken(Asked):
        def act(self, conversations: Sequence[Conversation]) -> list[str]:
            raise RuntimeError("out of order")

    arguments = ("--tasks", "search", *MICRO, "--limit", "2", "--policy", f"{__name__}:POLICY")
    use(Broken(), monkeypatch)
    run(*arguments, code=2)
    assert "every episode broke off" in capsys.readouterr().err
    whole = json.loads((tmp_path / "out" / "result.json").read_text())
    assert {(e["task_id"], e["error"]) for e in whole["parts"]["search"]["errors"]} == {
        (t.task_id, "RuntimeError: out of order") for t in load_jsonl(tmp_path / "out" / "trajectories.jsonl")
    }
    result = whole["overall"]
    assert (result["summary"]["errors"], result["summary"]["score"], result["visual_tokens"]) == (2, None, None)
    use(Asked(), monkeypatch)
    run(*arguments, code=2)
    assert run(*arguments, "--retry-errors")["overall"]["summary"]["errors"] == 0


def test_a_folder_of_another_evaluation_is_left_alone(run: Command, capsys: pytest.CaptureFixture[str]) -> None:
    run("--tasks", "search", *MICRO, "--policy", "direct", "--limit", "1")
    run("--tasks", "search", *MICRO, "--policy", "direct", "--limit", "2", code=2)
    assert "holds another evaluation, with --limit 1; choose another --out" in capsys.readouterr().err


def test_without_operations_no_tool_is_named(run: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    policy = use(Asked(), monkeypatch)
    result = run("--tasks", "search", "clip", *MICRO, "--policy", f"{__name__}:POLICY", "--operations", "none",
                 "--limit", "2")  # fmt: skip
    assert result["operations"] == [] and result["prompt"]["instructions"] == "You are a helpful assistant."
    for conversation in policy.conversations:
        said = conversation.instructions + conversation.observations[0]["text"]
        assert not [word for word in ("tool", "crop_image", "select_frames", "function") if word in said]


def test_a_set_on_disk(run: Command, tmp_path: Path) -> None:
    layouts.vstar(tmp_path / "data")
    result = run("--tasks", f"vstar:{tmp_path / 'data'}", "--policy", "oracle")
    part = result["parts"]["vstar"]
    assert part["tasks"] == 3 and part["summary"]["accuracy"]["mean"] == 1.0
    assert set(part["suites"]) == {"vstar/direct_attributes", "vstar/relative_position"}
    assert "submission" not in part and part["mean_of_suites"] == 1.0


def test_hidden_answers_give_the_official_file_and_no_score(run: Command, tmp_path: Path) -> None:
    pytest.importorskip("pyarrow")
    layouts.infographicvqa(tmp_path / "data")
    result = run("--tasks", f"infographicvqa:{tmp_path / 'data' / 'test.json'}", "--policy", "direct", "--samples", "2")
    part = result["parts"]["infographicvqa"]
    assert part["summary"]["score"] is None and part["at_k"] == []
    handed_in = json.loads((tmp_path / "out" / part["submission"]).read_text())
    assert [entry["questionId"] for entry in handed_in] == [70001, 70002]
    assert handed_in[0]["answer"] == "" and handed_in[1]["answer"].isdigit()  # direct guesses numbers only


def test_nothing_is_handed_in_while_an_episode_is_missing(
    run: Command, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """An answer that is missing because a server was down would count as wrong."""

    class Half(Asked):
        def act(self, conversations: Sequence[Conversation]) -> list[Any]:  # type: ignore[override]
            broken = "70001" in str([c.task_id for c in conversations]) or not self.conversations
            self.conversations += conversations
            return [RuntimeError("down") if broken and k == 0 else r"\boxed{7}" for k in range(len(conversations))]

    layouts.infographicvqa(tmp_path / "data")
    asked = ("--tasks", f"infographicvqa:{tmp_path / 'data' / 'test.json'}", "--policy", f"{__name__}:POLICY")
    use(Half(), monkeypatch)
    assert run(*asked)["parts"]["infographicvqa"]["submission"] is None
    assert "1 episodes broke off, so there is nothing to hand in" in capsys.readouterr().out
    use(Asked(), monkeypatch)
    assert run(*asked, "--retry-errors")["parts"]["infographicvqa"]["submission"]


def test_other_weights_are_another_evaluation(
    run: Command, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    asked = ("--tasks", "search", "--policy", "micro", "--limit", "1", "--max-turns", "1", "--max-new-tokens", "2")
    run(*asked)
    run(*asked)
    monkeypatch.setattr(evaluate, "weights_digest", lambda _: "trained further")
    run(*asked, code=2)
    assert "holds an evaluation of other weights in micro; choose another --out" in capsys.readouterr().err


def test_counterfactual_views_and_the_scores_of_both_scorers(run: Command) -> None:
    asked = ("--tasks", "read", *MICRO, "--policy", "oracle", "--limit", "4")
    blank = run(*asked, "--counterfactual", "blank", "--scorer", "pixelreasoner_compat")
    assert blank["counterfactual"] == "blank" and blank["parts"]["read"]["env_kwargs"]["counterfactual"] == "blank"
    assert blank["environment"]["max_turns"] == 5 and blank["prompt"]["version"]
    summary = blank["parts"]["read"]["summary"]
    rates = [summary[name] for name in ("parse_failure_rate", "operation_error_rate", "mean_operations")]
    assert rates[:2] == [0.0, 0.0] and rates[2] > 0
    assert blank["parts"]["read"]["strict"]["summary"]["score"]["mean"] == 1.0


def test_hidden_answers_without_an_official_form_are_told(
    run: Command, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    layouts.star(tmp_path / "data")
    result = run("--tasks", f"star:{tmp_path / 'data' / 'STAR_test.json'}", "--policy", "direct")
    assert result["overall"]["summary"]["score"] is None and "submission" not in result["parts"]["star"]
    assert "star: no answers are known, so no score, and no official form" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("policy", "missing", "extra"),
    [("endpoint:tiny@http://127.0.0.1:9/v1", "openai", "endpoint"), ("micro", "torch", "agents")],
)
def test_a_missing_package_is_told_in_one_line(
    policy: str, missing: str, extra: str, run: Command, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    for module in ("agents.api_policy", "agents.endpoint", "agents.micro"):
        monkeypatch.delitem(sys.modules, module, raising=False)
    monkeypatch.setitem(sys.modules, missing, None)  # as if it were not installed
    run("--tasks", "search", *MICRO, "--policy", policy, "--limit", "1", code=2)
    error = capsys.readouterr().err
    assert "cannot play with" in error and missing in error and f"[{extra}]" in error and error.count("\n") == 1


def test_an_endpoint(run: Command, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    arguments = ("--tasks", "search", *MICRO, "--limit", "3", "--samples", "2")
    with serving(lambda *_: completion(r"\boxed{A}")) as server:
        result = run(*arguments, "--policy", f"endpoint:tiny@{server.url}")
        assert len(server.bodies) == 6 and result["overall"]["summary"]["episodes"] == 6
        (tmp_path / "out" / "trajectories.jsonl").write_text("")  # as if killed before the first episode was kept
        again = run(*arguments, "--policy", f"endpoint:tiny@{server.url}")
        assert len(server.bodies) == 6 and again["overall"] == result["overall"]


def test_an_endpoint_is_asked_as_the_command_line_says(
    run: Command, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setattr("agents.endpoint.FIRST_PAUSE", 0.0)
    look = tool_call("crop_image", '{"bbox_2d": [0, 0, 56, 56], "target_image": 1}')
    replies = [refusal(500, "busy"), completion(None, [look]), completion(r"\boxed{A}"), refusal(500, "busy")]
    with serving(lambda n, _: replies[n]) as server:
        arguments = ("--tasks", "search", *MICRO, "--limit", "1", "--policy", "endpoint:tiny", "--base-url", server.url,
                     "--tools", "native", "--limit-field", "max_completion_tokens", "--temperature", "none",
                     "--timeout", "5", "--deadline", "9", "--prices", "1", "10")  # fmt: skip
        result = run(*arguments, "--retries", "1")
        assert len(server.bodies) == 3
        assert server.bodies[0].keys() == {"model", "messages", "tools", "max_completion_tokens"}
        assert result["overall"]["summary"]["rapr"]["mean"] == 1
        # Two answers of 100 tokens read and 7 written, at 1 and 10 a million.
        assert result["decoding"]["cost"] == pytest.approx(0.00034) and result["decoding"]["tools"] == "native"
        run(*arguments, "--retries", "0", out="impatient", code=2)
        result = json.loads((tmp_path / "impatient" / "result.json").read_text())
        assert len(server.bodies) == 4 and result["overall"]["summary"]["errors"] == 1


def test_the_micro_model(run: Command) -> None:
    arguments = ("--tasks", "search", "--policy", "micro", "--limit", "2", "--max-turns", "2", "--max-new-tokens", "24")
    result = run(*arguments)
    assert result["overall"]["summary"]["episodes"] == 2 and result["environment"]["view_pixels"] == 112 * 112
    assert result["decoding"]["temperature"] == 0 and result["decoding"]["dtype"] in ("float32", "bfloat16")
    assert {"torch", "av", "rapidfuzz"} <= result["machine"]["versions"].keys()
    assert len(result["decoding"]["weights"]) == 16


@pytest.mark.parametrize(
    ("policy", "url", "meant"),
    [
        ("grid", None, ("scripted", "grid", "")),
        ("endpoint:a/b@http://h:1/v1", None, ("endpoint", "a/b", "http://h:1/v1")),
        ("endpoint:m", "http://h/v1", ("endpoint", "m", "http://h/v1")),
        ("my.module:Thing", None, ("object", "my.module", "Thing")),
        ("Qwen/Qwen2.5-VL-7B-Instruct", None, ("weights", "Qwen/Qwen2.5-VL-7B-Instruct", "")),
    ],
)
def test_policies_are_read(policy: str, url: str | None, meant: tuple[str, str, str]) -> None:
    assert players.read_policy(policy, url) == players.PolicySpec(*meant)


def answers_a(conversation: Conversation) -> str:
    return r"\boxed{A}"


def makes_a_function() -> Callable[[Conversation], str]:
    return answers_a


def makes_an_object() -> Asked:
    return Asked()


@pytest.mark.parametrize("name", ["answers_a", "makes_a_function", "makes_an_object", "Asked"])
def test_a_policy_of_ones_own_is_a_function_an_object_or_what_makes_it(name: str, run: Command, tmp_path: Path) -> None:
    run("--tasks", "search", *MICRO, "--limit", "2", "--policy", f"{__name__}:{name}")
    assert [t.turns[0].action for t in load_jsonl(tmp_path / "out" / "trajectories.jsonl")] == [r"\boxed{A}"] * 2


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ("--tasks search --policy nobody", "unknown policy 'nobody'; expected micro"),
        ("--tasks search --policy no/such/folder", "unknown policy"),
        ("--tasks search --policy endpoint:m", "expected --policy endpoint:MODEL@BASE_URL or --base-url"),
        ("--tasks search --policy no_module:thing", "cannot import --policy no_module:thing"),
        ("--tasks search --policy json:JSONDecodeError", "cannot make --policy json:JSONDecodeError: "),
        ("--tasks search --policy shutil:copyfile", "expected shutil:copyfile to have `act`, to be a function of one"),
        ("--tasks search --policy json:decoder", "expected json:decoder to have `act`"),
        ("--tasks lost --policy grid", "expected --tasks as NAME:PATH or one of search, count, read, clip, got 'lost'"),
        ("--tasks vstar:/no/folder --policy grid", "there is nothing at '/no/folder'"),
        ("--tasks vstar --policy grid", "the path is missing: vstar:PATH"),
        ("--tasks search search --policy grid", "got search twice"),
        ("--tasks search --policy grid --samples 0", "expected --samples of at least 1, got 0"),
        ("--tasks search --policy grid --view-pixels 9", "expected view_pixels of at least factor**2"),
        ("--tasks search --policy grid --operations none crop_image", "none or names"),
        ("--tasks search --policy endpoint:m@http://h/v1 --retries -1", "expected --retries from 0"),
        ("--tasks search --policy micro --temperature none", "expected a number as the temperature of weights"),
        (
            "--tasks search --policy endpoint:m@http://h/v1 --tools native --protocol pixelreasoner",
            "has its own functions, in text",
        ),
        ("--policy grid", "--tasks"),
    ],
)
def test_mistakes_are_told_in_one_line(arguments: str, said: str, run: Command, capsys: Any) -> None:
    run(*arguments.split(), "--preset", "micro", code=2)
    error = capsys.readouterr().err
    assert error.startswith("evaluate.py: error: ") and said in error and error.count("\n") == 1


def test_an_output_that_cannot_be_written(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    out = str(tmp_path / "file" / "out")
    assert evaluate.main(["--tasks", "search", *MICRO, "--policy", "grid", "--out", out]) == 2
    assert "cannot write to" in capsys.readouterr().err


def test_the_protocol_of_the_release(run: Command, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    pytest.importorskip("math_verify")
    policy = use(Asked(text="No idea."), monkeypatch)
    layouts.vstar(tmp_path / "data")
    arguments = ("--tasks", f"vstar:{tmp_path / 'data'}", "--protocol", "pixelreasoner", "--policy")
    result = run(*arguments, f"{__name__}:POLICY")
    asked = policy.conversations[0]
    assert "crop_image_normalized" in asked.instructions and asked.observations[0]["text"].startswith("<image>What is")
    environment = {name: result["environment"][name] for name in ("view_pixels", "crop_pixels", "crop_padding")}
    assert environment == {"view_pixels": 16 * 512 * 784, "crop_pixels": 5120 * 784, "crop_padding": 0.1}
    assert result["environment"]["coordinates"].startswith("fraction where all four numbers are below 1")
    assert result["scorer"] == "pixelreasoner_compat" and result["settings"]["max_new_tokens"] == 2048
    assert result["overall"]["summary"]["score"]["mean"] == 0.0  # whatever is no call is an answer
    trajectories = load_jsonl(tmp_path / "out" / "trajectories.jsonl")
    assert all(t.terminated and replay(t) == t for t in trajectories)
    run(*arguments, "grid", out="other", code=2)


def test_a_trained_model_is_evaluated_as_it_was_trained(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    model = tmp_path / "run" / "rl" / "model"
    layouts.write_json(model / "config.json", {"model_type": "qwen2_5_vl"})

    def read(*more: str) -> tuple[str, str, float, int]:
        settings = parse(["--tasks", "search", "--policy", str(model), *more], "").settings
        return settings.preset, settings.coordinates, settings.crop_padding, settings.max_new_tokens

    assert read() == ("standard", "pixel", 0.0, 1024) and not capsys.readouterr().out  # no run around it
    layouts.write_json(tmp_path / "run" / "config.json", {"settings": {"preset": "micro", "crop_padding": 0.04}})
    assert read() == ("micro", "pixel", 0.04, 160)
    assert "was trained with --preset micro --crop-padding 0.04" in capsys.readouterr().out
    assert read("--preset", "standard", "--crop-padding", "0") == ("standard", "pixel", 0.0, 1024)
    assert read("--protocol", "pixelreasoner")[2] == 0.1
