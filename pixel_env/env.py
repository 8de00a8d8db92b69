"""The environment: reset, step and render. Every decision is taken in the modules it calls."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium.error import ResetNeeded
from gymnasium.spaces import Dict

from pixel_env import prompts
from pixel_env.actions import Action, Answer, CropImage, CustomCall, Malformed, SelectFrames
from pixel_env.counterfactual import COUNTERFACTUALS, Counterfactual, picture, shown_by_operations
from pixel_env.custom_operations import Operation, perform
from pixel_env.grading import Grade
from pixel_env.media import Source
from pixel_env.operations import OperationResult, View
from pixel_env.protocols import PROTOCOLS
from pixel_env.render import Window, canvas, check_render_mode, window_possible
from pixel_env.rewards import ALPHA, BETA, LIMIT, THRESHOLD, Variant, correctness
from pixel_env.scorers import Scorer, check_scorer, grade_episode
from pixel_env.settings import PRESETS, RewardSettings, ViewSettings, one_of
from pixel_env.spaces import AnyText, action_space, image_space
from pixel_env.tasks import DEFAULT_LEVELS, MEDIA, SUITES, FileTasks, ProceduralTasks, Task, TaskSet, tasks_from_spec

Observation = dict[str, Any]
"""``{"text": str, "images": tuple of (H, W, 3) uint8}``: what is new this turn."""


@dataclass
class _Episode:
    """What happened since reset."""

    task: Task
    looked_at: Source | None
    shown: list[View]
    num_first: int
    num_latest: int
    actions: list[str] = field(default_factory=list)
    num_operations: int = 0
    num_errors: int = 0
    grade: Grade | None = None
    answer: str | None = None
    over: bool = False


@dataclass(frozen=True)
class _Outcome:
    """What one turn did, for ``info``."""

    operation: str | None = None
    error: str | None = None
    malformed: bool = False
    clamped: bool = False
    views: tuple[View, ...] = field(default_factory=tuple)


_NAMES = {CropImage: "crop_image", SelectFrames: "select_frames"}


class PixelReasonEnv(gym.Env[Observation, str]):
    r"""Answer a question about an image or a video, looking closer where that helps.

    ## Description
    A question is asked about a picture that is shown too small to answer it. In every turn the policy zooms in on a box
    of an image (`crop_image`), asks to see frames of a video larger (`select_frames`), or answers. Crops are always cut
    from the full-resolution source, also the crop of a crop. After Pixel Reasoner (arXiv 2505.15966). Differs from its
    release: crops there come from the shrunken picture, and videos are one video item; here a video is numbered frames
    with times, because trainers cannot carry videos.

    The suites are generated, a task being a function of seed and index; about a quarter needs no operation:

    * `search`, after V*: the character on a tiny object, or where it lies, in a large scene; scored by accuracy.
    * `count`, after TallyQA-complex: how many small things satisfy a condition; accuracy.
    * `read`, after InfographicVQA: a short string in a named panel of a page; ANLS.
    * `clip`, after MVBench: which, when, how many, in what order, of brief events in a video of 16 frames; accuracy.

    ## Action Space
    Text of any length and alphabet: reasoning with one call, or an answer. Calls are JSON, or a short form:

    * `<tool_call>{"name": "crop_image", "arguments": {"bbox_2d": [x1, y1, x2, y2], "target_image": 1}}</tool_call>`,
      `crop_image([x1, y1, x2, y2], 1)`;
    * `<tool_call>{"name": "select_frames", "arguments": {"target_frames": [2, 3]}}</tool_call>`,
      `select_frames([2, 3])`;
    * a call, in JSON, of an `Operation` that the environment was made with;
    * `\boxed{answer}` or `<answer>answer</answer>` ends the episode.

    Boxes are x1, y1, x2, y2, half-open, in the unit of `coordinates`. Images count from 1 in the order shown.
    Everything else a policy may write costs a turn and is answered with what was wrong and what is allowed;
    `step` raises for no string, unless a file cannot be decoded or the function of an `Operation` has a bug.

    ## Observation Space
    `{"text": str, "images": tuple of (H, W, 3) uint8}`, what is new this turn. The i-th `<image>` in the text is where
    the i-th image stands. Sides are multiples of `factor`. `info["instructions"]` of `reset` is the system text.

    ## Rewards
    r is 1 for a correct answer, else 0. The registered ids add two wrappers, so that the rewards of an episode sum to

        r' = r + alpha * max(H - RaPR, 0) * 1_PR + beta * min(N - n_vo, 0)

    RaPR is the share of the last 8 episodes of the same task that used an operation with success, this one included
    (`CuriosityReward`); 1_PR says whether this one did; n_vo counts its operations, failed ones too
    (`OperationPenalty`). H is `threshold`, N is `limit`. `info["reward_terms"]` holds each term. Source: arXiv
    2505.15966, section 4.

    ## Episode End
    An answer terminates; the turn number `max_turns` without an answer truncates; never both.

    ## Info
    `task_id`, `suite`, `correct` and `score` (None before the end, and of a task without answers), `answer`,
    `parse_failure`,
    `operation` (name or None), `operation_error` (code or None), `clamped` (a box was cut to the image),
    `num_operations` and `num_errors` (calls so far, and those that failed), `malformed`, `rapr` (set by
    `CuriosityReward`), `reward_terms`, `views` (this turn's, a list of `View`); `instructions` at reset.

    ## Arguments
    `reset(options={"task": index_or_id})` picks a task; else one is drawn. Those of `gymnasium.make` are the
    constructor's, see `__init__`.

    ## Version History
    * v0: first version; may change until 0.1.0 is tagged.
    """

    metadata: dict[str, Any] = {"render_modes": ["human", "rgb_array"], "render_fps": 1}  # noqa: RUF012

    def __init__(
        self,
        tasks: TaskSet | str | None = None,
        suite: str | Sequence[str] = tuple(SUITES),
        split: str = "train",
        difficulty: int | Sequence[int] = DEFAULT_LEVELS,
        preset: str = "standard",
        max_turns: int = 5,
        view_pixels: int | None = None,
        crop_pixels: int | None = None,
        factor: int = 28,
        num_frames: int = 16,
        max_selected_frames: int = 8,
        coordinates: str = "pixel",
        crop_padding: float = 0.0,
        alpha: float = ALPHA,
        beta: float = BETA,
        threshold: float = THRESHOLD,
        limit: int = LIMIT,
        reward_variant: Variant = "paper",
        scorer: Scorer = "strict",
        counterfactual: Counterfactual = "none",
        operations: Sequence[str | Operation] = prompts.OPERATIONS,
        protocol: str = "native",
        render_mode: str | None = None,
    ) -> None:
        """Make an environment.

        Args:
            tasks: A task set, or ``"NAME:PATH"`` of one on disk (see `pixel_env.tasks.load_tasks`); by default
                procedural tasks of the four arguments that follow. `suite` says which media it may have: images,
                videos for ``"clip"``. Of a set on disk that has both, the others are left out.
            suite: One or several of ``"search"``, ``"count"``, ``"read"``, ``"clip"``.
            split: ``"train"`` or ``"test"``.
            difficulty: Level 0, 1, 2 or 3, or several; at level 0 the first view is always enough.
            preset: ``"standard"`` or ``"micro"``: size of procedural sources, and the default pixel budgets.
            max_turns: Turns in an episode.
            view_pixels: Budget of the first view: of an image, or of all first frames of a video together.
            crop_pixels: Budget of each crop and of each selected frame.
            factor: Sides of every picture are multiples of this: 28 for Qwen2.5-VL, 32 for Qwen3-VL.
            num_frames: Most frames of a video shown at first.
            max_selected_frames: Most frames in one call.
            coordinates: ``"pixel"`` of the numbered image as shown, ``"fraction"`` or ``"thousandth"`` of it.
            crop_padding: Margin added on every side of a box, in fractions of the image shown; 0.1 is the release's.
            alpha: Weight of the curiosity bonus.
            beta: Price of an operation beyond `limit`.
            threshold: H, the wanted rate of pixel-space reasoning.
            limit: N, operations that are free.
            reward_variant: ``"paper"`` or ``"released"``.
            scorer: ``"strict"``, or ``"pixelreasoner_compat"`` for the verdicts of the released scorer.
            counterfactual: What operations show: ``"none"``, what was asked for; ``"blank"``, grey; ``"other_task"``,
                the same part of another task's media. All else stays as it is; `render` shows what was asked for.
            operations: The operations on offer: names, and each `Operation` of one's own, which the prompt lists last.
                A call of another one is an error; without any, the prompt says nothing of functions: a model without
                tools.
            protocol: ``"native"``, or ``"pixelreasoner"`` for the prompts, names and rules of the release (see
                `pixel_env.released_protocol`), which measure its checkpoints. `coordinates` is then without effect.
            render_mode: None, ``"rgb_array"`` or ``"human"`` (a window; needs a display).

        Raises:
            TypeError, ValueError: An argument of the wrong type or value.
            ImportError: ``scorer="pixelreasoner_compat"`` without math-verify.
            RuntimeError: ``render_mode="human"`` where no window can open.
        """
        one_of("preset", preset, tuple(PRESETS))
        procedural = _procedural(suite, split, difficulty, preset)
        self.media = {MEDIA[name] for name in procedural.suites}
        self.tasks = procedural if tasks is None else _checked(tasks, self.media)
        self.view_settings = ViewSettings(
            view_pixels=PRESETS[preset][0] if view_pixels is None else view_pixels,
            crop_pixels=PRESETS[preset][1] if crop_pixels is None else crop_pixels,
            factor=factor,
            num_frames=num_frames,
            max_selected_frames=max_selected_frames,
            coordinates=coordinates,
            crop_padding=crop_padding,
            max_turns=max_turns,
        )
        self.reward_settings = RewardSettings(alpha, beta, threshold, limit, reward_variant)
        check_scorer(scorer)
        one_of("counterfactual", counterfactual, COUNTERFACTUALS)
        self.scorer, self.counterfactual = scorer, counterfactual
        self.operations, self.custom_operations = _offered(operations)
        self._schemas = [operation.schema for operation in self.custom_operations.values()]
        if self.custom_operations and counterfactual == "other_task":
            raise ValueError(
                "expected counterfactual 'none' or 'blank' with operations of one's own, got 'other_task': what "
                f"{', '.join(self.custom_operations)} would make of another picture may differ in size and number"
            )
        one_of("protocol", protocol, tuple(PROTOCOLS))
        if protocol != "native" and self.operations not in ((), prompts.OPERATIONS):
            raise ValueError(f"expected both operations or none in protocol {protocol!r}, got {list(self.operations)}")
        self.protocol = PROTOCOLS[protocol]
        self.instructions = self.protocol.instructions(coordinates, self.operations, self._schemas)
        self.observation_space = Dict({"images": image_space(self.view_settings), "text": AnyText()})
        self.action_space = action_space(self.view_settings, self._schemas)
        self._episode: _Episode | None = None
        # Gymnasium's checks try every mode that an instance declares: those that work on this machine.
        modes = self.metadata["render_modes"] if window_possible() else ["rgb_array"]
        check_render_mode(render_mode, modes)
        self.metadata = self.metadata | {"render_modes": modes}
        self.render_mode = render_mode
        self._window: Window | None = None

    @property
    def task(self) -> Task:
        """The task of the current episode. It holds the answer: not for policies."""
        return self._current().task

    @property
    def shown(self) -> tuple[View, ...]:
        """Every view shown since reset, in the order of their numbers."""
        return tuple(self._current().shown)

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Observation, dict[str, Any]]:
        """Begin an episode with a drawn task, or with ``options={"task": index_or_id}``."""
        super().reset(seed=seed)
        task = self.tasks[self._task_index(options or {})]
        if task.media.kind not in self.media:
            raise ValueError(
                f"expected a task about {' or '.join(sorted(self.media))}, got {task.task_id!r} about "
                f"{task.media.kind}; PixelReason-Mixed-v0 takes both"
            )
        views = self.protocol.first_views(task.media, self.view_settings)
        looked_at = shown_by_operations(task, self.tasks, self.counterfactual)
        self._episode = _Episode(task, looked_at, list(views), num_first=len(views), num_latest=len(views))
        text = self.protocol.first_text(task, views, self.view_settings.max_turns, self.operations)
        observation = self._observation(text, views, task.media)
        if self.render_mode == "human":
            self._show()
        return observation, self._info(_Outcome(views=views), {}) | {"instructions": self.instructions}

    def step(self, action: str) -> tuple[Observation, float, bool, bool, dict[str, Any]]:
        """Take a turn.

        Raises:
            TypeError: ``action`` is not a ``str``; no content of it raises.
            MediaError: A file cannot be decoded.
            OperationError: The function of an `Operation` has a bug.
        """
        if not isinstance(action, str):
            raise TypeError(f"expected the action as a str, got {type(action).__name__}; write calls as text")
        episode = self._current()
        if episode.over:
            raise ResetNeeded("expected reset after the end of an episode, got step")
        episode.actions.append(action)
        parsed = self.protocol.read_turn(action, self._schemas)
        text, outcome = self._answered(parsed) if isinstance(parsed, Answer) else self._operated(parsed)
        terminated = isinstance(parsed, Answer)
        truncated = not terminated and len(episode.actions) >= self.view_settings.max_turns
        episode.over = terminated or truncated
        if episode.over:
            episode.grade = grade_episode(self.scorer, episode.task, episode.answer, episode.actions)
        reward = correctness(episode.grade is not None and episode.grade.correct)
        if self.render_mode == "human":
            self._show()
        info = self._info(outcome, {"correctness": reward})
        observation = self._observation(text, outcome.views, episode.looked_at)
        return observation, reward, terminated, truncated, info

    def render(self) -> np.ndarray | None:
        """Return the canvas (544, 960, 3) uint8 in mode ``"rgb_array"``; a window is kept up to date by itself."""
        if self.render_mode == "rgb_array":
            return self._canvas()
        return None

    def close(self) -> None:
        """Close the window, if there is one."""
        if self._window is not None:
            self._window.close()
            self._window = None

    def _answered(self, answer: Answer) -> tuple[str, _Outcome]:
        self._current().answer = answer.text
        return prompts.ANSWER_RECEIVED, _Outcome()

    def _operated(self, action: CropImage | SelectFrames | CustomCall | Malformed) -> tuple[str, _Outcome]:
        """Perform a call, or say why there is none; returns the text of the observation and what was done."""
        episode = self._current()
        name, called, result = self._perform(action)
        episode.num_operations += called
        episode.num_errors += called and result.error is not None
        if result.views:
            episode.shown += result.views
            episode.num_latest = len(result.views)
            text = result.text
        else:
            text = self.protocol.error_text(result.text, self.view_settings.max_turns - len(episode.actions))
        return text, _Outcome(name, result.error, isinstance(action, Malformed), result.clamped, result.views)

    def _perform(self, action: Action) -> tuple[str | None, bool, OperationResult]:
        """Return the name of the operation, whether it was called, and its result."""
        episode = self._current()
        match action:
            case CropImage() | SelectFrames() if (name := _NAMES[type(action)]) not in self.operations:
                text = prompts.not_offered(name, self.operations)
                return name, True, OperationResult((), "not_offered", text)
            case CropImage():
                result = self.protocol.crop_image(action, episode.shown, episode.task.media, self.view_settings)
                return "crop_image", True, result
            case SelectFrames():
                result = self.protocol.select_frames(action, episode.shown, episode.task.media, self.view_settings)
                return "select_frames", True, result
            case CustomCall(name):
                operation = self.custom_operations[name]
                return name, True, perform(operation, action, episode.shown, episode.task.media, self.view_settings)
            case Malformed(_, attempted_call) if not self.operations:
                code, reason = ("not_offered", prompts.not_offered(None, ())) if attempted_call else (None, "")
                return None, attempted_call, OperationResult((), code, reason or prompts.no_answer())
            case Malformed(reason, attempted_call):
                code = "malformed_call" if attempted_call else None
                return None, attempted_call, OperationResult((), code, reason)
        raise AssertionError(f"an answer is no operation: {action}")

    def _observation(self, text: str, views: Sequence[View], source: Source | None) -> Observation:
        asked = self._current().task.media
        return {"images": tuple(picture(source, shot, asked) for shot in views), "text": text}

    def _info(self, outcome: _Outcome, reward_terms: dict[str, float]) -> dict[str, Any]:
        episode = self._current()
        verdict = episode.grade or Grade(correct=False, score=0.0, parse_failure=False)
        scored = episode.over and bool(episode.task.answers)
        return {
            "task_id": episode.task.task_id,
            "suite": episode.task.suite,
            "correct": verdict.correct if scored else None,
            "score": verdict.score if scored else None,
            "answer": episode.answer,
            "parse_failure": verdict.parse_failure,
            "operation": outcome.operation,
            "operation_error": outcome.error,
            "clamped": outcome.clamped,
            "num_operations": episode.num_operations,
            "num_errors": episode.num_errors,
            "malformed": outcome.malformed,
            "rapr": None,
            "reward_terms": reward_terms,
            "views": list(outcome.views),
        }

    def _current(self) -> _Episode:
        if self._episode is None:
            raise ResetNeeded("expected reset before anything else")
        return self._episode

    def _task_index(self, options: dict[str, Any]) -> int:
        if unknown := options.keys() - {"task"}:
            raise ValueError(f"expected no reset option but 'task', got {sorted(unknown)}")
        choice = options.get("task")
        if choice is None:
            return int(self.np_random.integers(len(self.tasks)))
        if isinstance(choice, str):
            return self.tasks.index(choice)
        if not isinstance(choice, int | np.integer) or isinstance(choice, bool):
            raise TypeError(f"expected the option 'task' as an index or an id, got {choice!r}")
        if not 0 <= choice < len(self.tasks):
            raise ValueError(f"expected a task index from 0 to {len(self.tasks) - 1}, got {choice}")
        return int(choice)

    def _canvas(self) -> np.ndarray:
        episode = self._current()
        task = episode.task
        return canvas(task.media, episode.shown, episode.num_first, episode.num_latest, task.question)

    def _show(self) -> None:
        if self._window is None:
            self._window = Window(type(self).__name__)
        self._window.show(self._canvas())


def _procedural(
    suite: str | Sequence[str], split: str, difficulty: int | Sequence[int], preset: str
) -> ProceduralTasks:
    suites = (suite,) if isinstance(suite, str) else tuple(suite)
    levels = tuple(difficulty) if isinstance(difficulty, Sequence) else difficulty
    return ProceduralTasks(suites, split=split, difficulty=levels, preset=preset)


def _offered(operations: Sequence[str | Operation]) -> tuple[tuple[str, ...], dict[str, Operation]]:
    """Return the names on offer in the order in which the prompt lists them, and by name those of one's own."""
    if isinstance(operations, str) or not isinstance(operations, Sequence):
        raise TypeError(f"expected operations as a list of names, got {operations!r}; write [{str(operations)!r}]")
    custom = [operation for operation in operations if isinstance(operation, Operation)]
    names = [operation for operation in operations if not isinstance(operation, Operation)]
    if unknown := [name for name in names if name not in prompts.OPERATIONS]:
        raise ValueError(
            f"expected each of operations to be one of {', '.join(map(repr, prompts.OPERATIONS))} or an Operation, got "
            f"{unknown[0]!r}; a trajectory holds only the name of an Operation: to play it, give the Operation itself"
        )
    by_name = {operation.name: operation for operation in custom}
    if len(by_name) < len(custom) or not by_name.keys().isdisjoint(prompts.OPERATIONS):
        raise ValueError(f"expected operations of different names, got {[operation.name for operation in custom]}")
    return (*(name for name in prompts.OPERATIONS if name in names), *by_name), by_name


def _checked(tasks: TaskSet | str, media: set[str]) -> TaskSet:
    if isinstance(tasks, str):
        tasks = tasks_from_spec(tasks)
    if isinstance(tasks, FileTasks) and len(media) == 1:
        (kind,) = media
        tasks = tasks.only(kind)
    if not all(callable(getattr(tasks, name, None)) for name in ("__len__", "__getitem__", "index")):
        raise TypeError(f"expected tasks with a length, indexing and index(task_id), got {type(tasks).__name__}")
    if len(tasks) == 0:
        raise ValueError("expected tasks to hold at least one task, got none")
    return tasks
