"""Train a small network with PPO to zoom in and answer, and compare it with guessing.

python baselines/ppo.py                          # level 1 of search, two cores
python baselines/ppo.py --resume                 # go on with the newest run after a stop or a kill
python baselines/ppo.py --demonstrations 0       # PPO from nothing
python baselines/ppo.py --actions box --no-curiosity --seed 1
python baselines/ppo.py --suite search clip --levels 1 2 --envs 16
tensorboard --logdir runs                        # accuracy, operations and the terms of the reward
"""

import math
import shlex
import sys
import time
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import gymnasium as gym
import numpy as np
from tqdm import tqdm

from baselines.adapters import Adapter, BoxZoom, GridZoom, PyramidZoom, choice_of
from baselines.boxes import GRID
from baselines.ppo_settings import ROLLOUT, Actions, Settings, parse, save
from pixel_env import PixelReasonEnv
from pixel_env.command_line import UsageError, ending, run_folder
from pixel_env.evaluation import evaluate, paired_difference
from pixel_env.journal import replace_text
from pixel_env.policies import DirectPolicy, RandomPolicy
from pixel_env.rollout import Policy, rollout
from pixel_env.trajectory import Trajectory, load_jsonl
from pixel_env.wrappers import CuriosityReward, OperationPenalty, RecordTrajectories

if TYPE_CHECKING:  # torch takes seconds to import; a wrong argument is told at once
    from stable_baselines3 import PPO
    from stable_baselines3.common.vec_env import VecEnv

ENV_ID = "PixelReason-Mixed-v0"
RECENT = 64
"""Episodes of one environment that the rate of pixel-space reasoning is taken over."""
ZOOMS: dict[Actions, type[GridZoom | PyramidZoom | BoxZoom]] = {
    "grid": GridZoom,
    "pyramid": PyramidZoom,
    "box": BoxZoom,
}


class BudgetEnds(gym.Wrapper[Any, Any, Any, Any]):
    """Tell the end of the turns as an end.

    The budget is part of the task and is observed. PPO would take a truncated episode for one that goes on unseen, and
    pay the value of what might have followed to a policy that never answers.
    """

    def step(self, action: Any) -> tuple[Any, Any, bool, bool, dict[str, Any]]:
        """Take a turn; nothing is ever truncated."""
        observation, reward, terminated, truncated, info = self.env.step(action)
        return observation, reward, terminated or truncated, False, info


def training_env(settings: Settings) -> gym.Env[Any, Any]:
    """Return one environment to train in, with shaped rewards and numeric actions."""
    env: gym.Env[Any, str] = OperationPenalty(PixelReasonEnv(**settings.env_kwargs("train")))
    if settings.curiosity:
        env = CuriosityReward(env, group_size=RECENT, over="all")
    return BudgetEnds(adapted(env, settings))


def adapted(env: gym.Env[Any, str], settings: Settings) -> Adapter:
    """Return an environment with the actions of the settings."""
    return ZOOMS[settings.actions](env, side=settings.side)


def vectorised(settings: Settings) -> "VecEnv":
    """Return all environments of a run, stepped one after another in this process."""
    from stable_baselines3.common.vec_env import DummyVecEnv

    return DummyVecEnv([lambda: training_env(settings)] * settings.envs)


