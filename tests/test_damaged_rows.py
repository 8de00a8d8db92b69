"""No row of a data file ends a run, whatever stands in its cells, and no file that is found by name leads out."""

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from layouts import (
    hrbench_tsv,
    infographicvqa,
    mme_realworld_rows,
    mvbench,
    pixelreasoner_rows,
    pixelreasoner_sft,
    save,
    star,
    tallyqa,
    treebench_tsv,
    video_r1,
    visualprobe,
    vstar,
    write_coded,
    write_json,
    write_lines,
    write_parquet,
    zoombench_rows,
)

from pixel_env import grading
from pixel_env.decoding import MediaError
from pixel_env.grading import grade
from pixel_env.policies import DirectPolicy
from pixel_env.rollout import rollout
from pixel_env.tasks import FORMATS, FileTasks, Task, load_tasks, row
from pixel_env.tasks.records import Fields
from pixel_env.tasks.sources import DamagedMedia

HUGE = 10**400
NUMBERS: list[Any] = [None, True, -1, 0, 1e308, -1e308, float("inf"), float("nan"), HUGE, -HUGE]
TEXTS: list[Any] = ["", "x", ".", "./", "..", "/", ":", "\ud800", "a\0b", "a" * 300, "x/" * 400, "A" * 70_000]
LISTS: list[Any] = [[], [[]], [None], [HUGE], [[HUGE] * 4], [1, 2, 3, HUGE], [0, HUGE], ["."], {}, {"a": HUGE}, [{}]]
JUNK = [*NUMBERS, *TEXTS, *LISTS, "[" * 5000, f"[[1, 2, 3, {HUGE}]]", [{"role": "user", "content": "x"}] * 3]


class Altered:
    """A table of which one row reads otherwise."""

    def __init__(self, table: Any, fields: Fields) -> None:
        self.table, self.fields = table, fields

    def __getitem__(self, row: int) -> Fields:
        return self.fields

    def __getattr__(self, name: str) -> Any:
        return getattr(self.table, name)


def own(root: Path) -> Path:
    save(root / "a.png")
    write_coded(root / "v.mp4", [0, 1, 2, 3], rate=1)
    asked = {"question": "Which?", "answer": ["1", "2"], "suite": "s", "needs_operation": True, "id": "i"}
    video = {"video": "v.mp4", "start": 0, "end": 3, "boxes": [[1, 2, 3, 4]], "window": [0, 1]}
    frames = {"frames": ["a.png", "a.png"], "seconds_per_frame": 1, "boxes": [1, 2, 3, 4], "window": [0, 1]}
    choice = {"image": "a.png", "choices": ["1", "3"], "boxes": [1, 2, 3, 4]}
    kinds = [{"image": "a.png", "kind": kind} for kind in ("number", "text", "spans")]
    return write_lines(root / "own.jsonl", [asked | one for one in (video, frames, choice, *kinds)])


def pictures(root: Path) -> Path:
    save(root / "a.png")
    return root


def videos(root: Path) -> Path:
    own(root)
    return root


LAYOUTS: dict[str, Callable[[Path], object]] = {
    "vstar": vstar,
    "hrbench": lambda root: hrbench_tsv(root / "hr_bench_4k.tsv"),
    "tallyqa": tallyqa,
    "tallyqa-complex": tallyqa,
    "infographicvqa": infographicvqa,
    "docvqa": infographicvqa,
    "mme-realworld": lambda root: write_parquet(root / "a.parquet", mme_realworld_rows()),
    "visualprobe": visualprobe,
    "treebench": lambda root: treebench_tsv(root / "TreeBench.tsv"),
    "zoombench": lambda root: write_parquet(root / "data/test.parquet", zoombench_rows()),
    "mvbench": mvbench,
    "star": star,
    "pixelreasoner": lambda root: write_json(root / "rl.json", pixelreasoner_rows(root)),
    "pixelreasoner-sft": pixelreasoner_sft,
    "video-r1": video_r1,
    "images": pictures,
    "videos": videos,
    "jsonl": own,
}
TABLES = {"tallyqa": "test.json", "tallyqa-complex": "test.json", "infographicvqa": "val.json", "docvqa": "val.json"}
TABLES |= {"visualprobe": "VisualProbe_Hard/val.json", "star": "STAR_val.json"}
"""Table of a folder, where it holds more than one."""


def opened(name: str, root: Path) -> FileTasks:
    LAYOUTS[name](root)
    return load_tasks(name, root / TABLES.get(name, ""))


@pytest.mark.parametrize("name", FORMATS)
def test_no_cell_of_any_format_raises(name: str, tmp_path: Path) -> None:
    """A row is a task or a damaged item, whichever of its cells holds what, or is not there."""
    tasks = opened(name, tmp_path)
    table, damaged = tasks._table, 0
    whole = [index for index in range(len(tasks)) if not isinstance(tasks[index].media, DamagedMedia)]
    assert whole
    for index in whole[:3] if name != "jsonl" else whole:
        fields = table[tasks._rows[index]]
        for key in fields.keys() - {"part"}:  # the table's own word, whatever the file says
            left_out = {other: value for other, value in fields.items() if other != key}
            for altered in (left_out, *(fields | {key: junk} for junk in JUNK)):
                tasks._table = Altered(table, altered)  # type: ignore[assignment]
                task = tasks[index]
                assert isinstance(task, Task)
                damaged += isinstance(task.media, DamagedMedia)
        tasks._table = table
    assert damaged > len(JUNK)


