"""The data of Pixel Reasoner and Video-R1, plain folders, and our own JSON Lines."""

import json
from collections.abc import Sequence
from pathlib import Path

import pytest
from layouts import pixelreasoner_rows, read_code, save, video_r1, write_coded, write_json, write_lines, write_parquet

from pixel_env import PixelReasonEnv
from pixel_env.decoding import MediaError
from pixel_env.evaluation import evaluate
from pixel_env.rollout import Conversation, rollout
from pixel_env.tasks import Cue, FileTasks, load_tasks
from pixel_env.tasks.mixed_sets import KEYS
from pixel_env.tasks.validate import main, problems


def everything(tasks: FileTasks) -> list:
    return [tasks[index] for index in range(len(tasks))]


@pytest.mark.parametrize("form", ["parquet", "json", "jsonl"])
def test_pixelreasoner(tmp_path: Path, form: str) -> None:
    rows = pixelreasoner_rows(tmp_path)
    if form == "parquet":
        pytest.importorskip("pyarrow")
        write_parquet(tmp_path / "release.parquet", rows)
    else:
        renamed = [{("gt_answer" if key == "answer" else key): value for key, value in row.items()} for row in rows]
        (write_json if form == "json" else write_lines)(tmp_path / f"release.{form}", renamed)
    colour, dogs, year, video = everything(load_tasks("pixelreasoner", tmp_path))
    assert (colour.suite, colour.question, colour.choices) == ("pixelreasoner/vstar", "Which colour?", ("red", "blue"))
    assert colour.answers == ("blue",) and colour.media.frame(0).size == (120, 90)
    assert (dogs.answer_kind, dogs.answers) == ("number", ("4",))
    assert (year.answer_kind, year.answers) == ("text", ("2009",))
    assert (video.choices, video.answers, video.media.kind) == (("sits", "runs"), ("sits",), "video")
    assert [video.media.frame(index).getpixel((0, 0))[0] // 50 for index in range(4)] == [0, 1, 2, 3]
    assert [video.media.timestamp(index) for index in range(4)] == [0, 0.5, 1, 1.5]


@pytest.mark.parametrize(
    ("qid", "suite"),
    [
        ("vstar-17", "vstar"),
        ("mvbench-action-count-3", "mvbench"),
        ("InfographicsVQA/1-2", "InfographicsVQA"),
        ("tallyqa", "tallyqa"),
    ],
)
def test_pixelreasoner_suites(qid: str, suite: str, tmp_path: Path) -> None:
    [row, *_] = pixelreasoner_rows(tmp_path)
    write_json(tmp_path / "release.json", [{**row, "qid": qid}])
    assert load_tasks("pixelreasoner", tmp_path)[0].suite == f"pixelreasoner/{suite}"


def test_pixelreasoner_with_several_images(tmp_path: Path) -> None:
    [row, *_] = pixelreasoner_rows(tmp_path)
    save(tmp_path / "images/second.jpg", size=(30, 30))
    write_json(
        tmp_path / "release.json", [{**row, "image": [*row["image"], "images/second.jpg"]}, {**row, "image": []}]
    )
    for damaged in everything(load_tasks("pixelreasoner", tmp_path)):
        with pytest.raises(MediaError, match="expected image as a list of one path, or of the frames of a video"):
            damaged.media.frame(0)


def test_pixelreasoner_answers_as_text_and_missing(tmp_path: Path) -> None:
    pytest.importorskip("pyarrow")
    rows = pixelreasoner_rows(tmp_path)[:2]
    plain = [{key: value for key, value in row.items() if key not in ("answer", "is_video")} for row in rows]
    write_parquet(tmp_path / "vstar.parquet", [{**plain[0], "answer": "B"}, {**plain[1], "answer": None}])
    colour, dogs = everything(load_tasks("pixelreasoner", tmp_path))
    assert (colour.answers, dogs.answers) == (("blue",), ())
    assert colour.stated == ("B",)  # what the released scorer compares with
    write_parquet(tmp_path / "vstar.parquet", [{**plain[0], "answer": "Blue"}])
    [colour] = everything(load_tasks("pixelreasoner", tmp_path / "vstar.parquet"))
    assert (colour.answers, colour.stated) == (("blue",), ("Blue",))


def test_pixelreasoner_is_asked_in_its_own_words_by_the_protocol_of_the_release(tmp_path: Path) -> None:
    rows = pixelreasoner_rows(tmp_path)
    rows[1]["question"] = " How many dogs?\n(A) 3\n(B) 4\nAnswer with the letter.\n"
    write_json(tmp_path / "release.json", rows)
    env = PixelReasonEnv(tasks=f"pixelreasoner:{tmp_path}", protocol="pixelreasoner")
    for task, row in enumerate(rows):
        asked = env.reset(options={"task": task})[0]["text"].replace("<image>", "")
        assert asked.startswith(f"{row['question']}\n\nGuidelines: ")
    env = PixelReasonEnv(tasks=f"pixelreasoner:{tmp_path}")
    asked = env.reset(options={"task": 1})[0]["text"]
    assert "How many dogs?\n(A) 3\n(B) 4\n" in asked and "Answer with the letter." not in asked


def test_video_r1(tmp_path: Path) -> None:
    video_r1(tmp_path)
    tasks = load_tasks("video-r1", tmp_path)
    animal, much, read = everything(tasks)
    assert (animal.choices, animal.answers, animal.media.kind) == (("a cat", "a dog"), ("a dog",), "video")
    assert read_code(animal.media.frame(0)) == 0 and animal.media.num_frames == 16
    assert (much.answer_kind, much.answers, read.answer_kind, read.answers) == (
        "number",
        ("3.50",),
        "text",
        ("Total 12",),
    )
    assert [task.task_id for task in everything(tasks.only("image"))] == ["video-r1-1", "video-r1-2"]
    assert len(tasks.only("video")) == 1 and tasks.only("video").index("video-r1-0") == 0
    assert tasks.only("image").only("image") is tasks.only("image")
    with pytest.raises(ValueError, match="expected tasks about videos"):
        tasks.only("image").only("video")


def test_a_folder_of_images(tmp_path: Path) -> None:
    save(tmp_path / "b.PNG")
    save(tmp_path / "a/c.jpg")
    (tmp_path / "notes.txt").write_text("no image")
    (tmp_path / "z.jpg").write_bytes(b"no image")
    tasks = load_tasks("images", tmp_path)
    assert [Path(task.media.path).name for task in everything(tasks)] == ["c.jpg", "b.PNG", "z.jpg"]
    assert tasks[0].question == "What is shown?" and tasks[0].answers == ()
    assert [problem.task_id for problem in problems(tasks)] == ["images-2"]
    with pytest.raises(ValueError, match=r"expected a folder with \.jpg, .* files, got none at"):
        load_tasks("images", tmp_path / "notes.txt")


def own(tmp_path: Path) -> Path:
    save(tmp_path / "images/a.jpg")
    write_coded(tmp_path / "clips/b.mp4", list(range(40)))
    for number in range(3):
        save(tmp_path / f"f/{number}.png", (number, 0, 0))
    return write_lines(tmp_path / "own.jsonl", [
        {"image": "images/a.jpg", "question": "Which colour?", "choices": ["red", "blue"], "answer": "B",
         "boxes": [[10, 10, 20, 20], [50, 5, 60, 30]], "needs_operation": True, "suite": "signs"},
        {"image": "images/a.jpg", "question": "How many?", "answer": 3, "boxes": [1, 2, 3, 4]},
        {"image": "images/a.jpg", "question": "Which?", "answer": ["red, blue", "rot, blau"], "kind": "spans"},
        {"video": "clips/b.mp4", "start": 1.0, "end": 2.0, "question": "What?", "answer": "a cup",
         "window": [1.5, 1.7]},
        {"frames": ["f/0.png", "f/1.png", "f/2.png"], "seconds_per_frame": 2, "question": "What?", "window": [2, 4],
         "boxes": [0, 0, 9, 9], "id": "mine"},
    ])  # fmt: skip


def test_own_json_lines(tmp_path: Path) -> None:
    tasks = load_tasks("jsonl", own(tmp_path))
    colour, many, spans, clip, frames = everything(tasks)
    assert (colour.suite, colour.answers, colour.needs_operation) == ("jsonl/signs", ("blue",), True)
    assert colour.cue == Cue((10, 5, 60, 30)) and many.cue == Cue((1, 2, 3, 4))
    assert (many.suite, many.answer_kind, many.answers, many.needs_operation) == ("jsonl", "number", ("3",), None)
    assert (spans.answer_kind, spans.answers) == ("spans", ("red, blue", "rot, blau"))
    assert [read_code(clip.media.frame(index)) for index in range(clip.media.num_frames)] == list(range(10, 21))
    assert clip.cue == Cue(frames=(5, 6, 7))  # 1.5, 1.6 and 1.7 s
    assert (frames.cue, frames.answers) == (Cue((0, 0, 9, 9), (1, 2)), ())
    assert [frames.media.timestamp(index) for index in range(3)] == [0, 2, 4]
    assert list(problems(tasks)) == []


WRONG = {
    "unknown key": ({"answr": "x"}, r"expected no key but image, .*got 'answr'"),
    "no question": ({"question": ""}, "expected question as a text"),
    "long question": ({"question": "x" * 70_000}, "expected question as a text of 1 to 65536 characters"),
    "two media": ({"video": "b.mp4"}, "expected exactly one of image, video and frames, got image and video"),
    "parent": (
        {"image": "../a.jpg"},
        r"image: expected a path inside the data root, got '\.\./a\.jpg'; make it relative",
    ),
    "hidden parent": ({"image": "x/../../a.jpg"}, "expected a path inside the data root"),
    "backslashes": ({"image": "..\\a.jpg"}, "expected a path inside the data root"),
    "absolute": ({"image": "/etc/passwd"}, "expected a path inside the data root, got '/etc/passwd'"),
    "drive": ({"image": "C:/a.jpg"}, "expected a path inside the data root"),
    "link": (
        {"image": "link.jpg"},
        "expected a path inside the data root, got 'link.jpg', a link that leads out of it",
    ),
    "linked folder": ({"image": "out/secret.jpg"}, "a link that leads out of it"),
    "gone": ({"image": "gone.jpg"}, r"got none at gone\.jpg"),
    "nul": ({"image": "a\0.jpg"}, "expected a path relative to the data root"),
    "number as path": ({"image": 7}, "expected image as a text"),
    "no such choice": ({"choices": ["red", "blue"], "answer": "green"}, "expected answer as one of 2 choices"),
    "choices alike": ({"choices": ["Red", "red."], "answer": "A"}, "names exactly one option"),
    "one choice": ({"choices": ["red"], "answer": "A"}, "expected 2 to 26 options"),
    "kind": ({"kind": "essay"}, "expected kind as number, value, text or spans"),
    "no number": ({"kind": "number", "answer": "many"}, "expected every accepted answer to be one number"),
    "bool answer": ({"answer": True}, "expected answer as a text or a list of texts"),
    "inverted box": ({"boxes": [20, 10, 10, 20]}, "expected boxes as boxes x1, y1, x2, y2 with x1 < x2"),
    "three numbers": ({"boxes": [20, 10, 10]}, "expected boxes as a box of four numbers"),
    "infinite box": ({"boxes": [0, 0, float("inf"), 5]}, "expected boxes as a box of four numbers"),
    "window of an image": ({"window": [0, 1]}, "expected a window only with a video"),
    "half a window": ({"window": [1]}, "expected window as a list of two seconds"),
    "suite": ({"suite": "a\nb"}, "expected suite as a category"),
    "needs": ({"needs_operation": "yes"}, "expected needs_operation as true or false"),
}


@pytest.mark.parametrize(("changes", "message"), WRONG.values(), ids=WRONG)
def test_wrong_lines_say_what_is_wrong(tmp_path: Path, changes: dict, message: str) -> None:
    root = tmp_path / "root"
    save(root / "a.jpg")
    save(tmp_path / "elsewhere/secret.jpg")
    (root / "link.jpg").symlink_to(tmp_path / "elsewhere/secret.jpg")
    (root / "out").symlink_to(tmp_path / "elsewhere")
    good = {"image": "a.jpg", "question": "What?", "answer": "x"}
    write_lines(root / "own.jsonl", [good, {**good, **changes}, good])
    tasks = load_tasks("jsonl", root)
    assert tasks[0].media.width == tasks[2].media.width == 120  # the rest goes on
    with pytest.raises(MediaError, match=rf"own\.jsonl, row 1 \(the first is 0\): .*{message}"):
        _ = tasks[1].media.width
    [problem] = problems(tasks)
    assert problem.task_id == "jsonl-1"


def test_values_of_own_json_lines_are_scored_by_math_verify(tmp_path: Path) -> None:
    pytest.importorskip("math_verify")
    save(tmp_path / "a.jpg")
    line = {"image": "a.jpg", "question": "Which share?", "kind": "value"}
    write_lines(tmp_path / "own.jsonl", [{**line, "answer": answer} for answer in (0.5, ["50%", "1/2"], "1/3", "half")])

    class Half:
        def act(self, conversations: Sequence[Conversation]) -> list[str]:
            return [r"\boxed{\frac{2}{4}}"] * len(conversations)

    played = rollout(Half(), "PixelReason-Zoom-v0", range(4), tasks=f"jsonl:{tmp_path}", progress=False)
    assert [trajectory.correct for trajectory in played[:3]] == [True, True, False]
    assert "expected every accepted answer to be one value" in (played[3].error or "")  # and never a 0
    summary = evaluate(played).suites["jsonl"]
    assert summary.score is not None and summary.score.mean == pytest.approx(2 / 3) and summary.errors == 1


def test_a_snapshot_of_the_hub_is_read(tmp_path: Path) -> None:
    """In its cache a snapshot is a folder of links to `blobs/` beside it; links to elsewhere are still refused."""
    snapshot = tmp_path / "datasets--me--mine/snapshots/0123abc"
    (snapshot / "images").mkdir(parents=True)
    save(tmp_path / "datasets--me--mine/blobs/f00d.png", size=(40, 30)).rename(snapshot.parents[1] / "blobs/f00d")
    save(tmp_path / "secret.png", size=(40, 30))
    (snapshot / "images/a.png").symlink_to("../../../blobs/f00d")
    (snapshot / "images/b.png").symlink_to(tmp_path / "secret.png")
    lines = [{"image": f"images/{name}.png", "question": "?", "answer": "1"} for name in "ab"]
    blob = tmp_path / "datasets--me--mine/blobs/beef"
    blob.write_text("".join(json.dumps(line) + "\n" for line in lines))
    (snapshot / "own.jsonl").symlink_to("../../blobs/beef")
    seen, outside = everything(load_tasks("jsonl", snapshot))
    assert seen.media.frame(0).size == (40, 30)
    with pytest.raises(MediaError, match=r"a link that leads out of it to .*secret.png; copy the file"):
        outside.media.frame(0)


def test_a_link_inside_the_root_is_fine(tmp_path: Path) -> None:
    save(tmp_path / "a.jpg")
    (tmp_path / "b.jpg").symlink_to(tmp_path / "a.jpg")
    write_lines(tmp_path / "own.jsonl", [{"image": "b.jpg", "question": "What?"}])
    assert load_tasks("jsonl", tmp_path)[0].media.width == 120


def test_the_validator(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = own(tmp_path)
    assert main([str(path)]) == 0
    assert capsys.readouterr().out == "5 tasks, 0 that cannot be used\n"
    with open(path, "a") as file:
        file.write(json.dumps({"image": "images/a.jpg", "question": "What?", "boxes": [0, 0, 500, 9]}) + "\n{\n")
    assert main([f"jsonl:{path}"]) == 1
    said = capsys.readouterr().out.splitlines()
    assert said[0] == "jsonl-5: expected a box within 120 x 90 pixels, got 0, 0, 500, 9; correct the box"
    assert said[1].startswith("jsonl-6: own.jsonl, row 6") and said[2] == "7 tasks, 2 that cannot be used"
    assert main([str(tmp_path / "nothing")]) == 1
    assert "expected a file or a folder" in capsys.readouterr().err


def test_every_key_is_described() -> None:
    assert all(text for text in KEYS.values())
