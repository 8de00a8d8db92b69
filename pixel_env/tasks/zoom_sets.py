"""Later sets of questions about details of large images: MME-RealWorld, VisualProbe, TreeBench, ZoomBench.

Like `pixel_env.tasks.image_sets`: one function opens the table of a set, one makes a task of a row. Where several
projects that load a set agree on what a column holds, it is taken for known; the docstrings say what is not.
"""

import json
import re
from pathlib import Path
from string import ascii_uppercase

from pixel_env.media import ImageFile
from pixel_env.tasks.paths import find_tables
from pixel_env.tasks.questions import bare_options, split_options
from pixel_env.tasks.row import Row, united
from pixel_env.tasks.tables import Table, open_table
from pixel_env.tasks.task import Cue, Task

PARQUET = ("*.parquet", "data/*.parquet")

# --- MME-RealWorld (yifanzhang114/MME-RealWorld-lite-lmms-eval, -Lmms-eval, -CN-Lmms-eval on the Hub) -----------------


def open_mme_realworld(path: Path) -> Table:
    """Open the parquet files of MME-RealWorld or its Lite; ``bytes`` holds the image as base64 text."""
    columns = ("question", "multi-choice options", "answer", "category")
    return open_table(find_tables(path, PARQUET), columns, blobs=("bytes",))


def mme_realworld_task(row: Row) -> Task:
    """Make a task of MME-RealWorld. The suite is the kind of question and the domain: ``Perception/Monitoring``.

    Each option brings its letter along, ``"(A) red"``. The last of the five says that the image does not show what is
    asked for; it is the right one now and then, so it is an option like the others.
    """
    stated = row.texts("multi-choice options")
    choices = bare_options(stated)
    if choices == stated:  # a letter in another order would name another option than the one in its place
        raise row.wrong("multi-choice options", "options that begin with (A), (B), ... in this order")
    right = row.lettered("answer", choices)
    suite = row.category("category")
    return row.choice(row.text("question").strip(), row.stored_image("bytes"), choices, right, suite=suite)


# --- VisualProbe (Mini-o3/VisualProbe_Easy, _Medium, _Hard and _train) ------------------------------------------------


def open_visualprobe(path: Path) -> Table:
    """Open ``val.json`` or ``train.json``; the images are in ``data/`` beside it."""
    return open_table(find_tables(path, ("val.json", "train.json")), ())


def visualprobe_task(row: Row) -> Task:
    """Make a task of VisualProbe; the suite is its difficulty, ``visualprobe/hard``, or ``visualprobe/train``.

    Differs from Mini-o3, where a language model judges the open answers: they are graded as text, by a fixed rule, so
    another wording of the right answer is wrong, and accuracies are not to be put beside those of a judge.
    """
    names = row.texts("images")
    if len(names) != 1:
        raise row.wrong("images", "a list of one path")
    question = row.with_fields({"problem": row.text("problem").replace("<image>", "").strip()}).text("problem")
    part = re.match(r"VisualProbe_(\w{1,20})/", names[0])
    suite = f"{row.name}/{part[1].lower()}" if part else row.name
    image = _visualprobe_image(row, names[0])
    return row.task(question, image, row.texts("solution"), answer_kind="text", suite=suite)


def _visualprobe_image(row: Row, name: str) -> ImageFile:
    """Return an image whose path begins with the name of the repository, which is the folder of the JSON file."""
    below = name.partition("/")[2]
    return row.image_file("images", name if (row.root / name).is_file() or not below else below)


# --- TreeBench (HaochenWang/TreeBench) --------------------------------------------------------------------------------

TREEBENCH_LETTERS = ascii_uppercase[:11]
"""Columns of options that loaders of the set know; a row fills as many as it has, from A on."""


