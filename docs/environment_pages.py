"""The page of each environment id, written from its docstring, its constructor and its registration."""

import inspect
import re
from pathlib import Path
from typing import Any

import gymnasium as gym

from pixel_env.env import PixelReasonEnv
from pixel_env.registration import ENVIRONMENTS, WRAPPERS
from pixel_env.tasks import MEDIA

SECTIONS = (
    "Description",
    "Action Space",
    "Observation Space",
    "Rewards",
    "Episode End",
    "Info",
    "Arguments",
    "Version History",
)
"""Headings of the docstring, in their order."""


def sections() -> dict[str, str]:
    """Return the text below each heading of the docstring, and what stands before them under ``""``."""
    summary, *parts = re.split(r"^## (.+)\n", inspect.getdoc(PixelReasonEnv) or "", flags=re.MULTILINE)
    return {"": summary.strip()} | {name: text.strip() for name, text in zip(parts[::2], parts[1::2], strict=True)}


def meanings() -> dict[str, str]:
    """Return what the docstring of the constructor says of each argument, in one line."""
    told = (inspect.getdoc(PixelReasonEnv.__init__) or "").split("Args:\n")[1].split("\n\n")[0]
    found = re.findall(r"^    (\w+): (.*(?:\n     .*)*)", told, re.MULTILINE)
    return {name: " ".join(text.split()).replace("``", "`") for name, text in found}


def arguments(env_id: str) -> str:
    """Return the arguments of ``gymnasium.make(env_id)`` as a table."""
    told = meanings()
    rows = ["| argument | default | meaning |", "|---|---|---|"]
    for name, parameter in list(inspect.signature(PixelReasonEnv.__init__).parameters.items())[1:]:
        default = ENVIRONMENTS[env_id].get(name, parameter.default)
        rows.append(f"| `{name}` | `{default!r}` | {told[name]} |")
    return "\n".join(rows)


def page(env_id: str) -> str:
    """Return the page of one id as Markdown."""
    suites = ENVIRONMENTS[env_id]["suite"]
    media = " or ".join(dict.fromkeys({"image": "an image", "video": "a video"}[MEDIA[suite]] for suite in suites))
    env: gym.Env[Any, str] = gym.make(env_id)
    told = sections()
    told["Description"] = (
        f"Shows {media}; suites {', '.join(f'`{suite}`' for suite in suites)}.\n\n{told['Description']}"
    )
    told["Action Space"] = f"`{env.action_space}`\n\n{told['Action Space']}"
    told["Observation Space"] = f"`{env.observation_space}`\n\n{told['Observation Space']}"
    wrappers = ", ".join(f"`{wrapper.entry_point.replace(':', '.')}`" for wrapper in WRAPPERS)
    told["Rewards"] += f"\n\nWrappers of this id, innermost first: {wrappers}."
    told["Arguments"] = f"{told['Arguments']}\n\n{arguments(env_id)}"
    env.close()
    head = f"# {env_id}\n\n{told['']}\n\n![An oracle plays it](../images/{env_id}.gif)\n\n"
    call = f'```python\nimport gymnasium as gym\n\nimport pixel_env\n\nenv = gym.make("{env_id}")\n```\n\n'
    return head + call + "\n\n".join(f"## {name}\n\n{told[name]}" for name in SECTIONS) + "\n"


def write(folder: Path) -> None:
    """Write the page of every registered id; one that is the same is left alone, so that it is not built again."""
    folder.mkdir(exist_ok=True)
    for env_id in ENVIRONMENTS:
        path, text = folder / f"{env_id}.md", page(env_id)
        if not path.exists() or path.read_text(encoding="utf-8") != text:
            path.write_text(text, encoding="utf-8")