def test_a_message_list_of_anything(tmp_path: Path) -> None:
    tasks = opened("pixelreasoner-sft", tmp_path)
    asked = [{"type": "text", "text": "q"}, {"type": "image", "image": "images/2-0.jpg"}]
    answered = {"role": "assistant", "content": "\\boxed{A}"}
    for junk in JUNK:
        user: list[Any] = [junk, [junk], [{"text": junk}, {"image": junk}], [{"video": junk}]]
        lists = [[{"role": "user", "content": content}, answered] for content in user]
        lists += [[{"role": junk, "content": asked}, answered], [{"role": "user", "content": asked}, junk]]
        lists += [[{"role": "user", "content": asked}, {"role": "assistant", "content": [{"text": junk}]}]]
        for messages in lists:
            tasks._table = Altered(tasks._table, {"message_list": messages})  # type: ignore[assignment]
            assert isinstance(tasks[0], Task)


def test_a_damaged_row_costs_its_episode(tmp_path: Path) -> None:
    save(tmp_path / "a.png")
    asked = {"question": "Which?", "answer": "1"}
    rows = [{"image": "a.png"}, {"image": "."}, {"image": "a.png", "boxes": [1, 2, 3, HUGE]}, {"image": "a.png"}]
    tasks = load_tasks("jsonl", write_lines(tmp_path / "own.jsonl", [asked | row for row in rows]))
    episodes = rollout(DirectPolicy(), "PixelReason-Zoom-v0", range(4), tasks=tasks, progress=False)
    assert [episode.error is None for episode in episodes] == [True, False, False, True]
    assert "own.jsonl, row 1 (the first is 0): image: expected a path relative to the data root, got '.'" in (
        episodes[1].error or ""
    )


# --- many answers -----------------------------------------------------------------------------------------------------


def test_opening_a_row_grades_each_answer_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    save(tmp_path / "a.png")
    asked = {"image": "a.png", "question": "Which?"}
    rows = [asked | {"answer": [f"{number} ab" for number in range(200)], "kind": "text"}]
    rows += [asked | {"answer": list(range(count)), "kind": "value"} for count in (50, 51)]
    compared: list[str] = []
    monkeypatch.setattr(grading, "compare", lambda gold, answer: compared.append(answer) or "equal")
    graded: list[int] = []
    monkeypatch.setattr(row, "grade", lambda task, answer: graded.append(len(task.answers)) or grade(task, answer))
    tasks = load_tasks("jsonl", write_lines(tmp_path / "own.jsonl", rows))
    assert len(tasks[0].answers) == 200 and graded == [1] * 200
    assert len(tasks[1].answers) == 50 and len(compared) == 50
    with pytest.raises(MediaError, match="expected at most 50 answers of the kind value, got 51; keep some"):
        tasks[2].media.frame(0)


# --- files that are found by name -------------------------------------------------------------------------------------


def leaks(tasks: FileTasks, index: int = 0) -> None:
    """The row is damaged, and says why."""
    with pytest.raises(MediaError, match="a link that leads out of it"):
        tasks[index].media.frame(0)


def led_out(path: Path, elsewhere: Path) -> None:
    """Put a link to the same content outside of the root in the place of a file."""
    elsewhere.mkdir(exist_ok=True)
    path.rename(elsewhere / path.name)
    path.symlink_to(elsewhere / path.name)


@pytest.mark.parametrize("questions", [True, False])
@pytest.mark.parametrize("suffix", [".jpg", ".json"])
def test_vstar_follows_no_link_out(tmp_path: Path, questions: bool, suffix: str) -> None:
    root = vstar(tmp_path / "root", questions)
    assert load_tasks("vstar", root)[0].cue is not None
    led_out(root / f"direct_attributes/sa_1{suffix}", tmp_path / "elsewhere")
    leaks(load_tasks("vstar", root))
    assert load_tasks("vstar", root)[1].media.width == 120


def test_frames_of_mvbench_follow_no_link_out(tmp_path: Path) -> None:
    tasks = load_tasks("mvbench", mvbench(tmp_path / "root"))
    for number in range(1, 31):
        led_out(tmp_path / f"root/video/tvqa/frames_fps3_hq/show/{number:05d}.jpg", tmp_path / "elsewhere")
    leaks(tasks, 2)


@pytest.mark.parametrize("name", ["images", "videos"])
def test_folders_of_media_follow_no_link_out(tmp_path: Path, name: str) -> None:
    LAYOUTS[name](tmp_path / "root")
    led_out(tmp_path / "root" / ("a.png" if name == "images" else "v.mp4"), tmp_path / "elsewhere")
    leaks(load_tasks(name, tmp_path / "root"))


@pytest.mark.parametrize("name", ["infographicvqa", "visualprobe"])
def test_images_looked_for_in_several_places_follow_no_link_out(tmp_path: Path, name: str) -> None:
    tasks = opened(name, tmp_path / "root")
    media: Any = tasks[0].media
    led_out(Path(media.path), tmp_path / "elsewhere")
    leaks(tasks)


def test_a_pipe_is_no_file(tmp_path: Path) -> None:
    """Whoever opens one waits for a writer that does not come."""
    root = vstar(tmp_path, questions=False)
    annotation = root / "direct_attributes/sa_1.json"
    annotation.unlink()
    os.mkfifo(annotation)
    with pytest.raises(MediaError, match="expected a file below"):
        load_tasks("vstar", root)[0].media.frame(0)
    line = json.dumps({"image": "pipe.png", "question": "Which?", "answer": "1"})
    os.mkfifo(tmp_path / "pipe.png")
    (tmp_path / "own.jsonl").write_text(line)
    with pytest.raises(MediaError, match="expected a file below"):
        load_tasks("jsonl", tmp_path / "own.jsonl")[0].media.frame(0)