def open_treebench(path: Path) -> Table:
    """Open ``TreeBench.tsv`` or a parquet file of the same columns, whose images are base64 text."""
    tables = find_tables(path, ("*.tsv", *PARQUET))
    more = ("multi-choice options", "target_instances", *TREEBENCH_LETTERS[4:])
    return open_table(tables, ("question", "A", "B", "C", "D", "answer", "category"), more, ("image",))


def treebench_task(row: Row) -> Task:
    """Make a task of TreeBench; the cue is the box around all target instances, x1 y1 x2 y2 in pixels.

    Questions about writing have their options in the image, and no text in the columns of options: these are taken
    from ``multi-choice options``, which TreeVGR's own script shows too. Other harnesses show none there.
    """
    choices = _treebench_options(row)
    right = row.lettered("answer", choices)
    others = {"cue": _cue(row, "target_instances"), "suite": row.category("category")}
    return row.choice(row.text("question").strip(), row.stored_image("image"), choices, right, **others)


def _treebench_options(row: Row) -> tuple[str, ...]:
    cells = [row.fields.get(letter) for letter in TREEBENCH_LETTERS]
    filled = [cell is not None and str(cell).strip() != "" for cell in cells]
    count = sum(filled)
    if not all(filled[:count]):
        raise row.wrong(TREEBENCH_LETTERS[filled.index(False)], f"an option, as there are {count} in A to K")
    if count:
        return tuple(row.one_text(letter) for letter in TREEBENCH_LETTERS[:count])
    lines = tuple(line.strip() for line in row.text("multi-choice options").splitlines() if line.strip())
    dotted = tuple(re.sub(r"^([A-Z])\s+", r"\1. ", line) for line in lines)  # a few have a bare letter
    choices = bare_options(dotted)
    if choices == dotted:
        raise row.wrong("multi-choice options", "a line for each option, with its letter, from A on")
    return choices


# --- ZoomBench (inclusionAI/ZoomBench) --------------------------------------------------------------------------------


def open_zoombench(path: Path) -> Table:
    """Open ``data/test.parquet``. Its ``crop_image`` shows where the answer is, and is not read."""
    tables = find_tables(path, ("data/test.parquet", *PARQUET))
    return open_table(tables, ("query", "response"), ("question_type", "bbox"), ("image",))


def zoombench_task(row: Row) -> Task:
    """Make a task of ZoomBench; the suite is the type of question, ``zoombench/mcq`` or ``zoombench/blank``.

    Options stand in the query and are split off; the response is a letter then, else mostly a number. Differs from the
    release, where a language model judges what is not the same text. That ``bbox``, the cue, is x1 y1 x2 y2 in pixels
    is known from one source only.
    """
    query, image = row.text("query"), row.stored_image("image")
    kind = row.text("question_type") if row.has("question_type") else None
    suite = row.category("question_type") if kind else row.name
    question, choices = (query.strip(), ()) if kind == "blank" else split_options(query)
    if kind == "mcq" and not choices:
        raise row.wrong("query", "a question that ends in its options, marked from A on")
    cue = _cue(row, "bbox")
    if not choices:
        return row.task(question, image, row.texts("response"), cue=cue, suite=suite)
    return row.choice(question, image, choices, row.lettered("response", choices), cue=cue, suite=suite)


# --- boxes ------------------------------------------------------------------------------------------------------------


def _cue(row: Row, key: str) -> Cue | None:
    """Return the box around the boxes of a cell, corners in pixels; the cell may be JSON text. None for no boxes."""
    value = row.fields.get(key)
    if isinstance(value, str):
        try:
            value = json.loads(value or "[]")
        except (ValueError, RecursionError) as error:
            raise row.wrong(key, "boxes as JSON") from error
    if value is None or value == []:
        return None
    boxes = row.with_fields({key: value}).boxes(key)
    if any(x1 >= x2 or y1 >= y2 for x1, y1, x2, y2 in boxes):
        raise row.wrong(key, "boxes x1, y1, x2, y2 with x1 < x2 and y1 < y2")
    return Cue(united(boxes))
