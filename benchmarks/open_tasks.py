"""How long it takes to open a large task set, and how much memory: ``python benchmarks/open_tasks.py``.

Sets are made in a temporary folder: 10,000 videos, parquet files and a TSV file of pictures, and JSON of 250,000
questions. Each is opened, and one task looked at, in a process of its own; the last two columns are the most memory it
held, less what importing takes (Linux only). Pictures are noise, so nothing is smaller than it looks.
Making the second parquet file takes about four times its size in memory.
"""

import argparse
import base64
import io
import json
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from benchmarks.provenance import RESULTS, provenance
from pixel_env.journal import replace_text
from pixel_env.media import write_video
from pixel_env.tasks import ProceduralTasks, load_tasks

PACKAGES = ("pixel-env", "numpy", "pillow", "pyarrow", "av")


def encoded(side: int, seed: int = 0) -> str:
    """A picture of side x side noise as base64 text."""
    buffer = io.BytesIO()
    noise = np.random.default_rng(seed).integers(0, 255, (side, side, 3), dtype=np.uint8)
    Image.fromarray(noise).save(buffer, "PNG", compress_level=0)
    return base64.b64encode(buffer.getvalue()).decode()


def make_videos(folder: Path, count: int) -> str:
    """A folder of copies of one video."""
    folder.mkdir()
    write_video(ProceduralTasks(("clip",), preset="micro")[0].media, folder / "0.mp4")
    for number in range(1, count):
        shutil.copy(folder / "0.mp4", folder / f"{number}.mp4")
    return f"videos:{folder}"


def hrbench_row(image: str, number: int) -> dict[str, str]:
    """A row of HR-Bench."""
    return {"index": str(number), "question": "Which?", "answer": "A", **dict.fromkeys("ABCD", "x"), "A": "y",
            "category": "single", "cycle_category": "0", "image": image}  # fmt: skip


def make_parquet(folder: Path, rows: int, side: int) -> str:
    """HR-Bench as parquet, 50 pictures a row group and one a page."""
    import pyarrow
    import pyarrow.parquet

    folder.mkdir()
    image = encoded(side)
    schema = pyarrow.schema([(name, pyarrow.string()) for name in hrbench_row("", 0)])
    options: dict[str, Any] = {"compression": "none", "use_dictionary": False, "write_batch_size": 1}
    with pyarrow.parquet.ParquetWriter(folder / "hr_bench_8k.parquet", schema, **options) as writer:
        for start in range(0, rows, 50):
            batch = [hrbench_row(image, number) for number in range(start, min(start + 50, rows))]
            writer.write_table(pyarrow.Table.from_pylist(batch, schema))
    return f"hrbench:{folder}"


def make_parquet_at_once(folder: Path, rows: int, side: int) -> str:
    """HR-Bench as pandas writes it: one row group with a dictionary of its pictures, each shown four times."""
    import pyarrow
    import pyarrow.parquet

    folder.mkdir()
    pictures = [encoded(side, seed) for seed in range((rows + 3) // 4)]
    table = pyarrow.Table.from_pylist([hrbench_row(pictures[number // 4], number) for number in range(rows)])
    pyarrow.parquet.write_table(table, folder / "hr_bench_8k.parquet")
    return f"hrbench:{folder}"


def make_tsv(folder: Path, rows: int, side: int) -> str:
    """HR-Bench as TSV."""
    folder.mkdir()
    image = encoded(side)
    with open(folder / "hr_bench_8k.tsv", "w") as file:
        file.write("\t".join(hrbench_row("", 0)) + "\n")
        file.writelines("\t".join(hrbench_row(image, number).values()) + "\n" for number in range(rows))
    return f"hrbench:{folder}"


def make_json(folder: Path, rows: int) -> str:
    """TallyQA's training split."""
    folder.mkdir()
    Image.new("RGB", (640, 480)).save(folder / "1.jpg")
    item = {"answer": 2, "data_source": "imported_vqa", "image": "1.jpg", "image_id": 1, "issimple": False}
    items = [{**item, "question": f"How many of number {row} are there?", "question_id": row} for row in range(rows)]
    (folder / "train.json").write_text(json.dumps(items))
    return f"tallyqa-complex:{folder}/train.json"


def memory(field: str) -> int:
    """``VmRSS``, resident memory now, or ``VmHWM``, the most so far, in kB."""
    status = Path("/proc/self/status").read_text()
    return int(status.partition(f"{field}:")[2].split()[0])


def measure(spec: str) -> dict[str, float]:
    """Open a set and look at a task in the middle; seconds, waiting included or not, and peaks of memory in MB."""
    before = memory("VmRSS")
    name, _, path = spec.partition(":")
    start, worked = time.perf_counter(), time.process_time()
    tasks = load_tasks(name, path)
    opened, worked = time.perf_counter(), time.process_time() - worked
    at_opening = memory("VmHWM")
    tasks[len(tasks) // 2].media.frame(0)
    looked = time.perf_counter()
    peak = memory("VmHWM")
    return {
        "tasks": len(tasks),
        "open s": opened - start,
        "open CPU s": worked,
        "look s": looked - opened,
        "open MB": (at_opening - before) / 1024,
        "peak MB": (peak - before) / 1024,
    }


def makers(gigabytes: float) -> dict[str, Callable[[Path], str]]:
    """What a set is called: makes it in a folder that is not there yet, and returns its ``NAME:PATH``."""
    side, picture = 1024, len(encoded(1024))
    rows = max(1, int(gigabytes * 1e9 / picture))
    return {
        "10,000 videos": lambda folder: make_videos(folder, 10_000),
        f"parquet, {gigabytes:g} GB, a page a picture": lambda folder: make_parquet(folder, rows, side),
        f"parquet, {gigabytes:g} GB, one row group": lambda folder: make_parquet_at_once(folder, rows, side),
        f"TSV, {gigabytes:g} GB": lambda folder: make_tsv(folder, rows, side),
        "JSON, 250,000 questions": lambda folder: make_json(folder, 250_000),
    }


def main() -> None:
    """Make the sets, measure each, print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--gigabytes", type=float, default=2.8, help="pictures in each table (default 2.8)")
    parser.add_argument("--out", type=Path, default=RESULTS / "open_tasks.json", help="JSON file to write")
    parser.add_argument("--measure", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.measure:
        print(json.dumps(measure(arguments.measure)))
        return
    about, results = provenance(PACKAGES), []
    print("| set | tasks | open s | open CPU s | look s | open MB | peak MB |\n|---|---|---|---|---|---|---|")
    for name, make in makers(arguments.gigabytes).items():
        with tempfile.TemporaryDirectory() as temporary:
            spec = make(Path(temporary) / "set")
            command = [sys.executable, __file__, "--measure", spec]
            numbers = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
        results.append({"set": name} | {key: round(value, 2) for key, value in numbers.items()})
        print(f"| {name} | {numbers.pop('tasks')} | " + " | ".join(f"{value:.2f}" for value in numbers.values()) + " |")
    replace_text(arguments.out, json.dumps(about | {"results": results}, indent=1) + "\n")


if __name__ == "__main__":
    main()
