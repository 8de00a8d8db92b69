"""Write the golden trajectories: python tests/golden/make.py

`tests/test_golden.py` replays them: a text, a pixel, a flag or a reward that differs is a change of behaviour. Run this
only when the change is meant, and say why in the commit; once 0.1.0 is tagged it also needs a new version of the ids.
"""

from pathlib import Path

import gymnasium as gym

import pixel_env  # noqa: F401  (registers the ids)
from pixel_env.policies import OraclePolicy, RandomPolicy
from pixel_env.registration import ENVIRONMENTS
from pixel_env.rollout import Episode, rollout
from pixel_env.tasks import ProceduralTasks
from pixel_env.trajectory import Trajectory, save_jsonl

FOLDER = Path(__file__).parent
TASKS = range(8)

CALL = '<tool_call>{"name": "%s", "arguments": %s}</tool_call>'
MALFORMED = [
    "I do not know.",  # neither a call nor an answer
    "<tool_call>",  # unclosed
    CALL % ("crop_image", "{"),  # bad JSON
    CALL % ("crop_image", "[" * 4000),  # nested
    CALL % ("crop_image", "1" * 5000),  # huge
    CALL % ("zoom", "{}"),  # unknown name
    CALL % ("crop_image", '{"bbox_2d": [1, 2, 3, 4]}'),  # a missing argument
    CALL % ("crop_image", '{"bbox_2d": [1, 2, 3], "target_image": 1}'),  # three numbers
    CALL % ("crop_image", '{"bbox_2d": [1, 2, 3, 4], "target_image": 1.5}'),  # half an image
    CALL % ("select_frames", '{"target_frames": "2"}'),  # a string
    "crop_image([1, 1, 9, 9]) crop_image([1, 1, 9, 9])",  # two calls
    "<image><|image_pad|><|im_end|> <tool_call><image></tool_call>",  # markers and special tokens
]
ON_AN_IMAGE = [
    "crop_image([60, 60, 20, 20])",  # inverted
    "crop_image([20, 20, 20, 60])",  # empty
    "crop_image([NaN, 20, 60, 60])",  # not finite
    "crop_image([1e999, 20, 60, 60])",  # not finite
    "crop_image([500, 500, 600, 600])",  # outside
    "crop_image([20, 20, 20.01, 20.01])",  # below a pixel of the source
    "crop_image([20, 20, 60, 60], 0)",  # image 0
    "crop_image([20, 20, 60, 60], 9)",  # an image not shown yet
    "select_frames([1])",  # not a video
    "crop_image([-20, 20, 60, 60])",  # cut to the image
    "crop_image([28, 28, 84, 84], 2)",  # a crop of the crop
]
ON_A_VIDEO = [
    "select_frames([])",  # none
    "select_frames([0])",  # frame 0
    "select_frames([17])",  # beyond the last
    "select_frames([2, 2])",  # twice
    "select_frames([1, 2, 3, 4, 5, 6, 7, 8, 9])",  # more than 8
    "select_frames([3, 1])",  # in the order asked for
    "crop_image([5, 5, 50, 50], 17)",  # a crop of a selected frame
    "crop_image([5, 5, 50, 50], 4)",  # a crop of a first frame
]


def mistakes() -> list[Trajectory]:
    """Play every kind of mistake, on an image and on a video, each followed by an answer that cannot be read."""
    played = []
    for suite, turns in (("count", [*MALFORMED, *ON_AN_IMAGE]), ("clip", ON_A_VIDEO)):
        env = gym.make("PixelReason-Mixed-v0", preset="micro", suite=suite, max_turns=len(turns) + 1)
        episode = Episode(env)
        episode.reset(0, seed=0)
        for turn in [*turns, r"\boxed{?}"]:
            episode.step(turn)
        played.append(episode.trajectory())
    return played


def main() -> None:
    """Write all files."""
    for env_id, kwargs in ENVIRONMENTS.items():
        oracle = OraclePolicy(ProceduralTasks(tuple(kwargs["suite"]), preset="micro"))
        for name, policy in (("random", RandomPolicy(seed=0)), ("oracle", oracle)):
            save_jsonl(
                FOLDER / f"{env_id}-{name}.jsonl", rollout(policy, env_id, TASKS, preset="micro", progress=False)
            )
    save_jsonl(FOLDER / "mistakes.jsonl", mistakes())


if __name__ == "__main__":
    main()
