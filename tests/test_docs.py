"""The pages: environments as in the code, metrics and messages that exist, commands that run, links that lead on."""

import ast
import importlib.util
import inspect
import json
import os
import re
import shlex
import subprocess
import sys
from functools import cache
from itertools import dropwhile
from pathlib import Path

import numpy as np
import pytest
from hub_layout import CONFIG_3B, CONFIG_7B, write_json

from agents import train_vlm
from agents.group_rewards import COLUMNS, TERMS, step_metrics
from pixel_env.env import PixelReasonEnv
from pixel_env.metrics import PANELS
from pixel_env.registration import ENVIRONMENTS

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
PAGES = {page.name: page.read_text(encoding="utf-8") for page in (ROOT / "README.md", *sorted(DOCS.glob("*.md")))}
ARGUMENTS = list(inspect.signature(PixelReasonEnv.__init__).parameters)[1:]
HANDED_ON = {
    "benchmarks/ablations.py": "agents/train_vlm.py",
    "benchmarks/compare_policies.py": "benchmarks/evaluate.py",
    "benchmarks/table1.py": "benchmarks/evaluate.py",
}
"""Commands that hand options on to another one."""
VLLM = {"--mm-processor-kwargs"}
"""What `trl vllm-serve` hands on to vLLM, which is not installed here."""


@pytest.fixture(scope="module")
def generator() -> object:
    spec = importlib.util.spec_from_file_location("environment_pages", DOCS / "environment_pages.py")
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


# --- environments -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("env_id", ENVIRONMENTS)
def test_every_id_has_a_page(env_id: str, generator: object, tmp_path: Path) -> None:
    generator.write(tmp_path / "environments")  # type: ignore[attr-defined]
    page = (tmp_path / "environments" / f"{env_id}.md").read_text(encoding="utf-8")
    told = dict(re.findall(r"^## ([^\n]+)\n\n(.+?)(?=^## |\Z)", page, re.MULTILINE | re.DOTALL))
    wanted = "Description, Action Space, Observation Space, Rewards, Episode End, Info, Arguments, Version History"
    assert list(told) == wanted.split(", ") and all(text.strip() for text in told.values())
    (image,) = re.findall(r"!\[.*\]\((.*)\)", page)
    assert image == f"../images/{env_id}.gif" and (DOCS / "images" / f"{env_id}.gif").is_file()
    rows = re.findall(r"^\| `(\w+)` \| `(.+?)` \| (.+) \|$", told["Arguments"], re.MULTILINE)
    assert [name for name, _, _ in rows] == ARGUMENTS and all(len(meaning) > 10 for _, _, meaning in rows)
    defaults = {name: ast.literal_eval(value) for name, value, _ in rows}
    assert defaults["suite"] == ENVIRONMENTS[env_id]["suite"] and defaults["max_turns"] == 5
    assert "v0" in told["Version History"] and "ActionText" in told["Action Space"]


# --- metrics ----------------------------------------------------------------------------------------------------------


def test_every_metric_is_told() -> None:
    page = set(re.findall(r"`([\w/]+)`", PAGES["metrics.md"]))
    rollouts = {name: np.ones(8) for name in COLUMNS} | {"broken": np.zeros(8), "used": np.array([1.0, 0] * 4)}
    logged = {*step_metrics(rollouts, np.zeros((8, len(TERMS))), 8)}
    assert len(logged) == 3 + 17  # the terms, and every ratio
    own = (ROOT / "agents" / "grpo.py").read_text(encoding="utf-8")
    logged |= {*re.findall(r'(?<!_)metrics\["(\w+)"\]', own), "skipped_steps"}
    logged |= {name for _, names in PANELS.values() for name in names}
    assert logged - page == set()


def test_every_figure_of_ppo_is_told() -> None:
    logging = (ROOT / "baselines" / "ppo_callback.py").read_text(encoding="utf-8")
    cloning = (ROOT / "baselines" / "cloning.py").read_text(encoding="utf-8")
    (names,) = re.findall(r"for name, value in zip\((\(.*?\)), figures", cloning)
    logged = {*re.findall(r'"(episode/\w+)"', logging), *(f"cloning/{name}" for name in ast.literal_eval(names))}
    assert len(logged) == 5 + 3 and 'f"reward/{name}"' in logging and 'f"cloning/{name}"' in cloning
    told = re.findall(r"`((?:episode|cloning|reward)/\w+)`", PAGES["baselines.md"])
    assert {*told} == logged | {f"reward/{term}" for term in TERMS}


