"""Published sets of questions about videos, as their files lie on disk: MVBench and STAR."""

import re
from pathlib import Path

from pixel_env.decoding import mvbench_frames
from pixel_env.media import Source
from pixel_env.tasks.paths import find_tables, require_folder
from pixel_env.tasks.questions import option_of
from pixel_env.tasks.records import json_table
from pixel_env.tasks.row import Row, window_cue
from pixel_env.tasks.sources import FrameFiles
from pixel_env.tasks.tables import Parts, Table, open_table
from pixel_env.tasks.task import Task

# --- MVBench (OpenGVLab/MVBench) --------------------------------------------------------------------------------------

MVBENCH = {
    "action_antonym": ("ssv2_video", "whole"),
    "action_count": ("perception/videos", "whole"),
    "action_localization": ("sta/sta_video", "bounded"),
    "action_prediction": ("star/Charades_v1_480", "bounded"),
    "action_sequence": ("star/Charades_v1_480", "bounded"),
    "character_order": ("perception/videos", "whole"),
    "counterfactual_inference": ("clevrer/video_validation", "whole"),
    "egocentric_navigation": ("vlnqa", "whole"),
    "episodic_reasoning": ("tvqa/frames_fps3_hq", "frames"),
    "fine_grained_action": ("Moments_in_Time_Raw/videos", "whole"),
    "fine_grained_pose": ("nturgbd", "whole"),
    "moving_attribute": ("clevrer/video_validation", "whole"),
    "moving_count": ("clevrer/video_validation", "whole"),
    "moving_direction": ("clevrer/video_validation", "whole"),
    "object_existence": ("clevrer/video_validation", "whole"),
    "object_interaction": ("star/Charades_v1_480", "bounded"),
    "object_shuffle": ("perception/videos", "whole"),
    "scene_transition": ("scene_qa/video", "whole"),
    "state_change": ("perception/videos", "whole"),
    "unexpected_action": ("FunQA_test/test", "whole"),
}
"""Task: folder below ``video/``, and what is read: the whole video, a bounded segment, or a folder of frames."""

FRAMES_A_SECOND = 3


def open_mvbench(path: Path) -> Table:
    """Open the JSON files of the tasks that are there, in alphabetical order; the videos lie in ``video/``."""
    require_folder(path, ("json", "video"))
    files = sorted((path / "json").glob("*.json"))
    if unknown := [file.name for file in files if file.stem not in MVBENCH]:
        raise ValueError(f"expected JSON files named by MVBench's tasks in {path / 'json'}, got {unknown[0]}; move it")
    if not files:
        raise ValueError(f"expected a JSON file a task in {path / 'json'}, got none; is it the right folder?")
    return Parts(tuple(file.stem for file in files), tuple(json_table(file) for file in files))


def mvbench_task(row: Row) -> Task:
    """Make a task of MVBench; the answer is the text of one candidate, and their order is kept."""
    choices = row.texts("candidates")
    right = row.one_text("answer")
    return row.choice(row.text("question"), _mvbench_media(row), choices, right, suite=f"{row.name}/{row.text('part')}")


def _mvbench_media(row: Row) -> Source:
    folder, how = MVBENCH[row.text("part")]
    path = row.path("video", row.text("video"), (f"video/{folder}", f"video/data0613/{folder}"))
    if how == "whole":
        return row.video(path, rule="mvbench")
    start, end = row.seconds("start"), row.seconds("end")
    if end <= start:
        raise row.wrong("end", f"seconds after start = {start:g}")
    if how == "bounded":
        return row.video(path, start, end, rule="mvbench")
    return _frame_folder(row, path, start, end)


def _frame_folder(row: Row, folder: Path, start: float, end: float) -> FrameFiles:
    """Take frames of a segment from ``00001.jpg``, ``00002.jpg``, ... at three a second."""
    if not folder.is_dir():
        raise row.wrong("video", "a folder of frames")
    names = {int(file.stem): file.name for file in folder.iterdir() if re.fullmatch(r"\d{1,9}\.jpe?g", file.name)}
    last = min(round(end * FRAMES_A_SECOND), len(names))
    first = max(1, round(start * FRAMES_A_SECOND))
    if first > last:
        raise row.error(
            f"expected a segment within the {len(names)} frames of {folder.name}, got {start:g} to {end:g} s"
        )
    numbers = mvbench_frames(first, last, row.num_frames)
    if missing := [number for number in numbers if number not in names]:
        raise row.error(f"expected frame {missing[0]:05d}.jpg in {folder.name}, which holds {len(names)} frames")
    times = tuple((number - 1) / FRAMES_A_SECOND for number in numbers)
    place = folder.relative_to(row.root)
    for number in sorted(set(numbers)):
        row.path("video", (place / names[number]).as_posix())
    return FrameFiles(folder, tuple(names[number] for number in numbers), times)


# --- STAR (situated reasoning on videos of Charades) ------------------------------------------------------------------


def open_star(path: Path) -> Table:
    """Open ``STAR_train.json``, ``STAR_val.json`` or ``STAR_test.json``."""
    return open_table(find_tables(path, ("STAR_*.json",)), ())


def star_task(row: Row) -> Task:
    """Make a task about the whole video; the cue is the frames in the window of seconds that the question is about."""
    video = row.video(row.path("video_id", row.text("video_id") + ".mp4", ("", "Charades_v1_480", "videos")))
    start, end = row.seconds("start"), row.seconds("end")
    choices = tuple(row.with_fields(choice).text("choice") for choice in row.mappings("choices"))
    right = None
    if row.has("answer"):
        right = option_of(row.text("answer"), choices)
        if right is None:
            raise row.wrong("answer", f"one of {choices}")
    kind = row.text("question_id").partition("_")[0]
    suite = row.with_fields({"question_id": kind}).category("question_id")
    return row.choice(row.text("question"), video, choices, right, cue=window_cue(video, start, end), suite=suite)
