"""The fingerprint of questions: equal for the same ones wherever they lie, and other for other pictures."""

import shutil
from collections.abc import Callable
from pathlib import Path

import layouts
import pytest

from benchmarks.fingerprint import fingerprint
from pixel_env.tasks import ProceduralTasks, load_tasks


def of(name: str, path: Path) -> str:
    tasks = load_tasks(name, path)
    return fingerprint([tasks[index] for index in range(len(tasks))])


def hrbench(folder: Path, colour: tuple[int, int, int] | None = None) -> str:
    """The fingerprint of HR-Bench as TSV, with another last picture if a colour is given."""
    folder.mkdir()
    path = layouts.hrbench_tsv(folder / "hr_bench_4k.tsv")
    if colour is not None:
        last = layouts.hrbench_rows()[-1]["image"]
        path.write_text(path.read_text().replace(last, layouts.base64_png(colour)))
    return of("hrbench", path)


def test_pictures_in_a_table(tmp_path: Path) -> None:
    same = hrbench(tmp_path / "a")
    assert hrbench(tmp_path / "b") == same != hrbench(tmp_path / "c", (1, 2, 3))


def test_a_parquet_file_holds_the_same_pictures_as_a_tsv_file(tmp_path: Path) -> None:
    pytest.importorskip("pyarrow")
    path = layouts.write_parquet(tmp_path / "hr_bench_4k.parquet", layouts.hrbench_rows())
    assert of("hrbench", path) == hrbench(tmp_path / "tsv")


@pytest.mark.parametrize(
    ("name", "write", "file"),
    [
        ("vstar", layouts.vstar, "direct_attributes/sa_1.jpg"),
        ("mvbench", layouts.mvbench, "video/perception/videos/v1.mp4"),
        ("mvbench", layouts.mvbench, "video/tvqa/frames_fps3_hq/show/00006.jpg"),
    ],
)
def test_files(name: str, write: Callable[[Path], Path], file: str, tmp_path: Path) -> None:
    same = of(name, write(tmp_path / "a"))
    changed = Path(shutil.copytree(tmp_path / "a", tmp_path / "b"))  # written again a video may have other bytes
    assert of(name, changed) == same
    (changed / file).write_bytes((changed / file).read_bytes() + b"more")
    assert of(name, changed) != same


def test_generated_tasks() -> None:
    a, b = (ProceduralTasks(("search",), preset="micro", seed=seed) for seed in (0, 1))
    assert fingerprint([a[0], a[1]]) == fingerprint([a[1], a[0]]) != fingerprint([b[0], b[1]])