def new_model(settings: Settings, env: "VecEnv", out: Path) -> "PPO":
    """Return PPO with fresh weights: it answers as the choices fit, looks where it attends, and else does all alike."""
    import torch
    from stable_baselines3 import PPO

    from baselines.features_extractor import QuestionGuidedCNN

    model = PPO(
        "MultiInputPolicy",
        env,
        learning_rate=settings.learning_rate,
        n_steps=ROLLOUT,
        batch_size=math.gcd(ROLLOUT * settings.envs, 256),
        n_epochs=4,
        gamma=1.0,  # an episode is a few turns, and only its end is paid
        ent_coef=settings.entropy,
        policy_kwargs={
            "features_extractor_class": QuestionGuidedCNN,
            "features_extractor_kwargs": {"grid": GRID if settings.actions == "grid" else 0},
            "net_arch": {"pi": [], "vf": [64]},
            "ortho_init": False,
        },
        tensorboard_log=str(out / "tensorboard"),
        seed=run_seed(settings, 0),
    )
    # The fit of the choices, the last features, goes straight to their letters, and the attention before it to the
    # looks; all else starts from zero.
    corners, answers = 4 if settings.actions == "box" else 0, env.get_attr("answers")[0]
    extractor = model.policy.features_extractor
    with torch.no_grad():
        model.policy.action_net.bias.zero_()
        weight = model.policy.action_net.weight.zero_()
        for place, answer in enumerate(answers):
            if (choice := choice_of(answer)) >= 0:
                weight[corners + place, choice - extractor.choices] = 1.0
        for cell in range(extractor.looks):
            weight[len(answers) + cell, cell - extractor.looks - extractor.choices] = 1.0
    return model


def run_seed(settings: Settings, done: int) -> int:
    """Return a seed for what follows the first `done` turns: neighbouring seeds of runs share no tasks."""
    return int(np.random.SeedSequence([settings.seed, done]).generate_state(1)[0] >> 1)


class Run:
    """A run folder and what has been done in it. Whatever is complete is kept, so `execute` can be called again.

    PPO is that of Stable-Baselines3; ours are the adapter, the network, its warm start from demonstrations and what is
    measured. Tasks of training seldom come twice, so the rate of pixel-space reasoning that curiosity pays for is taken
    over the last episodes of an environment, whatever their task. A run that was killed goes on from its last
    checkpoint with fresh tasks: it ends like the run that nobody disturbed, but not with the same weights.
    """

    def __init__(self, settings: Settings, out: Path) -> None:
        self.settings, self.out = settings, out
        self.checkpoints = out / "checkpoints"

    def prepare(self) -> None:
        """Make the folder and write the configuration; raises UsageError where that is not possible."""
        packages = ("gymnasium", "stable-baselines3", "torch")
        facts = {"command": shlex.join(["python", *sys.argv]), "versions": {name: version(name) for name in packages}}
        try:
            self.checkpoints.mkdir(parents=True, exist_ok=True)
            if not (self.out / "config.json").exists():
                save(self.settings, self.out, facts)
        except OSError as error:
            raise UsageError(f"cannot write to {self.out}: {error.strerror}; choose another --out") from None

    def execute(self) -> None:
        """Train, play the test tasks, and write the report."""
        from stable_baselines3 import PPO

        model = self.train()
        played = {"PPO": self.evaluate(model)}
        if self.settings.demonstrations:
            played["warm start"] = self.evaluate(PPO.load(self.checkpoints / "0000000000.zip"))
        played |= self.guessed()
        text = report(played, model.seconds)
        replace_text(self.out / "report.md", text)
        print(f"{text}\nreport: {self.out / 'report.md'}")

    def train(self) -> "PPO":
        """Train from the last checkpoint on, if there is one; returns the model."""
        from stable_baselines3 import PPO

        from baselines.ppo_callback import TrainingLog

        s, env = self.settings, vectorised(self.settings)
        saved = sorted(self.checkpoints.glob("*.zip"))  # names have leading zeros
        if saved:
            model = PPO.load(saved[-1], env=env, seed=run_seed(s, int(saved[-1].stem)))
        else:
            model = new_model(s, env, self.out)
        if s.demonstrations:
            self._warm_start(model)
        log = TrainingLog(self.checkpoints, s.save_steps, s.steps)
        if model.num_timesteps < s.steps:
            model.learn(s.steps - model.num_timesteps, callback=log, tb_log_name="ppo", reset_num_timesteps=False)
            log.save()
        env.close()
        return model

    def _warm_start(self, model: "PPO") -> None:
        """Learn from the demonstrations that are left; `model.demonstrated` counts them in the checkpoint at turn 0."""
        from stable_baselines3.common.utils import configure_logger

        from baselines.cloning import clone
        from baselines.ppo_callback import save_model

        s, done = self.settings, getattr(model, "demonstrated", 0)
        if done >= s.demonstrations:
            return

        since = time.monotonic()

        def keep(demonstrated: int) -> None:
            nonlocal since
            model.demonstrated = demonstrated
            since = save_model(model, self.checkpoints, "warm start", since)

        bare = PixelReasonEnv(**s.env_kwargs("train"))
        env, rng = GridZoom(bare, side=s.side), np.random.default_rng(run_seed(s, 0))
        tasks = rng.integers(len(bare.tasks), size=s.demonstrations)
        logger = configure_logger(0, str(self.out / "tensorboard"), "cloning", reset_num_timesteps=False)
        try:
            clone(model, env, tasks.tolist(), logger, keep, np.random.default_rng(run_seed(s, done + 1)), done)
        except ValueError as error:
            raise UsageError(f"{error}; --demonstrations 0 begins without") from None
        logger.close()

    def evaluate(self, model: "PPO") -> list[Trajectory]:
        """Play the test tasks greedily, unless a model of as many turns has; kept in trajectories/TURNS.jsonl."""
        s, path = self.settings, self.out / "trajectories" / f"{model.num_timesteps:010d}.jsonl"
        if path.exists():
            return load_jsonl(path)
        path.parent.mkdir(exist_ok=True)
        part = path.with_suffix(".part")
        part.unlink(missing_ok=True)
        env = adapted(RecordTrajectories(gym.make(ENV_ID, **s.env_kwargs("test")), part), s)
        for task in tqdm(range(s.test_tasks), desc="evaluate", unit="episode"):
            observation, _ = env.reset(options={"task": task})
            over = False
            while not over:
                action, _ = model.predict(observation, deterministic=True)
                observation, _, terminated, truncated, _ = env.step(action)
                over = terminated or truncated
        env.close()
        part.replace(path)
        return load_jsonl(path)

    def guessed(self) -> dict[str, list[Trajectory]]:
        """Return what policies that see nothing make of the same tasks."""
        s = self.settings
        policies: dict[str, Policy] = {"direct": DirectPolicy(s.seed), "random": RandomPolicy(s.seed)}
        indices = range(s.test_tasks)
        return {
            name: rollout(policy, ENV_ID, indices, progress=False, **s.env_kwargs("test"))
            for name, policy in policies.items()
        }


