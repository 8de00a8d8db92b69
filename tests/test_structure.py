"""The house rules that can be checked by machine."""

import ast
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

import pixel_env

ROOT = Path(__file__).parents[1]
LOWER = {"pixel_env": (), "baselines": ("pixel_env",), "agents": ("pixel_env",)}
LOWER["benchmarks"] = ("pixel_env", "baselines", "agents")
FILES = [path for package in LOWER for path in sorted((ROOT / package).rglob("*.py"))]


def imported(path: Path) -> set[str]:
    """Top-level names of everything a file imports, wherever in the file."""
    names = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            names.add(node.module.split(".")[0])
    return names


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_imports_point_one_way(path: Path) -> None:
    package = path.relative_to(ROOT).parts[0]
    assert imported(path) & LOWER.keys() <= {package, *LOWER[package]}
    if package == "pixel_env":
        assert not imported(path) & {"torch", "transformers", "trl"}


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_no_module_is_a_drawer(path: Path) -> None:
    assert not {part.removesuffix(".py") for part in path.parts} & {"utils", "helpers", "common", "misc"}


@pytest.mark.parametrize("module", ["pixel_env", "baselines.ppo"])  # the command tells mistakes before torch is loaded
def test_importing_the_environment_imports_no_torch(module: str) -> None:
    code = f"import sys, {module}; print(sorted({{'torch', 'transformers', 'trl', 'decord'}} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True, capture_output=True, text=True)
    assert done.stdout == "[]\n"


def test_the_package_offers_nothing_that_it_does_not_list() -> None:
    with pytest.raises(AttributeError, match="module 'pixel_env' has no attribute 'nothing'"):
        _ = pixel_env.nothing
    assert all(hasattr(pixel_env, name) for name in pixel_env.__all__)


def test_only_the_environment_is_installed() -> None:
    config = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    assert config["tool"]["hatch"]["build"]["targets"]["wheel"] == {"packages": ["pixel_env"]}
    assert not [name for name in config["project"]["dependencies"] if name.startswith(("torch", "transformers", "trl"))]
