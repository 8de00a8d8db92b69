"""The examples of the documentation run, do what they say, and are as short as is said of them."""

import ast
import importlib
import io
import re
import runpy
import tokenize
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from chat_server import completion, images, refusal, serving

from agents.micro import load_model, load_processor
from agents.vlm_policy import VLMPolicy
from benchmarks import evaluate as evaluate_command
from pixel_env.evaluation import evaluate
from pixel_env.media import view
from pixel_env.policies import DirectPolicy, OraclePolicy
from pixel_env.rollout import Conversation, Episode, rollout
from pixel_env.trajectory import load_jsonl, replay

ROOT = Path(__file__).parents[1]
EXAMPLES = ROOT / "docs" / "examples"
MICRO = ROOT / "agents" / "micro_base"
ZOOM = "PixelReason-Zoom-v0"


@pytest.fixture(autouse=True)
def examples_are_found(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(EXAMPLES))


def example(name: str) -> ModuleType:
    return importlib.import_module(name)


def code_lines(source: str) -> int:
    """Lines that hold code: without empty ones, comments and docstrings."""
    tree, silent = ast.parse(source), {tokenize.COMMENT, tokenize.NL, tokenize.NEWLINE, tokenize.ENDMARKER}
    silent |= {tokenize.INDENT, tokenize.DEDENT}
    lines = {
        line
        for token in tokenize.generate_tokens(io.StringIO(source).readline)
        if token.type not in silent
        for line in range(token.start[0], token.end[0] + 1)
    }
    for node in ast.walk(tree):
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str):
            lines -= set(range(node.lineno, (node.end_lineno or node.lineno) + 1))
    return len(lines)


def definition(name: str, what: str) -> str:
    """The source of a function or class of an example."""
    source = (EXAMPLES / f"{name}.py").read_text(encoding="utf-8")
    (found,) = [node for node in ast.parse(source).body if getattr(node, "name", None) == what]
    text = ast.get_source_segment(source, found)
    assert text is not None
    return text


def test_lines_of_code_are_counted() -> None:
    assert (
        code_lines('"""Says\nwhat."""\n\n# why\ndef f(x: int) -> int:\n    """Add."""\n    return x + 1  # more\n') == 2
    )


@pytest.mark.parametrize(
    ("name", "what"), [("scripted_agent", "agent"), ("openai_agent", "Agent"), ("huggingface_agent", "Agent")]
)
def test_an_agent_is_ten_lines(name: str, what: str) -> None:
    assert code_lines(definition(name, what)) <= 10


def test_the_learner_is_sixty_lines_the_script_for_trl_thirty_and_the_task_set_two_methods() -> None:
    assert len((EXAMPLES / "reinforce.py").read_text(encoding="utf-8").splitlines()) <= 60
    assert code_lines((EXAMPLES / "trl_grpo.py").read_text(encoding="utf-8")) <= 30
    assert re.findall(r"^    def (\w+)", definition("custom_tasks", "Signs"), re.MULTILINE) == [
        "__len__",
        "__getitem__",
    ]


