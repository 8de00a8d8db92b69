"""Trajectories as one HTML page that needs nothing else: no network, no other file.

The page is `viewer.html` with the data put in as one block of JSON. Pictures come from playing the episodes again, see
`pixel_env.playback`; each is stored once. Texts of policies are hostile: they stay inside JSON strings, and the page
shows them as text only.
"""

import base64
import hashlib
import io
import json
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from importlib.resources import files
from typing import Any

import gymnasium as gym
import numpy as np
from PIL import Image
from tqdm import tqdm

from pixel_env.custom_operations import Operation
from pixel_env.playback import Playback, Player, Sheet, Shot, coverage
from pixel_env.tasks import Task
from pixel_env.trajectory import Trajectory, Turn, digest

VIEW_QUALITY, SHEET_QUALITY = 90, 80
"""WebP, lossy: of what the policy saw; of the source beside it. Lossless takes four times the bytes of the former."""

OFF_TARGET = 0.5
"""A look that shows less than this share of the evidence is off target."""

LONGEST = 20_000
"""Characters of a damaged line that are shown."""

Json = dict[str, Any]


@dataclass(frozen=True)
class Damaged:
    """A line of a file that is no trajectory.

    Attributes:
        line: its number, counted from 1.
        text: what it holds.
        problem: what is wrong with it.
    """

    line: int
    text: str
    problem: str


Run = Sequence[Trajectory | Damaged]


def to_html(
    runs: Mapping[str, Run],
    env: gym.Env[Any, str] | None = None,
    progress: bool = False,
    operations: Sequence[Operation] = (),
) -> str:
    """Return a page that shows one run, or two side by side, matched by task.

    The k-th episode of a task stands beside the k-th of the same task in the other run.

    Args:
        runs: names and episodes, in the order in which they are shown.
        env: where episodes are played again to get their pictures; by default environments made as theirs were.
        progress: show a progress bar.
        operations: those of one's own that the episodes call; without them, these are shown without pictures.

    Raises:
        ValueError: for no run, or more than two.
    """
    if not 1 <= len(runs) <= 2:
        raise ValueError(f"expected one run or two to compare, got {len(runs)}")
    return page(page_data(runs, env, progress, operations))


def page(data: Json) -> str:
    """Return the HTML of a page for the result of `page_data`."""
    template = (files("pixel_env") / "viewer.html").read_text(encoding="utf-8")
    script = re.search(r"<script>(.*?)</script>", template, re.DOTALL)
    assert script is not None, "the template has one script"
    # The page may run this one script and load nothing: a second line of defence behind showing text as text.
    allowed = base64.b64encode(hashlib.sha256(script[1].encode()).digest()).decode()
    head, tail = template.replace("{{script}}", f"'sha256-{allowed}'").split("{{data}}")
    return head + as_block(data) + tail


def as_block(data: Json) -> str:
    r"""Write JSON that can stand in a script element: ASCII, and without the characters that HTML gives a meaning.

    >>> as_block({"text": "</script>&"})
    '{"text":"\\u003c/script\\u003e\\u0026"}'
    """
    text = json.dumps(data, allow_nan=False, separators=(",", ":"))
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


def page_data(
    runs: Mapping[str, Run],
    env: gym.Env[Any, str] | None = None,
    progress: bool = False,
    operations: Sequence[Operation] = (),
) -> Json:
    """Return what a page holds; arguments as for `to_html`.

    Returns:
        ``runs`` (names); ``pictures`` (WebP in base64) and ``tasks``, to which episodes refer by position;
        ``episodes``; ``rows``, each the positions of one episode a run, or None where a run has no such episode. Boxes
        are x1, y1, x2, y2 in pixels of the picture of the source; images and frames count from 1.
    """
    player, content = Player(env, operations), _Content()
    total = sum(map(len, runs.values()))
    try:
        with tqdm(total=total, desc="replay", unit="episode", disable=not progress) as bar:
            for run in runs.values():
                content.columns.append([])
                for item in run:
                    content.add(item, player)
                    bar.update()
    finally:
        player.close()
    return {
        "runs": list(runs),
        "pictures": content.pictures,
        "tasks": content.tasks,
        "episodes": content.episodes,
        "rows": content.rows(),
    }


