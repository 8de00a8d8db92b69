"""Sets about details of large images, written as they lie on disk and read back."""

from pathlib import Path
from typing import Any

import gymnasium as gym
import pytest
from layouts import (
    mme_realworld_rows,
    treebench_rows,
    treebench_tsv,
    visualprobe,
    write_json,
    write_parquet,
    zoombench_rows,
)

from pixel_env.decoding import MediaError
from pixel_env.grading import grade
from pixel_env.tasks import Cue, FileTasks, load_tasks
from pixel_env.tasks.tables import Table
from pixel_env.tasks.validate import problems


def everything(tasks: FileTasks) -> list:
    return [tasks[index] for index in range(len(tasks))]


def parquet(path: Path, rows: list[dict[str, Any]], change: dict[str, Any] | None = None, **options: Any) -> Path:
    """Write rows, the first of them changed."""
    pytest.importorskip("pyarrow")
    return write_parquet(path, [{**rows[0], **(change or {})}, *rows[1:]], **options)


def assert_damaged(name: str, path: Path, message: str) -> None:
    """The first row is an error that says where and why, and the second is none."""
    first, second, *_ = everything(load_tasks(name, path))
    with pytest.raises(MediaError, match=message):
        first.media.frame(0)
    assert first.task_id == f"{name}-0" and second.media.frame(0).mode == "RGB"


@pytest.mark.parametrize("form", ["parquet", "tsv", "json"])
def test_opening_reads_no_picture(form: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("pyarrow")
    from pixel_env.tasks.parquet import ParquetTable

    def looked(table: Table, row: int, column: str) -> None:
        raise AssertionError(column)

    monkeypatch.setattr(ParquetTable, "blob", looked)
    sets = {
        "parquet": [
            ("mme-realworld", write_parquet(tmp_path / "a/train.parquet", mme_realworld_rows())),
            ("treebench", write_parquet(tmp_path / "b/train.parquet", treebench_rows())),
            ("zoombench", write_parquet(tmp_path / "c/data/test.parquet", zoombench_rows())),
        ],
        "tsv": [("treebench", treebench_tsv(tmp_path / "TreeBench.tsv"))],
        "json": [("visualprobe", visualprobe(tmp_path / "d"))],
    }
    if form == "json":
        (tmp_path / "d/VisualProbe_Hard/data/visual_probe_hard_60.jpg").write_bytes(b"")
    for name, path in sets[form]:
        assert load_tasks(name, path)[0].question


# --- MME-RealWorld ---------------------------------------------------------------------------------------------------


def test_mme_realworld(tmp_path: Path) -> None:
    for shard in range(3):
        parquet(tmp_path / f"data/train-0000{shard}-of-00003.parquet", mme_realworld_rows()[shard : shard + 1])
    tasks = load_tasks("mme-realworld", tmp_path)
    shed, door, car = everything(tasks)
    assert (shed.task_id, shed.suite) == ("mme-realworld-0", "mme-realworld/Perception/Remote Sensing")
    assert shed.question == "What color is the shed?" and shed.answers == ("White",) and shed.cue is None
    assert shed.choices == ("Red", "White", "Green", "Blue", "This image doesn't feature the color.")
    assert grade(shed, "(B)").correct and not grade(shed, "E").correct
    assert door.answers == ("B",)  # the third option, not the second, whose letter it looks like
    assert car.answers == ("This image doesn't feature the car.",) and grade(car, "E").correct
    assert [task.media.frame(0).getpixel((0, 0))[2] for task in (car, shed, door)] == [3, 1, 2]
    assert (shed.media.width, shed.media.height) == (120, 90)
    assert load_tasks("mme-realworld", tmp_path / "data/train")[2].question == car.question


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"answer": "F"}, r"row 0 of it: expected answer as the letter of one of 5 options, got 'F'; correct the row"),
        ({"answer": "White"}, "expected answer as the letter of one of 5 options, got 'White'"),
        (
            {"multi-choice options": ["(B) Red", "(A) White"]},
            r"expected multi-choice options as options that begin with \(A\), \(B\), \.\.\. in this order, got",
        ),
        ({"multi-choice options": ["(A) Red", "(B) red"], "answer": "A"}, "expected an answer that names exactly one"),
        ({"bytes": "no base64!"}, "row 0 of it: cannot be decoded"),
    ],
)
def test_mme_realworld_with_damage_goes_on(change: dict[str, Any], message: str, tmp_path: Path) -> None:
    path = parquet(tmp_path / "train.parquet", mme_realworld_rows(), change)
    assert_damaged("mme-realworld", path, rf"train\.parquet, row group 0, .*{message}")


