"""Dependencies are declared with bounds that the tested versions keep, and no file that is loaded can run code."""

import ast
import json
import os
import pickle
import sys
import tomllib
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

ROOT = Path(__file__).parents[1]
FOLDERS = ("pixel_env", "agents", "baselines", "benchmarks", "tests", "docs")
SOURCES = [path for folder in FOLDERS for path in sorted((ROOT / folder).rglob("*.py"))]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
EXTRAS = {name: list(map(Requirement, wanted)) for name, wanted in PROJECT["optional-dependencies"].items()}
DECLARED = [*map(Requirement, PROJECT["dependencies"]), *(one for wanted in EXTRAS.values() for one in wanted)]
MODULES = {"PIL": "pillow", "sklearn": "scikit-learn", "yaml": "pyyaml"}
"""Modules whose distribution has another name."""
BROUGHT = {
    "tokenizers": "transformers", "huggingface_hub": "transformers", "safetensors": "transformers",
    "starlette": "fastapi", "pydantic": "fastapi", "packaging": "transformers", "httpx2": "openai",
}  # fmt: skip
"""Modules that a declared distribution brings with it."""
NOT_DECLARED = {
    "atheris": "for a fuzzer, which says so",
    "deepspeed": "for ZeRO-3 only, on GPUs; see docs/scaling.md",
    "playwright": "a browser, for tests that are skipped without it",
    "vllm": "on a machine with GPUs; see docs/scaling.md",
}


@cache
def imports(path: Path) -> set[str]:
    """Top-level names of what a file imports, but for itself and its neighbours."""
    here = {other.stem for other in path.parent.glob("*.py")} | set(FOLDERS)
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            names = [node.module]
        else:
            continue
        found |= {name.partition(".")[0] for name in names}
    return found - here - sys.stdlib_module_names


def test_what_is_imported_is_declared() -> None:
    known = {canonicalize_name(one.name) for one in DECLARED}
    missing = {}
    for path in SOURCES:
        for name in imports(path):
            distribution = canonicalize_name(BROUGHT.get(name, MODULES.get(name, name)))
            if distribution not in known and name not in NOT_DECLARED:
                missing.setdefault(name, str(path.relative_to(ROOT)))
    assert not missing


def test_the_core_needs_no_extra() -> None:
    core = {Requirement(one).name for one in PROJECT["dependencies"]}
    optional = {
        "math_verify",
        "matplotlib",
        "openai",
        "pyarrow",
        "pydantic",
        "verifiers",
    }  # imported where they are used
    used = {name for path in SOURCES if path.is_relative_to(ROOT / "pixel_env") for name in imports(path)}
    assert {MODULES.get(name, name) for name in used} - optional == core


@pytest.mark.parametrize("wanted", DECLARED, ids=str)
def test_every_dependency_has_a_least_version_that_the_tested_one_keeps(wanted: Requirement) -> None:
    if wanted.name == PROJECT["name"]:
        assert wanted.extras <= EXTRAS.keys()
        return
    assert {one.operator for one in wanted.specifier} & {">=", "=="}, f"{wanted} has no least version"
    lines = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    tested = {canonicalize_name(one.name): one for one in map(Requirement, lines[1:])}
    if wanted.name == "verifiers":
        assert "verifiers" not in tested  # has an environment of its own, with other versions
        return
    [version] = tested[canonicalize_name(wanted.name)].specifier
    assert version.operator == "==" and Version(version.version) in wanted.specifier


# --- files that could run code ----------------------------------------------------------------------------------------

PICKLES = {"pickle", "cloudpickle", "dill", "joblib", "shelve", "marshal"}
ALLOWED = {
    "pixel_env/decoding_process.py": {"import pickle"},  # between this process and its own child
    "baselines/ppo.py": {"PPO.load"},  # Stable-Baselines3 knows no other format; of a run that is named,
    "benchmarks/ppo_curves.py": {"PPO.load"},
    "benchmarks/ppo_player.py": {"PPO.load"},  # as SECURITY.md says
}


