"""Sets of images and videos: the data of Pixel Reasoner, Video-R1, and files of one's own."""

import re
from pathlib import Path

from pixel_env.media import Source, VideoFile
from pixel_env.tasks.paths import IMAGE_SUFFIXES, VIDEO_SUFFIXES, files_in, find_tables
from pixel_env.tasks.questions import answer_kind, bare_options, option_of, split_options, unboxed
from pixel_env.tasks.records import Fields
from pixel_env.tasks.row import SECONDS_PER_FRAME, Row, frames_within, united, window_cue
from pixel_env.tasks.sources import FrameFiles
from pixel_env.tasks.tables import Files, Table, open_table
from pixel_env.tasks.task import ANSWER_KINDS, Cue, Task

# --- Pixel Reasoner (TIGER-Lab/PixelReasoner-RL-Data, JasperHaozhe/*-EvalData-PixelReasoner) --------------------------


def open_pixelreasoner(path: Path) -> Table:
    """Open the parquet file, or the JSON variant, of the RL or an evaluation set; images are paths from its folder."""
    tables = find_tables(path, ("*.parquet", "*.json", "*.jsonl"))
    return open_table(tables, ("question", "image", "qid"), ("answer", "gt_answer", "is_video"))


def pixelreasoner_media(fields: Fields) -> str:
    """Return ``"video"`` for a list of frames, ``"image"`` otherwise."""
    return "video" if fields.get("is_video") is True else "image"


def pixelreasoner_task(row: Row) -> Task:
    r"""Make a task of the RL or an evaluation set.

    Options stand in the question and are split off; `wording` keeps the whole. An answer may be a list, and boxed.
    `qid` begins with the name of the benchmark, the suite, as the release reads it: up to the first dash, or slash.
    Infographics are graded as text, as ANLS asks, also where the answer is a number.
    """
    bench = re.split("[-/]", row.text("qid"), maxsplit=1)[0]
    suite = row.with_fields({"qid": bench}).category("qid")
    key = "gt_answer" if row.has("gt_answer") else "answer"
    answers = tuple(map(unboxed, row.texts(key))) if row.has(key) else ()
    wording = row.text("question")
    question, choices = split_options(wording)
    named = [option_of(answer, choices) for answer in answers]
    media = _pixelreasoner_media(row)
    if choices and (not answers or named[0] is not None):
        right = named[0] if answers else None
        return row.choice(question, media, choices, right, suite=suite, stated=answers, wording=wording)
    kind = "text" if "info" in bench.lower() else answer_kind(answers)
    return row.task(wording.strip(), media, answers, answer_kind=kind, suite=suite, wording=wording)


def _pixelreasoner_media(row: Row) -> Source:
    if pixelreasoner_media(row.fields) == "video":
        return row.frame_files("image")
    names = row.texts("image")
    if len(names) != 1:  # an episode begins with one image; the first of several is not what was asked about
        raise row.wrong("image", "a list of one path, or of the frames of a video")
    return row.image_file("image", names[0])


# --- Video-R1 (Video-R1/Video-R1-data, Video-R1/Video-R1-eval) --------------------------------------------------------

VIDEO_R1_KINDS = {
    "multiple choice": "choice",
    "numerical": "number",
    "regression": "number",
    "OCR": "text",
    "free-form": "text",
}


def open_video_r1(path: Path) -> Table:
    """Open ``Video-R1-260k.json`` or a file of the same form; media are paths from its folder."""
    return open_table(find_tables(path, ("*.json", "*.jsonl")), ())


def video_r1_media(fields: Fields) -> str:
    """Return ``"video"`` or ``"image"``."""
    return "video" if fields.get("data_type") == "video" else "image"


def video_r1_task(row: Row) -> Task:
    """Make a task of Video-R1.

    Differs from its rewards: numbers must be equal, and texts are graded by ANLS, not by word errors or ROUGE.
    """
    if row.text("data_type") not in ("image", "video"):
        raise row.wrong("data_type", "image or video")
    path = row.path("path", row.text("path"))
    media: Source = row.video(path) if row.text("data_type") == "video" else row.image("path")
    kind = VIDEO_R1_KINDS.get(row.text("problem_type"))
    if kind is None:
        raise row.wrong("problem_type", f"one of {', '.join(VIDEO_R1_KINDS)}")
    answer = unboxed(row.text("solution")) if row.has("solution") else None
    if kind != "choice":
        return row.task(row.text("problem"), media, () if answer is None else (answer,), answer_kind=kind)
    choices = bare_options(row.texts("options"))
    right = None if answer is None else option_of(answer, choices)
    if answer is not None and right is None:
        raise row.wrong("solution", f"one of {len(choices)} options")
    return row.choice(row.text("problem"), media, choices, right)


# --- folders of media without questions -------------------------------------------------------------------------------


def open_images(path: Path) -> Table:
    """List the images of a folder and the folders in it."""
    return _open_folder(path, IMAGE_SUFFIXES)