# --- messages ---------------------------------------------------------------------------------------------------------


@cache
def texts() -> tuple[str, ...]:
    """Every text in the code, with ``...`` for what is filled in."""
    found = [(ROOT / "Makefile").read_text(encoding="utf-8").replace("%d.%d", "...").replace("$(PYTHON)", "...")]
    for path in (
        path for folder in ("pixel_env", "agents", "baselines", "benchmarks") for path in (ROOT / folder).rglob("*.py")
    ):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.JoinedStr):
                parts = (part.value if isinstance(part, ast.Constant) else "..." for part in node.values)
                found.append("".join(map(str, parts)))
            elif isinstance(node, ast.Constant) and isinstance(node.value, str):
                found.append(node.value)
    return tuple(found)


def test_quoted_messages_are_in_the_code() -> None:
    rows = re.findall(r"^\| `([^`]+ [^`]+)` \|", PAGES["troubleshooting.md"], re.MULTILINE)
    assert len(rows) > 50
    assert [message for message in rows if not any(message in text for text in texts())] == []


# --- commands ---------------------------------------------------------------------------------------------------------


def commands(text: str) -> set[str]:
    """Return every command line of blocks and running text that runs a file or a module."""
    blocks = re.findall(r"^```(\S*)\n(.*?)^```", text, re.DOTALL | re.MULTILINE)
    shell = [block.replace("\\\n", " ") for language, block in blocks if language in ("", "sh", "bash")]
    lines = [line for block in shell for line in block.splitlines()]
    rest = re.sub(r"^```.*?^```", "", text, flags=re.DOTALL | re.MULTILINE)
    lines += [" ".join(span.split()) for span in re.findall(r"`([^`]+)`", rest)]
    return {line.split(" #")[0].strip() for line in lines if COMMAND.match(line)}


COMMAND = re.compile(r"(\w+=\S+ +)*(python (?!-c)|accelerate launch |torchrun |trl )")
ENV = {
    "PYTHONPATH": os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")]),
    "PATH": os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]]),
    "HF_HUB_OFFLINE": "1",
}
COMMANDS = sorted({command for text in PAGES.values() for command in commands(text)})


@cache
def help_of(*command: str) -> str:
    told = subprocess.run([*command, "--help"], cwd=ROOT, capture_output=True, text=True, env=os.environ | ENV)
    assert told.returncode == 0, told.stderr
    return told.stdout


def parts(command: str) -> list[tuple[tuple[str, ...], list[str]]]:
    """Return what is run by a command line, a launcher and what it launches apart, each with its arguments."""
    words = list(dropwhile(re.compile(r"\w+=").match, shlex.split(command)))
    if words[:2] == ["python", "-m"]:
        return [(tuple(words[:3]), words[3:])]
    if words[0] == "trl":
        return [(tuple(words[:2]), words[2:])]
    script = next((k for k, word in enumerate(words) if word.endswith(".py")), len(words))
    launcher = {"accelerate": 2}.get(words[0], 1)
    launched = [(("python", words[script]), words[script + 1 :])] if script < len(words) else []
    return launched if words[0] == "python" else [(tuple(words[:launcher]), words[launcher:script]), *launched]


def test_there_are_commands() -> None:
    assert len(COMMANDS) > 60
    first, second = parts("OMP_NUM_THREADS=1 accelerate launch --config_file a.yaml agents/train_vlm.py --lora 2")
    assert first == (("accelerate", "launch"), ["--config_file", "a.yaml"])
    assert second == (("python", "agents/train_vlm.py"), ["--lora", "2"])
    assert parts("X=1 python -m pixel_env.view a -o b") == [(("python", "-m", "pixel_env.view"), ["a", "-o", "b"])]


@pytest.mark.parametrize("command", COMMANDS)
def test_options_of_commands_exist(command: str) -> None:
    for run, words in parts(command):
        if run[0] == "python":
            assert importlib.util.find_spec(run[2]) if run[1] == "-m" else (ROOT / run[1]).is_file()
        options = {word for word in words if re.fullmatch(r"--?[a-z][\w-]*", word)} - (
            VLLM if run[0] == "trl" else set()
        )
        if not options:
            continue
        told = help_of(*run) + (help_of("python", HANDED_ON[run[1]]) if run[-1] in HANDED_ON else "")
        assert {option for option in options if not re.search(rf"(?<![\w-]){option}(?![\w-])", told)} == set()


