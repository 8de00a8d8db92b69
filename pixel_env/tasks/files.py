"""Task sets from files: one call opens any of the formats, and a row becomes a task when it is asked for."""

import glob
from bisect import bisect_left
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from pixel_env.decoding import MediaError
from pixel_env.prompts import WHAT_IS_SHOWN
from pixel_env.tasks import image_sets, message_lists, mixed_sets, video_sets, zoom_sets
from pixel_env.tasks.paths import media_root
from pixel_env.tasks.records import Fields
from pixel_env.tasks.row import Row
from pixel_env.tasks.sources import DamagedMedia
from pixel_env.tasks.tables import Table
from pixel_env.tasks.task import Task

MEDIA = ("image", "video")


@dataclass(frozen=True)
class Format:
    """How a set lies on disk.

    Attributes:
        layout: What the path holds, for people.
        open: Finds and indexes the table.
        task: Makes a task of a row; raises ValueError for a damaged one.
        media: ``"image"`` or ``"video"``, or a function of the cells where a set has both.
        keep: Which rows belong to the set; all without it.
    """

    layout: str
    open: Callable[[Path], Table]
    task: Callable[[Row], Task]
    media: str | Callable[[Fields], str]
    keep: Callable[[Fields], bool] | None = None

    def kind(self, fields: Fields) -> str:
        """Return the kind of media of a row."""
        return self.media if isinstance(self.media, str) else self.media(fields)


FORMATS = {
    "vstar": Format(
        "folder of V*Bench: test_questions.jsonl, direct_attributes/, relative_position/",
        image_sets.open_vstar,
        image_sets.vstar_task,
        "image",
    ),
    "hrbench": Format(
        "hr_bench_4k or hr_bench_8k, .parquet or .tsv", image_sets.open_hrbench, image_sets.hrbench_task, "image"
    ),
    "tallyqa": Format(
        "test.json or train.json, images beside it", image_sets.open_tallyqa, image_sets.tallyqa_task, "image"
    ),
    "tallyqa-complex": Format(
        "the same; complex questions only",
        image_sets.open_tallyqa,
        image_sets.tallyqa_task,
        "image",
        image_sets.is_complex,
    ),
    "infographicvqa": Format(
        "JSON of the challenge or parquet of the Hub", image_sets.open_documents, image_sets.document_task, "image"
    ),
    "docvqa": Format(
        "JSON of the challenge or parquet of the Hub", image_sets.open_documents, image_sets.document_task, "image"
    ),
    "mme-realworld": Format(
        "parquet of MME-RealWorld or its Lite", zoom_sets.open_mme_realworld, zoom_sets.mme_realworld_task, "image"
    ),
    "visualprobe": Format(
        "val.json or train.json, data/ beside it", zoom_sets.open_visualprobe, zoom_sets.visualprobe_task, "image"
    ),
    "treebench": Format("TreeBench.tsv or its parquet", zoom_sets.open_treebench, zoom_sets.treebench_task, "image"),
    "zoombench": Format(
        "folder with data/test.parquet, or the parquet", zoom_sets.open_zoombench, zoom_sets.zoombench_task, "image"
    ),
    "mvbench": Format("folder with json/ and video/", video_sets.open_mvbench, video_sets.mvbench_task, "video"),
    "star": Format(
        "STAR_train.json, STAR_val.json or STAR_test.json, videos beside it",
        video_sets.open_star,
        video_sets.star_task,
        "video",
    ),
    "pixelreasoner": Format(
        "parquet or JSON of the RL and evaluation data, images/ and videos/ beside it",
        mixed_sets.open_pixelreasoner,
        mixed_sets.pixelreasoner_task,
        mixed_sets.pixelreasoner_media,
    ),
    message_lists.FORMAT: Format(
        "JSON of the SFT data, images/ and videos/ beside it",
        message_lists.open_messages,
        message_lists.messages_task,
        message_lists.messages_media,
    ),
    "video-r1": Format(
        "Video-R1-260k.json or one of its kind, media beside it",
        mixed_sets.open_video_r1,
        mixed_sets.video_r1_task,
        mixed_sets.video_r1_media,
    ),
    "images": Format("folder of images, no questions", mixed_sets.open_images, mixed_sets.image_task, "image"),
    "videos": Format("folder of videos, no questions", mixed_sets.open_videos, mixed_sets.video_task, "video"),
    "jsonl": Format("our own JSON Lines", mixed_sets.open_jsonl, mixed_sets.jsonl_task, mixed_sets.jsonl_media),
}
"""Name of a format: how it is read."""


TABLES = ("*.json", "*.jsonl", "*.parquet", "*.tsv", "data/*.parquet", "json/*.json", "*_qas/*.json")
"""Where the tables of a folder lie, whatever its format."""
Changed = tuple[tuple[int, int], ...]