def report(played: dict[str, list[Trajectory]], seconds: dict[str, float]) -> str:
    """Return a table of all policies, in percent, what the first is better by than each other one, and its times."""
    lines = ["| policy | score | RaPR | operations an episode |", "|---|---|---|---|"]
    for name, trajectories in played.items():
        figures = evaluate(trajectories).overall
        lines.append(f"| {name} | {figures.score} | {figures.rapr} | {figures.mean_operations:.2f} |")
    first, *others = played
    lines.append("")
    for other in others:
        mean, low, high = (100 * value for value in paired_difference(played[first], played[other]))
        lines.append(f"{first} - {other}: {mean:+.1f} [{low:.1f}, {high:.1f}] points on the same tasks")
    lines += ["", "trained for " + ", ".join(f"{spent / 60:.1f} minutes ({stage})" for stage, spent in seconds.items())]
    return "\n".join(lines) + "\n"


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit code."""
    with ending("ppo.py") as end:
        argv = sys.argv[1:] if argv is None else argv
        settings, out, resumed = parse(argv, __doc__ or "")
        end.go_on = f"continue with --resume --out {out}"
        run = Run(settings, out)
        with run_folder(out):
            run.prepare()
            print(f"{'continuing' if resumed else 'starting'} {out}", flush=True)
            run.execute()
    return end.code


if __name__ == "__main__":
    sys.exit(main())
