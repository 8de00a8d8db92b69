"""Trajectories as message lists: the reader of the release's data gives them back."""

import json
import math
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from scripted_teacher import seeds, video

from agents.demonstrations import demonstrate
from agents.expert import Expert, Remarks
from agents.message_files import write_message_lists
from agents.sft_data import recorded
from pixel_env.rollout import rollout
from pixel_env.trajectory import Trajectory

KINDS = ("single", "recrop_once", "recrop_twice", "zoom_further", "textual")
VIDEO_KINDS = ("single", "reselect", "textual")


def made(root: Path, **settings: Any) -> list[Trajectory]:
    """Demonstrations of every kind, about an image with options, one without, and a video."""
    clip = {"image": None, "boxes": None, "frames": video(root, "clip", 1), "window": [1.0, 1.5]}
    sign = {"question": "What?\nReally?", "choices": ["exit", "stop"]}
    tasks = seeds(root, [{"question": "How many?", "answer": 3}, sign, {"question": "When?", **clip}])
    env, rng, told = gym.make("PixelReason-Mixed-v0", tasks=tasks, **settings), np.random.default_rng(0), []
    for index in range(3):
        env.reset(options={"task": index})
        remarks = Remarks(
            "the sign", "A street.", "It is clear now.", Expert(env, rng, loosest=math.inf).point("right")
        )
        told += [demonstrate(index, env, rng, kind, remarks) for kind in (VIDEO_KINDS if index == 2 else KINDS)]
    return told


@pytest.mark.parametrize(
    "settings",
    [
        {"preset": "micro"},
        {"preset": "micro", "crop_padding": 0.1},
        {"preset": "micro", "coordinates": "fraction"},
        {"preset": "micro", "coordinates": "thousandth"},
        {"view_pixels": 150 * 784, "crop_pixels": 150 * 784},
    ],
    ids=["micro", "padded", "fraction", "thousandth", "larger"],
)
def test_the_reader_gives_them_back(tmp_path: Path, settings: dict[str, Any]) -> None:
    written = made(tmp_path, **settings)
    path = write_message_lists(written, tmp_path / "lists")
    env = gym.make("PixelReason-Mixed-v0", tasks=f"pixelreasoner-sft:{path}", **settings)
    read = recorded(env, progress=False)
    assert [t.error for t in read] == [None] * len(written)
    for old, new in zip(written, read, strict=True):
        assert (new.kind, new.correct, new.num_errors) == (old.kind, True, 0)
        assert [(t.action, t.trained) for t in new.turns] == [(t.action, t.trained) for t in old.turns]
        assert new.first_digests == old.first_digests  # the pictures are those of the source, every pixel
        assert [t.image_digests for t in new.turns] == [t.image_digests for t in old.turns]


def test_records_are_as_the_release_has_them(tmp_path: Path) -> None:
    path = write_message_lists(made(tmp_path, preset="micro"), tmp_path / "lists")
    records = json.loads(path.read_text())
    assert [list(record) for record in records] == [["message_list"]] * 13
    once = records[1]["message_list"]
    assert [message["role"] for message in once] == ["system", "user", *["assistant", "user"] * 2, "assistant"]
    assert [list(item) for message in once[:4] for item in message["content"]] == [
        ["text"], ["image"], ["text"], ["text"], ["image"], ["text"],
    ]  # fmt: skip
    assert '"name": "crop_image_normalized"' in once[2]["content"][0]["text"]
    assert once[3]["content"][1]["text"].startswith("\nHere is the cropped image (Image Size: ")
    reselect = records[-2]["message_list"]
    assert len(reselect[1]["content"][0]["video"]) == 8
    assert "(Frame Size: 112x112, Numbered " in reselect[3]["content"][-1]["text"]
    names = [item[key] for r in records for m in r["message_list"] for item in m["content"] for key in item]
    files = [name for listed in names for name in (listed if isinstance(listed, list) else [listed])]
    media = [name for name in files if name.startswith(("images/", "videos/"))]
    assert media and all((tmp_path / "lists" / name).is_file() for name in media)
    for record in records:
        for message in record["message_list"]:
            assert "<image>" not in message["content"][-1]["text"]


def test_a_crop_of_a_video_cannot_be_written(tmp_path: Path) -> None:
    class Crops:
        def act(self, conversations: Any) -> list[str]:
            return [r"\boxed{x}" if c.actions else "crop_image([0, 0, 20, 20], 2)" for c in conversations]

    played = rollout(Crops(), "PixelReason-Frames-v0", [0], preset="micro", progress=False)
    with pytest.raises(ValueError, match="expected crops of images only"):
        write_message_lists(played, tmp_path)
