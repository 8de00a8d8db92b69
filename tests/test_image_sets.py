"""Published sets of images, written as they lie on disk and read back."""

import json
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from layouts import (
    base64_png,
    docvqa,
    hrbench_rows,
    hrbench_tsv,
    infographicvqa,
    png,
    save,
    tallyqa,
    vstar,
    write_json,
    write_lines,
    write_parquet,
)

from pixel_env.decoding import MediaError
from pixel_env.grading import grade
from pixel_env.tasks import Cue, FileTasks, load_tasks


def everything(tasks: FileTasks) -> list:
    return [tasks[index] for index in range(len(tasks))]


# --- V* --------------------------------------------------------------------------------------------------------------


def test_vstar_questions(tmp_path: Path) -> None:
    tasks = load_tasks("vstar", vstar(tmp_path))
    glove, dog, cat = everything(tasks)
    assert (glove.task_id, glove.suite) == ("vstar-0", "vstar/direct_attributes")
    assert glove.question == "What is the color of the glove?"  # neither options nor how to answer
    assert glove.choices == ("blue", "white", "rubber red", "green") and glove.answers == ("rubber red",)
    assert glove.cue == Cue((30, 20, 40, 32))  # x, y, width, height in the file
    assert (glove.media.width, glove.media.height) == (120, 90)
    assert grade(glove, "C").correct and not grade(glove, "A").correct
    assert cat.suite == "vstar/relative_position" and cat.cue == Cue((0, 0, 70, 70))  # around both targets
    assert dog.answers == ("black",) and tasks.index("vstar-1") == 1
    assert load_tasks("vstar", tmp_path / "test_questions.jsonl")[2] == cat


def test_vstar_files_beside_images_are_shuffled(tmp_path: Path) -> None:
    tasks = load_tasks("vstar", vstar(tmp_path, questions=False))
    assert [task.suite for task in everything(tasks)] == ["vstar/direct_attributes"] * 2 + ["vstar/relative_position"]
    glove = tasks[0]
    assert glove.answers == ("rubber red",) and sorted(glove.choices) == ["blue", "green", "rubber red", "white"]
    assert tasks[0] == load_tasks("vstar", tmp_path, seed=0)[0]
    orders = {load_tasks("vstar", tmp_path, seed=seed)[0].choices for seed in range(20)}
    assert len(orders) > 8
    first = Counter(load_tasks("vstar", tmp_path, seed=seed)[0].choices.index("rubber red") for seed in range(20))
    assert len(first) == 4  # the right one stands everywhere
    one = load_tasks("vstar", tmp_path / "relative_position")
    assert len(one) == 1 and one[0].suite == "vstar/relative_position" and one[0].media.width == 120


def test_vstar_in_the_wrong_place(tmp_path: Path) -> None:
    (tmp_path / "json").mkdir()
    with pytest.raises(
        ValueError, match=r"expected a folder with direct_attributes and relative_position at .*got json"
    ):
        load_tasks("vstar", tmp_path)


def test_vstar_with_damage_goes_on(tmp_path: Path) -> None:
    vstar(tmp_path)
    (tmp_path / "direct_attributes/sa_1.jpg").unlink()
    lines = (tmp_path / "test_questions.jsonl").read_text().splitlines()
    lines[1] = lines[1].replace('"label": "A"', '"label": "F"')
    (tmp_path / "test_questions.jsonl").write_text("\n".join([*lines, "{not json"]) + "\n")
    tasks = load_tasks("vstar", tmp_path)
    assert len(tasks) == 4 and tasks[2].choices
    for index, message in [
        (0, r"test_questions\.jsonl, row 0 .*image: expected a file below .*got none at direct_attributes/sa_1\.jpg"),
        (1, r"row 1 .*expected label as the letter of one of 2 options, got 'F'"),
        (3, r"row 3 .*Expecting property name"),
    ]:
        with pytest.raises(MediaError, match=message):
            tasks[index].media.frame(0)


# --- HR-Bench --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("suffix", ["parquet", "tsv"])
def test_hrbench(tmp_path: Path, suffix: str) -> None:
    if suffix == "tsv":
        path = hrbench_tsv(tmp_path / "hr_bench_4k.tsv")
    else:
        pytest.importorskip("pyarrow")
        path = write_parquet(tmp_path / "hr_bench_4k.parquet", hrbench_rows(), row_group_size=3)
    tasks = load_tasks("hrbench", tmp_path)
    assert len(tasks) == 8 and load_tasks("hrbench", path)[3] == tasks[3]
    assert [task.answers[0] for task in everything(tasks)] == ["exit"] * 4 + ["7"] * 4
    assert [task.choices.index(task.answers[0]) for task in everything(tasks)] == [
        0,
        3,
        2,
        1,
    ] * 2  # turned, not shuffled
    assert tasks[0].question == 'What does the "sign" say?'
    groups = [task.group for task in everything(tasks)]
    assert groups[:4] == groups[:1] * 4 and groups[4:] == groups[4:5] * 4 and groups[0] != groups[4]
    assert [task.suite for task in everything(tasks)] == ["hrbench/single"] * 4 + ["hrbench/cross"] * 4
    for index in (5, 2, 3, 7, 0):  # forwards, backwards, across row groups
        assert tasks[index].media.frame(0).getpixel((1, 1)) == (index, 0, 200)