def open_videos(path: Path) -> Table:
    """List the videos of a folder and the folders in it."""
    return _open_folder(path, VIDEO_SUFFIXES)


def _open_folder(path: Path, suffixes: tuple[str, ...]) -> Table:
    names = files_in(path, suffixes) if path.is_dir() else []
    if not names:
        raise ValueError(f"expected a folder with {', '.join(suffixes)} files, got none at {path}; check the path")
    return Files(path, tuple(names))


def image_task(row: Row) -> Task:
    """Ask the one question about an image."""
    return row.task(row.question, row.image("file"), (), answer_kind="text")


def video_task(row: Row) -> Task:
    """Ask the one question about a video."""
    return row.task(row.question, row.video(row.path("file", row.text("file"))), (), answer_kind="text")


# --- our own JSON Lines -----------------------------------------------------------------------------------------------

KEYS = {
    "image": "path of an image; exactly one of image, video and frames",
    "video": "path of a video",
    "frames": "list of paths of images of one size, in order",
    "question": "what is asked",
    "answer": "accepted text or number, or a list of them; left out where it is not known",
    "choices": "texts of the options, of which answer names one by its text or letter",
    "kind": "number, value (digits or LaTeX, by math-verify), text or spans; without choices and kind: number if every "
    "answer is one, else text",
    "boxes": "x1, y1, x2, y2 of the evidence in source pixels, or a list of boxes; the cue is the box around all",
    "window": "first and last second of the evidence in a video",
    "start": "second at which a video is cut on the left",
    "end": "second at which it is cut on the right",
    "seconds_per_frame": "of frames; 0.5 if left out",
    "suite": "name by which reports group tasks",
    "needs_operation": "whether the first view is not enough",
    "id": "name in a submission",
}
"""Key of our JSON Lines: what it means. Paths are relative to the folder of the file, with ``/``."""


def open_jsonl(path: Path) -> Table:
    """Open our own JSON Lines: a task a line, see `KEYS`."""
    return open_table(find_tables(path, ("*.jsonl",)), ())


def jsonl_media(fields: Fields) -> str:
    """Return ``"image"`` or ``"video"``."""
    return "image" if "image" in fields else "video"


def jsonl_task(row: Row) -> Task:
    """Make a task of a line."""
    if unknown := sorted(row.fields.keys() - KEYS.keys()):
        raise row.error(f"expected no key but {', '.join(KEYS)}; got {unknown[0][:40]!r}; remove or rename it")
    media = _jsonl_media(row)
    others = {
        "cue": _jsonl_cue(row, media),
        "suite": row.category("suite") if row.has("suite") else row.name,
        "needs_operation": row.flag("needs_operation") if row.has("needs_operation") else None,
    }
    answers = row.texts("answer") if row.has("answer") else ()
    if row.has("choices"):
        choices = row.texts("choices")
        right = option_of(answers[0], choices) if answers else None
        if answers and right is None:
            raise row.wrong("answer", f"one of {len(choices)} choices")
        return row.choice(row.text("question"), media, choices, right, **others)
    kind = row.text("kind") if row.has("kind") else answer_kind(answers)
    if kind not in ANSWER_KINDS or kind == "choice":
        raise row.wrong("kind", "number, value, text or spans; a choice has choices")
    return row.task(row.text("question"), media, answers, answer_kind=kind, **others)


def _jsonl_media(row: Row) -> Source:
    given = [key for key in ("image", "video", "frames") if row.has(key)]
    if len(given) != 1:
        raise row.error(f"expected exactly one of image, video and frames, got {' and '.join(given) or 'none'}")
    if given == ["image"]:
        return row.image("image")
    if given == ["frames"]:
        step = row.seconds("seconds_per_frame") if row.has("seconds_per_frame") else SECONDS_PER_FRAME
        return row.frame_files("frames", step)
    start, end = (row.seconds(key) if row.has(key) else None for key in ("start", "end"))
    if end is not None and end <= (start or 0.0):
        raise row.wrong("end", "seconds after start")
    return row.video(row.path("video", row.text("video")), start, end)


def _jsonl_cue(row: Row, media: Source) -> Cue | None:
    box = None
    if row.has("boxes"):
        boxes = row.boxes("boxes")
        if any(x1 >= x2 or y1 >= y2 for x1, y1, x2, y2 in boxes):
            raise row.wrong("boxes", "boxes x1, y1, x2, y2 with x1 < x2 and y1 < y2")
        box = united(boxes)
    if not row.has("window"):
        if box is not None and media.kind == "video":
            raise row.error("expected a window of seconds beside the boxes of a video; add one")
        return None if box is None else Cue(box)
    start, end = row.window("window")
    if isinstance(media, VideoFile):
        return Cue(box, window_cue(media, start, end).frames)
    if isinstance(media, FrameFiles):
        return Cue(box, frames_within(media.times, start, end))
    raise row.error("expected a window only with a video or frames, got one with an image; remove it")