def trainings() -> list[tuple[str, bool]]:
    """Return the arguments of runs from real weights, without data and server, and whether each is one process."""
    found = [
        (" ".join(["", *words]), len(parts(command)) == 1)
        for command in COMMANDS
        for run, words in parts(command)
        if run[-1] == "agents/train_vlm.py" and "--model" in words
    ]
    return [(re.sub(r" --((sft|rl|test)-data|rollouts)( (?!-)\S+)+", "", words), alone) for words, alone in found]


@pytest.mark.filterwarnings("ignore:.is_gradient_checkpointing. is deprecated:FutureWarning")  # read by peft
@pytest.mark.parametrize(("arguments", "alone"), trainings())
def test_runs_from_real_weights_are_planned(
    arguments: str, alone: bool, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """With `--plan`, as on a GPU, from the configuration of the model; what is for one GPU fits its 80 GB."""
    (model,) = re.findall(r"--model (\S+)", arguments)
    write_json(tmp_path / "config.json", CONFIG_3B if "3B" in model else CONFIG_7B)
    words = [*arguments.replace(model, str(tmp_path)).split(), "--out", str(tmp_path / "run")]
    assert train_vlm.main([*words, "--dtype", "bfloat16", "--memory", "80", "--plan"]) == 0
    said = capsys.readouterr().out
    assert f"{'3.75' if '3B' in model else '8.29'} billion weights" in said
    assert "fits in 80.0 GB" in said or not alone, said


def log_runs(text: str) -> None:
    """Write what the runs logged whose curves a page draws."""
    drawn = [line for line in commands(text) if line.startswith("python -m pixel_env.plot")]
    for seed, run in enumerate(sorted({Path(name) for line in drawn for name in re.findall(r"runs/[\w-]+", line)})):
        run.mkdir(parents=True)
        rows = [{"stage": "rl", "step": k, "correctness": 0.1 * k, "rapr": 0.5, "entropy": 1.0} for k in (1, 2, 3)]
        (run / "metrics.jsonl").write_text("".join(f"{json.dumps(row | {'rapr_needed': 0.6})}\n" for row in rows))
        (run / "config.json").write_text(json.dumps({"settings": {"seed": seed}}))


@pytest.mark.slow
@pytest.mark.parametrize("page", [name for name, text in PAGES.items() if "```sh\n" in text])
def test_blocks_of_commands_run(page: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A block marked `sh` runs in a checkout, in which the Python blocks above it ran."""
    monkeypatch.chdir(tmp_path)
    for folder in ("agents", "baselines", "benchmarks", "docs"):
        Path(folder).symlink_to(ROOT / folder)
    log_runs(PAGES[page])
    blocks = re.findall(r"^```(python|sh)\n(.*?)^```", PAGES[page], re.DOTALL | re.MULTILINE)
    while blocks[-1][0] == "python":
        blocks.pop()
    for language, block in blocks:
        if language == "sh":
            done = subprocess.run(["sh", "-exc", block], capture_output=True, text=True, env=os.environ | ENV)
            assert done.returncode == 0, done.stdout + done.stderr
        elif not block.startswith("# docs/examples/"):  # a part of a file, which tests/test_examples.py runs
            exec(compile(block, page, "exec"), {"__name__": "page"})


# --- the site ---------------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_the_site_is_built_without_a_warning(tmp_path: Path) -> None:
    for name in ("sphinx", "myst_parser", "furo"):
        pytest.importorskip(name)
    (command,) = re.findall(r"^\t\$\(BIN\)/python (-m sphinx.*)$", (ROOT / "Makefile").read_text(), re.MULTILINE)
    words = [word.replace("build", str(tmp_path), 1) if word.startswith("build/") else word for word in command.split()]
    done = subprocess.run([sys.executable, *words], cwd=ROOT, capture_output=True, text=True, env=os.environ | ENV)
    assert done.returncode == 0, done.stderr
    pages = {path.stem for path in (tmp_path / "docs").rglob("*.html")}
    assert {*ENVIRONMENTS, "index", *(Path(name).stem for name in PAGES if name != "README.md")} <= pages