def test_hrbench_without_a_column(tmp_path: Path) -> None:
    (tmp_path / "hr_bench_8k.tsv").write_text("index\tquestion\tlabel\n0\tWhy?\tA\n")
    with pytest.raises(
        ValueError, match=r"hr_bench_8k\.tsv: expected the columns .*; answer, A, B, C, D, category, image "
    ):
        load_tasks("hrbench", tmp_path)
    (tmp_path / "hr_bench_4k.tsv").write_text("x\n")
    with pytest.raises(ValueError, match=r"expected one table in .*, got hr_bench_4k\.tsv, hr_bench_8k\.tsv"):
        load_tasks("hrbench", tmp_path)


@pytest.mark.parametrize("place", ["", "spdocvqa_qas", "spdocvqa_qas/val_v1.0_withQT.json"])
def test_docvqa_of_the_challenge(place: str, tmp_path: Path) -> None:
    [task] = everything(load_tasks("docvqa", docvqa(tmp_path) / place))
    assert (task.answers, task.answer_kind, task.media.frame(0).size) == (("1/8/93",), "text", (120, 90))


def test_docvqa_beside_its_documents(tmp_path: Path) -> None:
    root = docvqa(tmp_path)
    save(root / "documents/ffbf0023_4.png", size=(30, 20))  # the path as it stands comes first
    assert load_tasks("docvqa", root)[0].media.frame(0).size == (30, 20)


# --- TallyQA ---------------------------------------------------------------------------------------------------------


def test_tallyqa(tmp_path: Path) -> None:
    tallyqa(tmp_path)
    simple, complex_, gone = everything(load_tasks("tallyqa", tmp_path / "test.json"))
    assert (simple.suite, simple.answers, simple.answer_kind) == ("tallyqa/simple", ("3",), "number")
    assert (complex_.suite, complex_.answers) == ("tallyqa/complex", ("0",)) and complex_.media.width == 120
    with pytest.raises(MediaError, match=r"test\.json, row 2 .*got none at VG_100K/gone\.jpg; unpack the media"):
        _ = gone.media.width
    only = load_tasks("tallyqa-complex", tmp_path / "test.json")
    assert [task.task_id for task in everything(only)] == ["tallyqa-complex-1", "tallyqa-complex-2"]
    assert only.index("tallyqa-complex-2") == 1
    with pytest.raises(ValueError, match="no task 'tallyqa-complex-0' in this set"):
        only.index("tallyqa-complex-0")
    assert load_tasks("tallyqa", tmp_path / "train.json")[0].suite == "tallyqa"
    with pytest.raises(
        ValueError, match=r"expected some tasks of tallyqa-complex in .*train\.json, got none of 1 rows"
    ):
        load_tasks("tallyqa-complex", tmp_path / "train.json")


# --- InfographicVQA and DocVQA ---------------------------------------------------------------------------------------


def test_infographicvqa(tmp_path: Path) -> None:
    infographicvqa(tmp_path)
    first, year = everything(load_tasks("infographicvqa", tmp_path / "val.json"))
    assert (first.answers, first.answer_kind) == (("facebook", "Facebook"), "text") and first.media.height == 90
    assert year.answer_kind == "text" and grade(year, "2008").score == 0.75  # ANLS: one of four characters differs
    hidden = everything(load_tasks("infographicvqa", tmp_path / "test.json"))
    assert [task.answers for task in hidden] == [(), ()]
    with pytest.raises(ValueError, match=r"expected one table in .*, got test\.json, val\.json; give the path of one"):
        load_tasks("infographicvqa", tmp_path)


def test_docvqa_json(tmp_path: Path) -> None:
    save(tmp_path / "documents/ffbf0023_4.png")
    item = {"questionId": 337, "question": "What is the date?", "image": "documents/ffbf0023_4.png", "docId": 279}
    write_json(tmp_path / "val_v1.0.json", {"dataset_name": "docvqa", "data": [{**item, "answers": ["1/8/93"]}]})
    [task] = everything(load_tasks("docvqa", tmp_path))
    assert task.answers == ("1/8/93",) and task.media.frame(0).size == (120, 90)


