"""A warm start: the network imitates somebody who knows the tasks, before PPO goes on from there.

A reward of one bit at the end of an episode teaches nobody to read. A demonstration says more than what to do: where in
the view the evidence is, which is what `QuestionGuidedCNN` points at, and which choice is right, which is learned
against every choice of the batch and not only against the other three. Trials with and without are in row 111 of
benchmarks/results/experiments.md.
"""

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from stable_baselines3 import PPO
from stable_baselines3.common.logger import Logger
from stable_baselines3.common.preprocessing import preprocess_obs
from torch.nn import functional as F
from tqdm import tqdm

from baselines.adapters import Arrays, GridZoom, choice_of
from pixel_env import PixelReasonEnv
from pixel_env.policies import gold

CHUNK = 512
"""Tasks that are played before the network learns from them."""
PASSES = 4
"""Chunks that are kept to learn from: each demonstration is learned from at most so often, the last ones less."""
BATCH = 32
LEARNING_RATE = 1e-3


@dataclass(frozen=True)
class Demonstrations:
    """Turns of an expert.

    Attributes:
        observations: Arrays (N, ...) of an adapter.
        actions: (N,) int64.
        points: (N, 2) float32, where in the view the evidence is: x, y from 0 to 1.
    """

    observations: Arrays
    actions: NDArray[np.int64]
    points: NDArray[np.float32]

    def __len__(self) -> int:
        return len(self.actions)


def demonstrate(env: GridZoom, tasks: Iterable[int]) -> Demonstrations:
    """Look at the evidence where the first view is not enough, then give the right answer.

    Args:
        env: Of tasks about images; those whose answer it cannot give are left out.
        tasks: Indices.

    Raises:
        ValueError: A task does not say where its evidence is.
    """
    bare = env.unwrapped
    assert isinstance(bare, PixelReasonEnv), "an adapter checks it"
    turns: list[tuple[Arrays, int, tuple[float, float]]] = []
    for index in tasks:
        observation, _ = env.reset(options={"task": index})
        task = bare.task
        if task.cue is None or task.cue.box is None:
            raise ValueError(f"expected tasks that say where their evidence is, got {task.task_id}")
        if gold(task) not in env.answers:
            continue
        (x1, y1, x2, y2), (width, height) = task.cue.box, (task.media.width, task.media.height)
        x, y = (x1 + x2) / 2 / width, (y1 + y2) / 2 / height
        if task.needs_operation:
            look = env.look_at(x, y)
            turns.append((observation, look, (x, y)))
            observation, *_ = env.step(look)
        left, top, right, bottom, _ = observation["position"]
        point = (x - left) / (right - left), (y - top) / (bottom - top)
        turns.append((observation, env.answers.index(gold(task)), point))
    return Demonstrations(
        {name: np.stack([turn[0][name] for turn in turns]) for name in (turns[0][0] if turns else ())},
        np.array([turn[1] for turn in turns], np.int64),
        np.array([turn[2] for turn in turns], np.float32).reshape(-1, 2).clip(0, 1),
    )


def clone(
    model: PPO,
    env: GridZoom,
    tasks: Sequence[int],
    logger: Logger,
    save: Callable[[int], None],
    rng: np.random.Generator,
    done: int = 0,
) -> None:
    """Let the network of a model learn from demonstrations.

    Args:
        model: Its weights change, its optimiser does not.
        env: Where the expert plays.
        tasks: Indices of the tasks to demonstrate.
        logger: Takes ``cloning/loss``, ``cloning/action`` and ``cloning/place``, the shares of turns whose action and
            place were right, a row for each chunk.
        save: Called after each chunk with the number of tasks learned from.
        rng: Gives the order of the turns.
        done: How many of the tasks have been learned from; they are left out.

    Raises:
        ValueError: The first chunk has no task whose answer the environment can give.
    """
    optimizer = torch.optim.Adam(model.policy.parameters(), LEARNING_RATE)
    letters = torch.tensor(
        [choice_of(answer) for answer in env.answers] + [-1] * (len(env.meanings) - len(env.answers))
    )
    recent: deque[Demonstrations] = deque(maxlen=PASSES)
    with tqdm(total=len(tasks), initial=done, desc="warm start", unit="task") as bar:
        for start in range(done, len(tasks), CHUNK):
            some = tasks[start : start + CHUNK]
            if shown := demonstrate(env, some):
                recent.append(shown)
            elif not start:
                raise ValueError(f"expected tasks whose answers the environment can give, got none in {len(some)}")
            for group in optimizer.param_groups:  # down to a tenth
                group["lr"] = LEARNING_RATE * (1 - 0.9 * start / len(tasks))
            figures = np.mean([_learn(model, optimizer, batch, letters) for batch in batches(recent, rng)], 0)
            for name, value in zip(("loss", "action", "place"), figures, strict=True):
                logger.record(f"cloning/{name}", float(value))
            logger.dump(start + len(some))
            save(start + len(some))
            bar.update(len(some))
            bar.set_postfix(action=f"{figures[1]:.2f}", place=f"{figures[2]:.2f}")


def batches(chunks: Iterable[Demonstrations], rng: np.random.Generator) -> Iterator[Demonstrations]:
    """Yield the turns of all chunks in random order."""
    turns = [(some, turn) for some in chunks for turn in range(len(some))]
    order = rng.permutation(len(turns))
    for start in range(0, len(turns), BATCH):
        batch = [turns[k] for k in order[start : start + BATCH]]
        yield Demonstrations(
            {
                name: np.stack([some.observations[name][turn] for some, turn in batch])
                for name in batch[0][0].observations
            },
            np.array([some.actions[turn] for some, turn in batch]),
            np.stack([some.points[turn] for some, turn in batch]),
        )


def _learn(
    model: PPO, optimizer: torch.optim.Optimizer, batch: Demonstrations, letters: torch.Tensor
) -> tuple[float, float, float]:
    """Take a step; returns the loss, and the shares of actions and places that were right before it."""
    policy, extractor = model.policy, model.policy.features_extractor
    observations = preprocess_obs(policy.obs_to_tensor(batch.observations)[0], policy.observation_space)
    actions, points = torch.as_tensor(batch.actions), torch.as_tensor(batch.points)
    seen = extractor.see(observations)
    logits = policy.action_net(extractor.features(seen, observations))
    rows, columns = seen.pointed.shape[1:]
    x, y = ((points[:, axis] * side).long().clamp(max=side - 1) for axis, side in ((0, columns), (1, rows)))
    pointed, cell = seen.pointed.flatten(1), y * columns + x
    loss = F.cross_entropy(logits, actions) + F.cross_entropy(pointed, cell)
    lettered = letters[actions] >= 0
    if lettered.any():
        told = observations["choices"][lettered].reshape(int(lettered.sum()), extractor.choices, -1)
        different, which = told.flatten(0, 1).unique(dim=0, return_inverse=True)
        right = which.reshape(told.shape[:2]).gather(1, letters[actions[lettered], None]).squeeze(1)
        fits = seen.found[lettered] @ extractor.told(different).T
        loss = loss + F.cross_entropy(fits, right, reduction="sum") / len(actions)
    optimizer.zero_grad()
    loss.backward()
    torch.nn.utils.clip_grad_norm_(policy.parameters(), 1.0)
    optimizer.step()
    action, place = (
        float((guess.argmax(1) == told).float().mean()) for guess, told in ((logits, actions), (pointed, cell))
    )
    return float(loss.detach()), action, place
