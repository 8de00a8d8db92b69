"""The files of an evaluation: written line by line, read back as one."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pixel_env.command_line import UsageError
from pixel_env.trajectory import Trajectory, load_jsonl


@dataclass(frozen=True)
class Costs:
    """What an episode cost.

    Attributes:
        task_id: Its task.
        seed: Of its reset; with the task it tells episodes of an evaluation apart.
        visual_tokens: Of the pictures in each observation, the first one's first.
        seconds: From the end of the episode before it to its own. Of episodes played side by side only the sum means
            something: the time of playing all of them. 0 in files from before it was measured.
    """

    task_id: str
    seed: int | None
    visual_tokens: tuple[int, ...]
    seconds: float = 0.0


@dataclass(frozen=True)
class Evaluation:
    """A result and its episodes.

    Attributes:
        path: The result file.
        result: What it holds.
        trajectories: Every episode.
        costs: Of each, by task and seed.
    """

    path: Path
    result: dict[str, Any]
    trajectories: list[Trajectory]
    costs: dict[tuple[str, int | None], Costs]

    @property
    def name(self) -> str:
        """What to call it: the policy and the folder as it was given, as folders of the same name are common."""
        return f"{self.result['policy']} ({self.path.parent})"


def read_costs(path: Path) -> dict[tuple[str, int | None], Costs]:
    """Read a file of costs; of an episode that was played twice because of a kill, the later line counts."""
    rows = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    read = [Costs(**row | {"visual_tokens": tuple(row["visual_tokens"])}) for row in rows]
    return {(costs.task_id, costs.seed): costs for costs in read}


def read_result(path: Path) -> dict[str, Any]:
    """Read a result file, or the one in a folder.

    Raises:
        UsageError: There is none, or it is something else.
    """
    file = path / "result.json" if path.is_dir() else path
    try:
        result = json.loads(file.read_text(encoding="utf-8"))
    except OSError as error:
        raise UsageError(f"cannot read {file}: {error.strerror}; expected the result.json of an evaluation") from None
    except ValueError:
        raise UsageError(f"expected {file} to be the result.json of an evaluation, got something else") from None
    if not isinstance(result, dict) or not {"fingerprint", "overall", "parts"} <= result.keys():
        raise UsageError(f"expected {file} to be the result.json of an evaluation, got something else")
    return result


def read_evaluation(path: Path) -> Evaluation:
    """Read a result and the episodes beside it.

    Raises:
        UsageError: A file is missing, or something else.
    """
    file = path / "result.json" if path.is_dir() else path
    result = read_result(file)
    try:
        trajectories = load_jsonl(file.with_name("trajectories.jsonl"))
        costs = read_costs(file.with_name("costs.jsonl"))
    except (OSError, ValueError, KeyError) as error:
        raise UsageError(f"{file} has no episodes beside it that can be read: {error}") from None
    return Evaluation(file, result, trajectories, costs)
