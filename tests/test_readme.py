"""README and pages keep their promises: every Python block runs, every name in the README exists."""

import ast
import inspect
import re
from pathlib import Path

import pytest
from chat_server import completion, serving

from pixel_env.env import PixelReasonEnv
from pixel_env.registration import ENVIRONMENTS
from pixel_env.tasks import FORMATS, SUITES
from pixel_env.tasks.mixed_sets import KEYS

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
PAGES = {page.name: page.read_text(encoding="utf-8") for page in sorted((ROOT / "docs").glob("*.md"))}


def python_blocks(text: str) -> list[str]:
    return re.findall(r"^```python\n(.*?)^```", text, re.DOTALL | re.MULTILINE)


def titles(text: str) -> list[str]:
    """The heading above each block."""
    parts = re.split(r"^```python$", text, flags=re.MULTILINE)
    return [re.findall(r"^##? (.*)$", "".join(parts[: n + 1]), re.MULTILINE)[-1] for n in range(len(parts) - 1)]


BLOCKS = python_blocks(README)
EXAMPLE = re.compile(r"# (docs/examples/\w+\.py)\n")
"""The first line of a block that is a part of a file; `tests/test_examples.py` runs the file."""

WHOLE = [
    pytest.param(block, id=f"{name}: {title}")
    for name, text in {"README.md": README, **PAGES}.items()
    for block, title in zip(python_blocks(text), titles(text), strict=True)
    if not EXAMPLE.match(block)
]


@pytest.mark.parametrize("block", WHOLE)
def test_python_blocks_run(block: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    with serving(lambda *_: completion(r"\boxed{A}")) as server:
        block = block.replace("http://127.0.0.1:8000/v1", server.url)
        exec(compile(block, "README.md", "exec"), {"__name__": "readme"})


@pytest.mark.parametrize("page", PAGES)
def test_examples_of_the_pages_are_parts_of_their_files(page: str) -> None:
    for block in python_blocks(PAGES[page]):
        if part := EXAMPLE.match(block):
            assert block[part.end() :] in (ROOT / part[1]).read_text(encoding="utf-8"), part[1]


@pytest.mark.parametrize("page", PAGES)
def test_links_of_the_pages_lead_somewhere(page: str) -> None:
    for link in re.findall(r"\]\((?!http)([^)#]+)", PAGES[page]):
        assert (ROOT / "docs" / link).exists(), link
    for title in re.findall(r"\.\./README\.md#([\w-]+)", PAGES[page]):
        assert f"\n## {title.replace('-', ' ')}\n" in README.lower(), title


def test_every_example_is_shown_or_named() -> None:
    for path in (ROOT / "docs" / "examples").glob("*.py"):
        assert any(f"examples/{path.name}" in text for text in (README, *PAGES.values())), path.name


def test_there_are_blocks_to_run() -> None:
    assert sum(len(python_blocks(text)) for text in PAGES.values()) >= 7
    assert titles(README) == [
        "The loop",
        "Rewards",
        "Your policy",
        "Trajectories",
        "Your tasks",
    ]


def test_comments_on_the_loop_are_true(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    exec(compile(BLOCKS[0], "README.md", "exec"), {"__name__": "readme"})
    said = capsys.readouterr().out
    for quoted in re.findall(r'# "([^"]*)"', BLOCKS[0]):
        pieces = [piece.strip() for piece in re.split(r"\.\.\.\??|(?<=<image>) ", quoted) if piece.strip()]
        assert all(piece in said for piece in pieces), quoted
    assert re.search(r"^True 1\.0 True \{'correctness': 1\.0", said, re.MULTILINE)


def test_every_id_suite_and_argument_is_described() -> None:
    tables = README.split("## Environments")[1].split("## Rewards")[0]
    for name in (*ENVIRONMENTS, *SUITES, *list(inspect.signature(PixelReasonEnv.__init__).parameters)[1:]):
        assert f"`{name}`" in tables, name


def test_defaults_are_those_of_the_code() -> None:
    defaults = {name: p.default for name, p in inspect.signature(PixelReasonEnv.__init__).parameters.items()}
    checked = 0
    for row in re.findall(r"^\| (`.*?)$", README.split("Keyword arguments")[1].split("## Rewards")[0], re.MULTILINE):
        cells = row.split(" | ")
        names, written = re.findall(r"`(\w+)`", cells[0]), cells[1].replace("`", "")
        if written not in ("those of the id", "generated", "by preset"):
            values = ast.literal_eval(written)
            assert [defaults[name] for name in names] == (list(values) if len(names) > 1 else [values]), row
            checked += len(names)
    assert checked == len(defaults) - 1 - 4  # all but self, suite, tasks and the two budgets


def test_links_name_files_that_exist() -> None:
    for link in re.findall(r"\]\((?!http)([^)#]+)[)#]", README):
        assert (ROOT / link).exists(), link


def test_the_tree_names_files_that_exist() -> None:
    tree = re.search(r"^```\n(.*?)^```", PAGES["architecture.md"], re.DOTALL | re.MULTILINE)
    assert tree is not None
    folder = ROOT
    for line in tree[1].splitlines():
        names, note = re.split(r"\s{2,}", line.strip(), maxsplit=1)
        folder = ROOT if not line.startswith(" ") else folder
        for name in names.split(", "):
            assert (folder / name).exists(), name
        folder = folder / names if not line.startswith(" ") else folder
        for name in re.findall(r"\b\w+\.py\b", note):
            assert (folder / name).exists() or list(folder.rglob(name)), name


def test_every_format_is_described() -> None:
    for name in (*FORMATS, *KEYS):
        assert f"`{name}`" in PAGES["own_data.md"], name


def test_commands_are_targets() -> None:
    targets = re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE)
    assert {command for command in re.findall(r"\bmake ([a-z]+)", README)} <= {*targets}