def risks(path: Path) -> set[str]:
    """What a file does that can run what it loads."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import | ast.ImportFrom):
            names = {alias.name for alias in node.names} | {getattr(node, "module", None)}
            found |= {f"import {name}" for name in names & PICKLES}
        if isinstance(node, ast.keyword) and node.arg in ("trust_remote_code", "allow_pickle"):
            found.add(node.arg)
        if isinstance(node, ast.Call) and (called := ast.unparse(node.func)) in ("torch.load", "PPO.load"):
            if {key.arg: ast.unparse(key.value) for key in node.keywords}.get("weights_only") != "True":
                found.add(called)
        if isinstance(node, ast.Constant) and node.value == "trust_remote_code":
            found.add("trust_remote_code")
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in ("eval", "exec"):
            found.add(node.func.id)
    return found


@pytest.mark.parametrize("folder", ["pixel_env", "agents", "baselines", "benchmarks"])
def test_nothing_is_loaded_that_could_run(folder: str) -> None:
    names = {path: str(path.relative_to(ROOT)) for path in SOURCES if path.is_relative_to(ROOT / folder)}
    assert {name: found for path, name in names.items() if (found := risks(path) - ALLOWED.get(name, set()))} == {}


def test_the_search_for_risks_finds_them(tmp_path: Path) -> None:
    lines = [
        "import pickle", "torch.load(p)", "torch.load(p, weights_only=False)", "np.load(p, allow_pickle=True)",
        "A.from_pretrained(p, trust_remote_code=x)", "eval('1')",
    ]  # fmt: skip
    (tmp_path / "a.py").write_text("\n".join(lines))
    assert risks(tmp_path / "a.py") == {"import pickle", "torch.load", "trust_remote_code", "allow_pickle", "eval"}


class Trap:
    """An object whose pickle makes a folder when it is loaded."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __reduce__(self) -> Any:
        return os.mkdir, (str(self.folder),)


def test_the_trap_would_snap(tmp_path: Path) -> None:
    pickle.loads(pickle.dumps(Trap(tmp_path / "caught")))
    assert (tmp_path / "caught").exists()


@pytest.mark.parametrize("file", ["optimizer.pt", "scheduler.pt", "rng_state.pth"])
def test_a_checkpoint_of_a_stranger_runs_nothing(file: str, tmp_path: Path) -> None:
    """Resuming reads the state of optimizer, schedule and random numbers with a reader that calls nothing."""
    torch, transformers = pytest.importorskip("torch"), pytest.importorskip("transformers")
    model = torch.nn.Linear(1, 1)
    args = transformers.TrainingArguments(output_dir=str(tmp_path), report_to=[], use_cpu=True)
    trainer = transformers.Trainer(model, args)
    trainer.create_optimizer_and_scheduler(1)
    for name, state in (
        ("optimizer.pt", trainer.optimizer.state_dict()), ("scheduler.pt", trainer.lr_scheduler.state_dict()),
    ):  # fmt: skip
        torch.save(state, tmp_path / name)
    trainer._load_optimizer_and_scheduler(str(tmp_path))
    torch.save({"state": Trap(tmp_path / "caught")}, tmp_path / file)
    load = trainer._load_rng_state if file == "rng_state.pth" else trainer._load_optimizer_and_scheduler
    with pytest.raises(pickle.UnpicklingError, match="Weights only load failed"):
        load(str(tmp_path))
    assert not (tmp_path / "caught").exists()


def test_a_folder_of_weights_brings_no_code_and_no_pickle(tmp_path: Path) -> None:
    torch = pytest.importorskip("torch")
    tiny_vlm = pytest.importorskip("tiny_vlm")
    from agents import micro

    folder = tmp_path / "model"
    micro.save(tiny_vlm.model(), tiny_vlm.processor(), folder)
    assert {path.suffix for path in folder.iterdir()} - {".json", ".jinja"} == {".safetensors"}
    (folder / "code.py").write_text(f"import os\nos.mkdir({str(tmp_path / 'caught')!r})\nclass Any: pass\n")
    for path in folder.glob("*config.json"):
        names = ("AutoConfig", "AutoModel", "AutoModelForImageTextToText", "AutoProcessor", "AutoTokenizer")
        told = json.loads(path.read_text()) | {"auto_map": dict.fromkeys(names, "code.Any")}
        path.write_text(json.dumps(told))
    micro.load_model(folder), micro.load_processor(folder)
    assert not (tmp_path / "caught").exists()
    (folder / "model.safetensors").unlink()
    torch.save({"lm_head.weight": Trap(tmp_path / "caught")}, folder / "pytorch_model.bin")
    with pytest.raises(OSError, match="safetensors"):
        micro.load_model(folder)
    assert not (tmp_path / "caught").exists()