def test_mme_realworld_without_a_column(tmp_path: Path) -> None:
    rows = [{key: value for key, value in row.items() if key != "bytes"} for row in mme_realworld_rows()]
    parquet(tmp_path / "train.parquet", rows)
    with pytest.raises(ValueError, match=r"train\.parquet: expected the columns question, .*; bytes not among index"):
        load_tasks("mme-realworld", tmp_path)


# --- VisualProbe -----------------------------------------------------------------------------------------------------


def test_visualprobe(tmp_path: Path) -> None:
    sign, cranes = everything(load_tasks("visualprobe", visualprobe(tmp_path)))
    assert (sign.task_id, sign.suite, sign.choices) == ("visualprobe-0", "visualprobe/hard", ())
    assert (sign.question, sign.answers, sign.answer_kind) == ("What does the sign say?", ("No entry",), "text")
    assert (sign.media.width, sign.media.height) == (200, 90)
    assert grade(sign, "no entry.").correct and not grade(sign, "It says no entry").correct  # no judge
    assert (cranes.answers, cranes.answer_kind) == (("3",), "text")
    above = load_tasks("visualprobe", tmp_path / "VisualProbe_Hard/val.json", root=tmp_path)
    assert above[0].media.width == 200  # the path as it stands comes first
    assert load_tasks("visualprobe", tmp_path / "VisualProbe_train")[1].suite == "visualprobe/train"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"images": []}, r"val\.json, row 0 .*expected images as a list of one path, got \[\]"),
        ({"images": ["VisualProbe_Hard/data/gone.jpg"]}, r"row 0 .*images: .*got none at data/gone\.jpg; unpack"),
        ({"images": ["VisualProbe_Hard/../../x.jpg"]}, "expected a path inside the data root"),
        ({"problem": "<image>\n"}, "expected problem as a text of 1 to"),
        ({"solution": None}, "expected solution as a text or a list of texts, got None"),
    ],
)
def test_visualprobe_with_damage_goes_on(change: dict[str, Any], message: str, tmp_path: Path) -> None:
    folder = visualprobe(tmp_path)
    [sign, cranes] = [load_tasks("visualprobe", folder).fields(f"visualprobe-{number}") for number in range(2)]
    write_json(folder / "val.json", [{**sign, **change}, cranes])
    assert_damaged("visualprobe", folder, message)


def test_visualprobe_elsewhere(tmp_path: Path) -> None:
    (tmp_path / "test.json").write_text("[]")
    with pytest.raises(ValueError, match=r"expected val\.json or train\.json in .*, got test\.json"):
        load_tasks("visualprobe", tmp_path)


# --- TreeBench -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("form", ["parquet", "tsv"])
def test_treebench(form: str, tmp_path: Path) -> None:
    if form == "tsv":
        treebench_tsv(tmp_path / "TreeBench.tsv")
    else:
        parquet(tmp_path / "data/train-00000-of-00001.parquet", treebench_rows())
    tasks = load_tasks("treebench", tmp_path)
    nearest, word, material = everything(tasks)
    assert (nearest.task_id, nearest.suite) == ("treebench-0", "treebench/Reasoning/Ordering")
    assert (nearest.question, nearest.answers) == ("Which is nearest?", ("bike",))
    assert nearest.choices == ("car", "bus", "B", "van", "tram", "bike")  # in the order of the columns
    assert nearest.cue == Cue((10, 5, 70, 60))  # around both instances
    assert nearest.media.frame(0).size == (120, 90) and grade(nearest, "F").correct
    assert (word.suite, word.choices, word.answers) == (
        "treebench/Perception/OCR",
        ("exit", "in", "out of"),
        ("out of",),
    )
    assert word.media.frame(0).getpixel((0, 0)) == (0, 1, 0)
    with pytest.raises(MediaError, match="expected answer as the letter of one of 3 options, got 'D'"):
        material.media.frame(0)  # two options in one cell
    assert [problem.task_id for problem in problems(tasks)] == ["treebench-2"]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"target_instances": "[[1, 2, 3]]"}, "expected target_instances as a box of four numbers, or a list of boxes"),
        ({"target_instances": "__import__('os')"}, "expected target_instances as boxes as JSON, got"),
        ({"target_instances": "[" * 9999}, "expected target_instances as boxes as JSON, got"),
        ({"target_instances": "[[30, 2, 3, 4]]"}, "with x1 < x2 and y1 < y2"),
        ({"C": None}, "expected C as an option, as there are 5 in A to K, got None"),
        ({**dict.fromkeys("ABCDEF"), "multi-choice options": "bus\ncar"}, "a line for each option, with its letter"),
        ({"category": None}, "expected category as a text"),
    ],
)
def test_treebench_with_damage_goes_on(change: dict[str, Any], message: str, tmp_path: Path) -> None:
    path = parquet(tmp_path / "train.parquet", treebench_rows(), change)
    assert_damaged("treebench", path, rf"train\.parquet, row group 0, row 0 of it: .*{message}")