def test_the_scripted_agent(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    monkeypatch.chdir(tmp_path)
    runpy.run_path(str(EXAMPLES / "scripted_agent.py"), run_name="__main__")
    played = load_jsonl("scripted.jsonl")
    summary = evaluate(played).overall
    assert summary.episodes == 32 and summary.errors == 0 and all(t.used_operation for t in played)
    # Blind crops of that size show a few percent of the evidence.
    assert summary.cue_coverage is not None and summary.cue_coverage > 0.4
    assert replay(played[0]) == played[0]
    assert "| search | 32 |" in capsys.readouterr().out


def test_the_evaluation_command_takes_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pixel_env.evaluation.RESAMPLES", 200)
    arguments = ["--tasks", "search", "--preset", "micro", "--limit", "4", "--policy", "scripted_agent:agent"]
    assert evaluate_command.main([*arguments, "--out", str(tmp_path)]) == 0
    assert [len(t.turns) for t in load_jsonl(tmp_path / "trajectories.jsonl")] == [2] * 4


def test_the_openai_agent(monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    def answer(number: int, body: dict[str, Any]) -> Any:
        if number == 5:
            return refusal(400, "no")
        said = [message["content"] for message in body["messages"] if message["role"] == "assistant"]
        return completion(r"\boxed{A}" if said else "crop_image([0, 0, 56, 56])")

    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setenv("OPENAI_API_KEY", "secret")
    with serving(answer) as server:
        monkeypatch.setattr("sys.argv", ["openai_agent.py", server.url, "served-model"])
        shown = runpy.run_path(str(EXAMPLES / "openai_agent.py"), run_name="__main__")
    played = shown["played"]
    assert sum(t.error is not None for t in played) == 0  # who was refused was asked again, alone
    assert [[turn.operation for turn in t.turns] for t in played] == [["crop_image", None]] * 16
    assert server.most_running <= 8 and set(server.keys) == {"Bearer secret"}
    assert server.bodies[0]["model"] == "served-model" and len(images(server.bodies[-1])) == 2
    assert "| all | 16 |" in capsys.readouterr().out


def conversations(texts: tuple[str, ...]) -> Iterator[Conversation]:
    for task, actions in enumerate([(), texts[:1], texts]):
        episode = Episode(gym.make(ZOOM, preset="micro"))
        episode.reset(task, seed=0)
        for action in actions:
            episode.step(action)
        yield episode.conversation


def test_the_hugging_face_agent_reads_what_the_policy_of_the_package_reads() -> None:
    model, processor = load_model(MICRO), load_processor(MICRO)
    asked = list(conversations(("crop_image([28, 28, 84, 84])", "Hm.")))
    agent = example("huggingface_agent").Agent(model, processor)
    assert [agent(conversation) for conversation in asked] == VLMPolicy(model, processor).act(asked)


def test_the_hugging_face_example_plays(monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    monkeypatch.chdir(ROOT)
    played = runpy.run_path(str(EXAMPLES / "huggingface_agent.py"), run_name="__main__")["played"]
    assert len(played) == 4 and all(t.error is None and t.turns for t in played)
    assert "| all | 4 |" in capsys.readouterr().out


def test_the_task_set_is_played(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    monkeypatch.chdir(tmp_path)
    tasks, settings = example("custom_tasks").Signs(), example("custom_tasks").SETTINGS
    assert tasks[7] == tasks[7] and tasks.index("signs-7") == 7 and len({tasks[i].answers for i in range(20)}) == 2
    with pytest.raises(ValueError, match="no task 'signs-x' in this set of 10000 tasks"):
        tasks.index("signs-x")
    guessed, known = (
        evaluate(rollout(policy, ZOOM, range(64), tasks=tasks, progress=False, **settings)).overall
        for policy in (DirectPolicy(), OraclePolicy(tasks))
    )
    assert known.accuracy.mean == 1.0 > guessed.accuracy.mean and known.cue_coverage == 1.0
    runpy.run_path(str(EXAMPLES / "custom_tasks.py"), run_name="__main__")
    assert "data:image/webp" in (tmp_path / "signs.html").read_text(encoding="utf-8")
    assert capsys.readouterr().out.count("| signs | 64 |") == 2


def test_stripes_are_grey_in_the_first_view_and_not_in_a_crop() -> None:
    page = example("custom_tasks").Page
    across, down = (page(64, 64, across) for across in (True, False))
    whole, sign = (0.0, 0.0, 224.0, 224.0), (64.0, 64.0, 96.0, 96.0)
    first = [view(one.frame(0), whole, (28, 28)).astype(int)[9:11, 9:11] for one in (across, down)]
    crops = [view(one.frame(0), sign, (56, 56)).astype(int) for one in (across, down)]
    assert np.abs(first[0] - first[1]).max() <= 2 and np.abs(first[0] - 127).max() <= 2
    assert np.abs(crops[0] - crops[1]).mean() > 90


@pytest.mark.slow
def test_the_learner_improves() -> None:
    # A guess is right in 0.5, 640 of them within 0.06 of that 99.8% of the time; looking well and reading it gives 1.
    shares = example("reinforce").learn(seed=0)
    assert len(shares) == 200
    assert np.mean(shares[:5]) < 0.65
    assert np.mean(shares[-10:]) > 0.85
