"""Published sets of questions about images, as their files lie on disk: V*, HR-Bench, TallyQA, InfographicVQA, DocVQA.

A set has two functions: one opens its table, one makes a task of a row.
"""

import hashlib
import json
from pathlib import Path

from pixel_env.media import Box, Source
from pixel_env.tasks.paths import IMAGE_SUFFIXES, files_in, find_tables, inside, require_folder
from pixel_env.tasks.questions import shuffled, split_options
from pixel_env.tasks.records import MAX_RECORD, Fields, parse_json
from pixel_env.tasks.row import Row, united
from pixel_env.tasks.tables import Files, Table, open_table
from pixel_env.tasks.task import Cue, Task

# --- V*Bench (craigwu/vstar_bench on the Hugging Face Hub) ------------------------------------------------------------

VSTAR_CATEGORIES = ("direct_attributes", "relative_position")
"""The folders of the 191 questions that are reported."""

VSTAR_EXTRAS = ("OCR", "GPT4V-hard")
"""Folders of further questions, opened by their own path."""


def open_vstar(path: Path) -> Table:
    """Open V*Bench: its ``test_questions.jsonl``, or the JSON files beside the images where that is missing.

    Args:
        path: The folder, the JSON Lines file, or one category's folder (read from the files beside the images).
    """
    questions = path / "test_questions.jsonl" if path.is_dir() else path
    if questions.is_file():
        return open_table([questions], ())
    folders = (".",) if path.name in VSTAR_CATEGORIES + VSTAR_EXTRAS else VSTAR_CATEGORIES
    require_folder(path, folders)
    names = [(Path(folder) / name).as_posix() for folder in folders for name in files_in(path / folder, (".json",))]
    if not names:
        raise ValueError(f"expected test_questions.jsonl or a JSON file an image in {path}, got neither; get them too")
    return Files(path, tuple(names), parse_json)


def vstar_task(row: Row) -> Task:
    """Make a task of V*Bench; the cue is the box around all targets, where the file beside the image gives them."""
    if "file" in row.fields:
        return _vstar_from_annotation(row)
    question, choices = split_options(row.text("text"))
    right = row.lettered("label", choices)
    image = row.image("image")
    beside = Path(image.path).with_suffix(".json")
    cue = Cue(_vstar_box(row, _annotation(row, beside))) if beside.exists() else None
    return row.choice(question, image, choices, right, cue=cue, suite=row.category("category"))


def _vstar_from_annotation(row: Row) -> Task:
    """Make a task of the file beside an image. Its first option is always the right one, so they are shuffled."""
    name = Path(row.text("file"))
    folder = row.root / name.parent
    pictures = [folder / f"{name.stem}{suffix}" for suffix in IMAGE_SUFFIXES]
    picture = next((file for file in pictures if file.exists()), pictures[0])
    image = row.image_file("file", picture.relative_to(row.root).as_posix())
    options = row.texts("options")
    choices = shuffled(options, row.seed, row.number)
    suite = f"{row.name}/{folder.name if name.parent.name else row.root.name}"
    cue = Cue(_vstar_box(row, row.fields)) if row.has("bbox") else None
    return row.choice(row.text("question"), image, choices, options[0], cue=cue, suite=suite)


def _annotation(row: Row, path: Path) -> Fields:
    try:
        with open(inside(row.root, path.relative_to(row.root).as_posix()), "rb") as file:
            return parse_json(file.read(MAX_RECORD))
    except (ValueError, OSError) as error:
        raise row.error(f"{path.name} beside the image: {error}") from error


def _vstar_box(row: Row, annotation: Fields) -> Box:
    """Return the box around all targets; the file has x, y, width, height in pixels."""
    boxes = row.with_fields(annotation).boxes("bbox")
    return united([(x, y, x + width, y + height) for x, y, width, height in boxes])


# --- HR-Bench 4K and 8K (DreamMr/HR-Bench) ----------------------------------------------------------------------------