def test_docvqa_parquet(tmp_path: Path) -> None:
    pytest.importorskip("pyarrow")
    save(tmp_path / "pages/b.png", (0, 0, 9))
    rows = [
        {
            "questionId": "337",
            "question": "Date?",
            "image": {"bytes": png((0, 0, 7)), "path": "a.png"},
            "answers": ["1"],
        },
        {"questionId": "338", "question": "Who?", "image": {"bytes": None, "path": "pages/b.png"}, "answers": None},
        {"questionId": "339", "question": "Out?", "image": {"bytes": None, "path": "../b.png"}, "answers": []},
    ]
    for shard in range(2):
        write_parquet(tmp_path / f"validation-0000{shard}-of-00002.parquet", rows[2 * shard : 2 * shard + 2])
    tasks = load_tasks("docvqa", tmp_path / "validation")
    assert [task.answers for task in everything(tasks)] == [("1",), (), ()]
    assert [tasks[index].media.frame(0).getpixel((0, 0)) for index in range(2)] == [(0, 0, 7), (0, 0, 9)]
    with pytest.raises(
        MediaError, match=r"validation-00001-of-00002\.parquet, row group 0, row 0 of it.*inside the data"
    ):
        tasks[2].media.frame(0)
    assert load_tasks("docvqa", tmp_path)[1] == tasks[1]


# --- pictures that are not plain -------------------------------------------------------------------------------------


def test_stored_pictures_of_every_kind(tmp_path: Path) -> None:
    import base64
    import io

    from PIL import Image

    def row(picture: Image.Image, form: str, **options: object) -> str:
        buffer = io.BytesIO()
        picture.save(buffer, form, **options)
        return base64.b64encode(buffer.getvalue()).decode()

    exif = Image.Exif()
    exif[0x0112] = 6  # turn by 90 degrees
    grey16 = Image.fromarray(np.full((30, 40), 40 << 8, np.uint16))
    cells = [
        row(Image.new("CMYK", (40, 30), (0, 255, 255, 0)), "JPEG"),
        row(Image.new("L", (40, 30), 7), "PNG"),
        row(Image.new("RGBA", (40, 30), (255, 0, 0, 0)), "PNG"),
        row(Image.new("RGB", (40, 30)), "JPEG", exif=exif),
        row(grey16, "PNG"),
        base64_png()[:60],  # cut short
        "no base64!",
        "",
        row(Image.new("1", (9000, 9000)), "PNG"),  # 81 million pixels in a few kilobytes
    ]
    plain = hrbench_rows()[0]
    lines = ["\t".join(["A", "B", "C", "D", "answer", "category", "question", "image"])]
    lines += ["\t".join(["a", "b", "c", "d", "A", plain["category"], "Which?", cell]) for cell in cells]
    (tmp_path / "x.tsv").write_text("\n".join(lines))
    tasks = load_tasks("hrbench", tmp_path)
    assert tasks[0].media.frame(0).getpixel((5, 5))[0] > 200 and tasks[0].media.frame(0).mode == "RGB"
    assert tasks[1].media.frame(0).getpixel((5, 5)) == (7, 7, 7)
    assert tasks[2].media.frame(0).getpixel((5, 5)) == (255, 255, 255)
    assert tasks[3].media.frame(0).size == (30, 40)
    assert tasks[4].media.frame(0).getpixel((5, 5)) == (40, 40, 40)
    for index, message in [(5, "row 5"), (6, "row 6"), (7, "expected a picture of 1 to"), (8, "got 81000000")]:
        with pytest.raises(MediaError, match=message):
            tasks[index].media.frame(0)


def test_a_truncated_jpeg_is_an_error(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    from PIL import Image

    Image.fromarray(rng.integers(0, 255, (90, 120, 3), dtype=np.uint8)).save(tmp_path / "a.jpg")
    (tmp_path / "a.jpg").write_bytes((tmp_path / "a.jpg").read_bytes()[:2000])
    write_lines(tmp_path / "own.jsonl", [{"image": "a.jpg", "question": "What?"}])
    with pytest.raises(MediaError, match=r"a\.jpg: cannot be decoded: image file is truncated"):
        load_tasks("jsonl", tmp_path)[0].media.frame(0)


def test_json_of_the_fixture_is_as_published(tmp_path: Path) -> None:
    record = json.loads((vstar(tmp_path) / "direct_attributes/sa_1.json").read_text())
    assert set(record) == {"target_object", "bbox", "question", "options"} and record["options"][0] == "rubber red"
