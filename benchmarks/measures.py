"""From the episodes of an evaluation to the numbers in its result file."""

import dataclasses
import hashlib
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from statistics import fmean
from typing import Any

from benchmarks.result_file import Costs
from pixel_env.env import PixelReasonEnv
from pixel_env.evaluation import Summary, at_k, bootstrap, evaluate
from pixel_env.faithfulness import faithfulness
from pixel_env.rollout import Episode
from pixel_env.trajectory import Trajectory

Key = tuple[str, int | None]


def prompt_version(env: PixelReasonEnv) -> dict[str, str]:
    """Return the constant system text and a digest of it and of the guideline below every question."""
    said = env.instructions + env.protocol.guideline(env.operations)
    version = hashlib.sha256(said.encode()).hexdigest()[:16]
    return {"version": version, "instructions": env.instructions}


def visual_tokens(episode: Episode) -> tuple[int, ...]:
    """Return the tokens of the pictures in each observation: cells of `factor` pixels a side, as Qwen counts them."""
    env: Any = episode.env.unwrapped
    if not episode.trajectory().first_digests:
        return ()  # nothing was shown
    cell = env.view_settings.factor**2
    return tuple(
        sum(image.shape[0] * image.shape[1] // cell for image in observation["images"])
        for observation in episode.conversation.observations
    )


def block(
    trajectories: Sequence[Trajectory], costs: Mapping[Key, Costs], env: PixelReasonEnv | None = None
) -> dict[str, Any]:
    """Return the numbers of a set of episodes.

    Args:
        trajectories: Episodes, any number a task.
        costs: Of each episode.
        env: An environment that replays them where a cue is known, to measure faithfulness; None leaves that out.
    """
    report = evaluate(trajectories)
    done = [t for t in trajectories if t.error is None]
    spent = _over_questions((t.question, sum(costs[t.task_id, t.seed].visual_tokens)) for t in done)
    scores = [s.score.mean for s in report.suites.values() if s.score is not None]
    return {
        "tasks": report.overall.tasks,
        "summary": _summary(report.overall),
        "suites": {name: _summary(summary) for name, summary in report.suites.items()},
        "mean_of_suites": fmean(scores) if scores else None,
        "at_k": _at_k(trajectories),
        "visual_tokens": dataclasses.asdict(bootstrap(spent)) if spent else None,
        "faithfulness": None if env is None else dataclasses.asdict(faithfulness(trajectories, env)),
    }


def scores(trajectories: Sequence[Trajectory]) -> dict[str, Any]:
    """Return summary and suites of `block`: what another scorer says of the same episodes."""
    report = evaluate(trajectories)
    suites = {name: _summary(summary) for name, summary in report.suites.items()}
    return {"summary": _summary(report.overall), "suites": suites}


def _summary(summary: Summary) -> dict[str, Any]:
    return dataclasses.asdict(summary)


def _at_k(trajectories: Sequence[Trajectory]) -> list[dict[str, Any]]:
    """Return avg@k and pass@k for k = 1, 2, 4, ... and all samples, each over the tasks with enough finished ones."""
    finished: dict[str, list[Trajectory]] = defaultdict(list)
    for trajectory in trajectories:
        if trajectory.scored and trajectory.error is None:
            finished[trajectory.task_id].append(trajectory)
    most = max(map(len, finished.values()), default=0)
    rows = []
    for k in sorted({most, *(2**power for power in range(most.bit_length()))} - {0}):
        enough = [t for group in finished.values() if len(group) >= k for t in group]
        rows.append({**dataclasses.asdict(at_k(enough, k)), "tasks": len({t.task_id for t in enough})})
    return rows


def _over_questions(values: Iterable[tuple[tuple[str, str], float]]) -> list[float]:
    """Return the mean of each question."""
    by_question: dict[tuple[str, str], list[float]] = defaultdict(list)
    for question, value in values:
        by_question[question].append(value)
    return [fmean(group) for group in by_question.values()]