@pytest.mark.parametrize("boxes", ["[]", None])
def test_treebench_without_boxes_has_no_cue(boxes: str | None, tmp_path: Path) -> None:
    path = parquet(tmp_path / "train.parquet", treebench_rows(), {"target_instances": boxes})
    assert load_tasks("treebench", path)[0].cue is None


def test_treebench_without_a_column(tmp_path: Path) -> None:
    (tmp_path / "TreeBench.tsv").write_text("index\tquestion\tA\tB\tC\tD\timage\n")
    with pytest.raises(ValueError, match=r"TreeBench\.tsv: expected the columns .*; answer, category not among index"):
        load_tasks("treebench", tmp_path)


# --- ZoomBench -------------------------------------------------------------------------------------------------------


def test_zoombench(tmp_path: Path) -> None:
    parquet(tmp_path / "data/test.parquet", zoombench_rows(), row_group_size=2)
    cap, mark, buttons = everything(load_tasks("zoombench", tmp_path))
    assert (cap.task_id, cap.suite, cap.question) == ("zoombench-0", "zoombench/mcq", "What color is the cap?")
    assert (cap.choices, cap.answers) == (("red", "blue", "black"), ("blue",))
    assert cap.cue == Cue((100, 50, 140, 80)) and cap.media.frame(0).size == (400, 300)  # the crop is 40 x 30
    assert (mark.choices, mark.answers) == (("B", "C", "A"), ("B",))  # by the letter, not by the text
    assert (buttons.suite, buttons.answer_kind, buttons.answers) == ("zoombench/blank", "number", ("12",))
    assert buttons.question == "How many buttons are there? Answer with a number." and grade(buttons, "12").correct


def test_zoombench_without_the_columns_that_may_lack(tmp_path: Path) -> None:
    lean = [{key: row[key] for key in ("id", "query", "response", "image")} for row in zoombench_rows()]
    cap, _, buttons = everything(load_tasks("zoombench", parquet(tmp_path / "test.parquet", lean)))
    assert (cap.suite, cap.answers, cap.cue) == ("zoombench", ("blue",), None) and buttons.answers == ("12",)


def test_zoombench_without_a_column(tmp_path: Path) -> None:
    renamed = [{"prompt" if key == "query" else key: value for key, value in row.items()} for row in zoombench_rows()]
    path = parquet(tmp_path / "test.parquet", renamed)
    with pytest.raises(
        ValueError, match=r"test\.parquet: expected the columns query, response, image; query not among"
    ):
        load_tasks("zoombench", path)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"query": "What color is the cap?"}, "expected query as a question that ends in its options, marked from A"),
        ({"response": "D"}, "expected response as the letter of one of 3 options, got 'D'"),
        ({"bbox": [10, 20, 30]}, "expected bbox as a box of four numbers"),
        ({"image": {"bytes": b"cut", "path": None}}, "cannot be decoded"),
    ],
)
def test_zoombench_with_damage_goes_on(change: dict[str, Any], message: str, tmp_path: Path) -> None:
    path = parquet(tmp_path / "test.parquet", zoombench_rows(), change)
    assert_damaged("zoombench", path, rf"test\.parquet, row group 0, row 0 of it: .*{message}")


def test_an_environment_shows_the_image_and_no_crop(tmp_path: Path) -> None:
    parquet(tmp_path / "data/test.parquet", zoombench_rows())
    env = gym.make("PixelReason-Zoom-v0", tasks=f"zoombench:{tmp_path}")
    observation, info = env.reset(options={"task": "zoombench-0"})
    assert len(observation["images"]) == 1 and info["suite"] == "zoombench/mcq"
    assert "(B) blue" in observation["text"] and "choices directly" not in observation["text"]
    assert env.step(r"\boxed{B}")[4]["correct"]