class FileTasks:
    """A task set over files, made by `load_tasks`. Holds where its rows are, and no pictures.

    The id of a task is ``NAME-ROW``, the row counted from 0 in the order of the files, whatever part of the set was
    asked for. Two splits of one format share ids: evaluate them apart. A row that cannot be used becomes a task whose
    media raise `pixel_env.decoding.MediaError`: a rollout counts it as an error, `pixel_env.tasks.validate` lists it.
    Pickles as the call that made it.
    """

    def __init__(
        self, name: str, path: Path, root: Path, seed: int, num_frames: int, question: str, media: str | None
    ) -> None:
        """Open the files; `load_tasks` checks the arguments."""
        self._arguments = (name, path, root, seed, num_frames, question, media)
        self.name, self.path, self.root, self.media = name, path, root, media
        self._format = FORMATS[name]
        self._table = self._format.open(path)
        self._rows: Sequence[int] = range(len(self._table))
        if self._format.keep or media not in (None, self._format.media):
            self._rows = [row for row in self._rows if self._belongs(row)]
        if not self._rows:
            raise ValueError(
                f"expected {media or 'some'} tasks of {name} in {path}, got none of {len(self._table)} rows"
            )

    def __reduce__(self) -> tuple[Any, ...]:
        return FileTasks, self._arguments

    def __len__(self) -> int:
        return len(self._rows)

    def __getitem__(self, index: int) -> Task:
        if not 0 <= index < len(self):
            raise IndexError(f"task index must be in [0, {len(self)}), got {index}")
        number = self._rows[index]
        fields: Fields = {}
        _, _, root, seed, num_frames, question, _ = self._arguments
        try:
            fields = self._table[number]
            row = Row(self.name, number, fields, self._table, root, seed, num_frames, question)
            return self._format.task(row)
        except (ValueError, OSError, MediaError) as error:
            kind = self.media or self._format.kind(fields)
            return Task(f"{self.name}-{number}", self.name, "", DamagedMedia(kind, str(error)), (), "text")

    def index(self, task_id: str) -> int:
        """Index of the task with this id; raises ValueError for an id that is not of this set."""
        name, _, number = task_id.rpartition("-")
        if name == self.name and number.isascii() and number.isdigit() and len(number) < 12:
            position = bisect_left(self._rows, int(number))
            if position < len(self) and self._rows[position] == int(number):
                return position
        raise ValueError(f"no task {task_id!r} in this set; its first is '{self.name}-{self._rows[0]}'")

    def task_id(self, index: int) -> str:
        """Return the id of a task without reading it."""
        return f"{self.name}-{self._rows[index]}"

    def fields(self, task_id: str) -> Fields:
        """Return what the files say about a task, pictures left out."""
        return self._table[self._rows[self.index(task_id)]]

    def place(self, task_id: str) -> str:
        """Say in which file and row a task lies, for messages."""
        return self._table.place(self._rows[self.index(task_id)])

    def only(self, media: str) -> "FileTasks":
        """Return the tasks about one kind of media, ``"image"`` or ``"video"``.

        Raises:
            ValueError: There are none.
        """
        if media in (self.media, self._format.media):
            return self
        if self.media is not None or isinstance(self._format.media, str):
            raise ValueError(
                f"expected tasks about {media}s, but {self.name} at {self.path} has none; use another env id"
            )
        return _open(*self._arguments[:-1], media, _changed(self.path))

    def _belongs(self, row: int) -> bool:
        try:
            fields = self._table[row]
        except ValueError:
            return True  # stays in, to be counted
        kept = self._format.keep is None or self._format.keep(fields)
        return kept and self.media in (None, self._format.kind(fields))


def load_tasks(
    name: str,
    path: str | Path,
    *,
    root: str | Path | None = None,
    seed: int = 0,
    num_frames: int = 16,
    question: str = WHAT_IS_SHOWN,
) -> FileTasks:
    """Open a task set that lies on disk; quick whatever its size, since media are read when a task is looked at.

    A set that is opened twice is the same object, unless a table of it, or the folder, changed in between.

    Args:
        name: A key of `FORMATS`.
        path: A folder, a table, or the common beginning of parquet shards.
        root: Folder that media paths start from and must stay in; by default ``path``, or the folder of the table,
            or the folder above ``*_qas/`` where ``*_images/`` lies beside it.
        seed: Of shuffled options, in sets that always list the right one first.
        num_frames: Frames taken from each video.
        question: What ``"images"`` and ``"videos"``, which come without questions, are asked.

    Raises:
        ValueError: An unknown name; nothing of that format at the path; a table that lacks a column.
        ImportError: A parquet file, and pyarrow is not installed.
    """
    if name not in FORMATS:
        raise ValueError(f"expected the name of a format, one of {', '.join(FORMATS)}, got {name!r}")
    if not isinstance(num_frames, int) or not 1 <= num_frames <= 1024:
        raise ValueError(f"expected num_frames from 1 to 1024, got {num_frames!r}")
    if not isinstance(seed, int) or seed < 0:
        raise ValueError(f"expected seed as an int of at least 0, got {seed!r}")
    place = Path(path).expanduser()
    start = media_root(place) if root is None else Path(root).expanduser()
    if not start.is_dir():
        raise ValueError(f"expected a folder for the media, got {start}, where there is none; check path and root")
    return _open(name, place, start, seed, num_frames, question, None, _changed(place))


def tasks_from_spec(spec: str) -> FileTasks:
    """Open the task set that ``"NAME:PATH"`` means, as ``gymnasium.make(..., tasks="vstar:/data/vstar_bench")`` does.

    Raises:
        ValueError: The text has another form, and whatever `load_tasks` raises.
    """
    name, colon, path = spec.partition(":")
    if not colon or not path:
        raise ValueError(f"expected tasks as 'NAME:PATH', such as 'vstar:/data/vstar_bench', got {spec!r}")
    return load_tasks(name, path)


@lru_cache(maxsize=16)  # a rollout opens the same set in each of its environments
def _open(
    name: str, path: Path, root: Path, seed: int, num_frames: int, question: str, media: str | None, changed: Changed
) -> FileTasks:
    return FileTasks(name, path, root, seed, num_frames, question, media)


def _changed(path: Path) -> Changed:
    """Return when ``path`` and the tables that may be meant by it changed, and their sizes."""
    if path.is_dir():
        places = [file for pattern in TABLES for file in path.glob(pattern)]
    else:
        places = list(path.parent.glob(f"{glob.escape(path.name)}-*-of-*.parquet"))
    stats = [place.stat() for place in (path, *sorted(places)) if place.exists()]
    return tuple((stat.st_mtime_ns, stat.st_size) for stat in stats)
