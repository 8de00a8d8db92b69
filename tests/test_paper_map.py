"""The page that maps the paper to the code names what exists."""

import ast
import re
from pathlib import Path

import pytest

from agents import run_settings
from benchmarks import evaluation_settings

ROOT = Path(__file__).parents[1]
PAGE = (ROOT / "docs" / "paper.md").read_text(encoding="utf-8")


def defined(path: Path) -> set[str]:
    """Names of functions, classes and constants at the top of a file."""
    names: set[str] = set()
    for node in ast.parse(path.read_text(encoding="utf-8")).body:
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            names.add(node.name)
        targets = (
            node.targets if isinstance(node, ast.Assign) else [node.target] if isinstance(node, ast.AnnAssign) else []
        )
        names |= {target.id for target in targets if isinstance(target, ast.Name)}
    return names


@pytest.mark.parametrize(("path", "name"), sorted(set(re.findall(r"`([\w/]+\.py):(\w+)`", PAGE))))
def test_what_is_named_is_defined_there(path: str, name: str) -> None:
    assert name in defined(ROOT / path)


def test_files_exist() -> None:
    paths = set(re.findall(r"\b(?:pixel_env|agents|benchmarks|docs)/\w+\.py\b", PAGE))
    assert len(paths) > 15
    assert [path for path in sorted(paths) if not (ROOT / path).is_file()] == []


def test_options_exist() -> None:
    told = run_settings.parser("").format_help() + evaluation_settings.parser("").format_help()
    told += (ROOT / "benchmarks" / "table1.py").read_text() + (
        ROOT / "agents" / "demonstration_settings.py"
    ).read_text()
    options = set(re.findall(r"(?<!-)--[a-z][a-z-]*", PAGE))
    assert len(options) > 15
    assert [option for option in sorted(options) if option not in told] == []
