"""The pages: environments as in the code, metrics and messages that exist, commands that run, links that lead on."""

import ast
import importlib.util
import inspect
import os
import re
import shlex
import subprocess
import sys
from functools import cache
from pathlib import Path

import numpy as np
import pytest

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


# --- messages ---------------------------------------------------------------------------------------------------------


@cache
def texts() -> tuple[str, ...]:
    """Every text in the code, with ``...`` for what is filled in."""
    found = [(ROOT / "Makefile").read_text(encoding="utf-8").replace("%d.%d", "...").replace("$(PYTHON)", "...")]
    for path in (path for folder in ("pixel_env", "agents", "benchmarks") for path in (ROOT / folder).rglob("*.py")):
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
    return {line.split(" #")[0].strip() for line in lines if re.match("python (?!-c)", line)}


@cache
def help_of(*command: str) -> str:
    told = subprocess.run(
        [sys.executable, *command, "--help"], cwd=ROOT, capture_output=True, text=True, env=os.environ | ENV
    )
    assert told.returncode == 0, told.stderr
    return told.stdout


ENV = {"PYTHONPATH": os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")]), "HF_HUB_OFFLINE": "1"}
COMMANDS = sorted({command for text in PAGES.values() for command in commands(text)})


def test_there_are_commands() -> None:
    assert len(COMMANDS) > 40


@pytest.mark.parametrize("command", COMMANDS)
def test_options_of_commands_exist(command: str) -> None:
    words = shlex.split(command)[1:]
    script = words[:2] if words[0] == "-m" else words[:1]
    if words[0] == "-m":
        assert importlib.util.find_spec(words[1]) is not None
    else:
        assert (ROOT / words[0]).is_file()
    options = {word for word in words if re.fullmatch(r"--?[a-z][a-z-]*", word)} - {"-m"}
    if not options:
        return
    told = help_of(*script) + (help_of(HANDED_ON[words[0]]) if words[0] in HANDED_ON else "")
    assert {option for option in options if not re.search(rf"(?<![\w-]){option}(?![\w-])", told)} == set()


@pytest.mark.slow
@pytest.mark.parametrize("page", [name for name, text in PAGES.items() if "```sh\n" in text])
def test_blocks_of_commands_run(page: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A block marked `sh` runs, in the folder in which the Python blocks above it ran."""
    monkeypatch.chdir(tmp_path)
    for language, block in re.findall(r"^```(python|sh)\n(.*?)^```", PAGES[page], re.DOTALL | re.MULTILINE):
        if language == "python":
            exec(compile(block, page, "exec"), {"__name__": "page"})
        for line in block.replace("\\\n", " ").splitlines() if language == "sh" else ():
            words = shlex.split(line)
            assert words[0] == "python", line
            words = [str(ROOT / word) if word.endswith(".py") else word for word in words[1:]]
            done = subprocess.run([sys.executable, *words], capture_output=True, text=True, env=os.environ | ENV)
            assert done.returncode == 0, f"{line}\n{done.stdout}{done.stderr}"


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