def open_hrbench(path: Path) -> Table:
    """Open a parquet or TSV file of HR-Bench, whose images are base64 text."""
    tables = find_tables(path, ("hr_bench_*.parquet", "hr_bench_*.tsv", "*.parquet", "*.tsv"))
    return open_table(tables, ("question", "answer", "A", "B", "C", "D", "category"), blobs=("image",))


def hrbench_task(row: Row) -> Task:
    """Make a task of HR-Bench. Each question comes four times with its options turned round; that order is kept.

    The four share a group, by question and options: what `cycle_category` holds is not documented.
    """
    choices = [row.one_text(letter) for letter in "ABCD"]
    right = row.lettered("answer", choices)
    suite = row.category("category")
    question = row.text("question")
    group = hashlib.sha256(json.dumps([question, *sorted(choices)]).encode()).hexdigest()[:16]
    return row.choice(question, row.stored_image("image"), choices, right, suite=suite, group=group)


# --- TallyQA (manoja328/TallyQA_dataset on GitHub) --------------------------------------------------------------------


def open_tallyqa(path: Path) -> Table:
    """Open ``train.json`` or ``test.json``; beside it lie ``VG_100K/``, ``VG_100K_2/``, ``train2014/`` ..."""
    return open_table(find_tables(path, ("test.json", "train.json")), ())


def is_complex(fields: Fields) -> bool:
    """Whether a question of TallyQA is complex, which is: not simple. The training split does not say."""
    return fields.get("issimple") is False


def tallyqa_task(row: Row) -> Task:
    """Make a counting task."""
    suite = row.name.removesuffix("-complex")
    if row.has("issimple"):
        suite += "/simple" if row.flag("issimple") else "/complex"
    answer = row.fields.get("answer")
    if row.has("answer") and (not isinstance(answer, int) or isinstance(answer, bool)):
        raise row.wrong("answer", "a whole number")
    answers = (str(answer),) if row.has("answer") else ()
    return row.task(row.text("question"), row.image("image"), answers, answer_kind="number", suite=suite)


# --- InfographicVQA and DocVQA (rrc.cvc.uab.es; parquet: lmms-lab/DocVQA) ---------------------------------------------

IMAGE_FOLDERS = ("", "images", "infographicsvqa_images", "spdocvqa_images", "documents")


def open_documents(path: Path) -> Table:
    """Open the JSON of the challenge (a list under ``data``) or the parquet files of the Hub.

    The challenge packs its JSON into a folder of its own, ``spdocvqa_qas/`` or ``infographicsvqa_qas/``, beside
    ``spdocvqa_images/`` or ``infographicsvqa_images/``.
    """
    tables = find_tables(path, ("*.json", "*.parquet", "*_qas/*.json"))
    return open_table(tables, ("questionId", "question"), ("answers",), ("image",))


def document_task(row: Row) -> Task:
    """Make a task whose metric is ANLS. The test splits have no answers, as null, as an empty list or not at all."""
    if row.has("image_local_name") or row.has("image"):
        media: Source = _document_image(row, "image_local_name" if row.has("image_local_name") else "image")
    else:  # a column of a parquet file, which is not among the cells until it is looked at
        media = row.stored_image("image")
    answers = row.texts("answers") if row.has("answers") else ()
    return row.task(row.text("question"), media, answers, answer_kind="text")


def _document_image(row: Row, key: str) -> Source:
    """Return the image of a document: at its path, or by its name, as the archive drops ``documents/``."""
    name = row.text(key)
    bare = name.rpartition("/")[2]

    def lies(file: str) -> bool:
        return any((row.root / folder / file).is_file() for folder in IMAGE_FOLDERS)

    return row.image_file(key, bare if not lies(name) and lies(bare) else name, IMAGE_FOLDERS)


def question_id(fields: Fields) -> int:
    """Return the number that the official submission knows a question by."""
    number = fields.get("questionId")
    if isinstance(number, str) and number.isascii() and number.isdigit() and len(number) < 19:
        return int(number)
    if not isinstance(number, int) or isinstance(number, bool):
        raise ValueError(f"expected questionId as a whole number, got {json.dumps(number)[:40]}")
    return number