@dataclass
class _Content:
    """What a page holds, while it is put together; nothing is stored twice."""

    pictures: list[str] = field(default_factory=list)
    tasks: list[Json] = field(default_factory=list)
    episodes: list[Json] = field(default_factory=list)
    columns: list[list[int]] = field(default_factory=list)
    _known: dict[str, int] = field(default_factory=dict)

    def add(self, item: Trajectory | Damaged, player: Player) -> None:
        """Append an episode to the last run."""
        if isinstance(item, Trajectory):
            try:
                episode = self._episode(item, player.play(item))
            except (TypeError, ValueError, AttributeError, KeyError, OverflowError, RecursionError) as error:
                item = Damaged(0, _written(item), f"its fields are not of a trajectory: {error}")
        if isinstance(item, Damaged):
            name = f"line {item.line}" if item.line else "damaged"
            episode = {"problem": f"{name}: {item.problem}", "raw": item.text[:LONGEST], "suite": "", "id": name}
        self.columns[-1].append(len(self.episodes))
        self.episodes.append(episode)

    def rows(self) -> list[list[int | None]]:
        """Match the episodes of the runs: the k-th of a task with the k-th; what has no task, with nothing."""
        found: dict[tuple[Any, ...], list[int | None]] = {}
        for column, indices in enumerate(self.columns):
            seen: dict[tuple[Any, ...], int] = {}
            for index in indices:
                episode = self.episodes[index]
                task = (episode["suite"], episode["id"]) if "raw" not in episode else (index,)
                seen[task] = seen.get(task, 0) + 1
                row = found.setdefault((*task, seen[task]), [None] * len(self.columns))
                row[column] = index
        return list(found.values())

    def _episode(self, trajectory: Trajectory, playback: Playback) -> Json:
        shots = playback.shots + [()] * (1 + len(trajectory.turns) - len(playback.shots))
        cue = None if playback.task is None else playback.task.cue
        turns = [_turn(turn) for turn in trajectory.turns]
        number = 1
        shown = []
        for these in shots:
            shown.append([self._view(shot, number + k, playback.sheet) for k, shot in enumerate(these)])
            number += len(these)
        for turn, these, views in zip(turns, shots[1:], shown[1:], strict=True):
            turn["views"] = views
            turn["coverage"] = coverage(cue, [shot.view for shot in these]) if these else None
            turn["missed"] = _missed(turn)
        return _facts(trajectory) | {
            "corrected": bool(trajectory.correct) and any(turn["missed"] for turn in turns),
            "problem": playback.problem,
            "task": None if playback.task is None else self._task(playback.task, playback.sheet),
            "first": shown[0],
            "turns": turns,
        }

    def _view(self, shot: Shot, number: int, sheet: Sheet | None) -> Json:
        height, width, _ = shot.image.shape
        of_source = shot.view.made is None
        return {
            "number": number,
            "picture": self._picture(shot.image, VIEW_QUALITY),
            "width": width,
            "height": height,
            "frame": shot.view.frame + 1 if of_source else None,
            "box": _rounded(sheet.box(shot.view.frame, shot.view.region)) if sheet and of_source else None,
        }

    def _task(self, task: Task, sheet: Sheet | None) -> Json | int:
        """Return the position of a task in `tasks`."""
        fields: Json = {
            "question": task.question,
            "choices": list(task.choices),
            "answers": list(task.answers),
            "kind": task.answer_kind,
            "level": task.level,
            "source": sheet and self._source(sheet),
            "cue": [],
        }
        if sheet and task.cue:
            boxes = [sheet.box(frame, task.cue.box) for frame in task.cue.frames or (0,)]
            fields["cue"] = [_rounded(box) for box in boxes if box]
        key = json.dumps(fields)
        if key not in self._known:
            self._known[key] = len(self.tasks)
            self.tasks.append(fields)
        return self._known[key]

    def _source(self, sheet: Sheet) -> Json:
        return {
            "picture": self._picture(np.asarray(sheet.picture), SHEET_QUALITY),
            "width": sheet.picture.width,
            "height": sheet.picture.height,
            "full": list(sheet.source),
            "frames": [{"number": frame + 1, "box": _rounded(sheet.box(frame))} for frame in sheet.frames],
        }

    def _picture(self, image: np.ndarray, quality: int) -> int:
        """Return the position of a picture (H, W, 3) uint8 in `pictures`."""
        key = f"{digest(image)} {quality}"
        if key not in self._known:
            buffer = io.BytesIO()
            Image.fromarray(image).save(buffer, "WEBP", quality=quality, method=4)
            self._known[key] = len(self.pictures)
            self.pictures.append(base64.b64encode(buffer.getvalue()).decode())
        return self._known[key]


def _facts(trajectory: Trajectory) -> Json:
    """What a record says of an episode as a whole; raises ValueError or TypeError for what is no trajectory."""
    return {
        "id": str(trajectory.task_id),
        "suite": str(trajectory.suite),
        "env": str(trajectory.env_id),
        "seed": trajectory.seed if trajectory.seed is None else int(trajectory.seed),
        "needs": trajectory.needs_operation if trajectory.needs_operation is None else bool(trajectory.needs_operation),
        "instructions": str(trajectory.instructions),
        "observation": str(trajectory.first_observation),
        "terminated": bool(trajectory.terminated),
        "truncated": bool(trajectory.truncated),
        "answer": None if trajectory.answer is None else str(trajectory.answer),
        "unread": bool(trajectory.parse_failure),
        "correct": bool(trajectory.correct),
        "score": _number(trajectory.score),
        "reward": _number(trajectory.episode_return),
        "operations": int(trajectory.num_operations),
        "errors": int(trajectory.num_errors),
        "coverage": _number(trajectory.cue_coverage),
        "kind": str(trajectory.kind),
        "error": None if trajectory.error is None else str(trajectory.error),
        "scored": bool(trajectory.scored),
    }


def _turn(turn: Turn) -> Json:
    return {
        "action": str(turn.action),
        "observation": str(turn.observation),
        "reward": _number(turn.reward),
        "terms": [[str(name), _number(value)] for name, value in turn.reward_terms.items()],
        "operation": None if turn.operation is None else str(turn.operation),
        "error": None if turn.operation_error is None else str(turn.operation_error),
        "malformed": bool(turn.malformed),
        "trained": bool(turn.trained),
    }


def _written(trajectory: Trajectory) -> str:
    """Whatever its fields hold, as text."""
    try:
        return repr(trajectory)
    except RecursionError:
        return "nested too deep to be shown"


def _missed(turn: Json) -> bool:
    """Whether a turn is a look that failed or was off target."""
    return turn["error"] is not None or (turn["coverage"] is not None and turn["coverage"] < OFF_TARGET)


def _number(value: float | None) -> float | None:
    """A finite number to five decimals, or None."""
    return None if value is None or not math.isfinite(value) else round(float(value), 5)


def _rounded(box: Sequence[float] | None) -> list[float] | None:
    return None if box is None else [round(side, 1) for side in box]
