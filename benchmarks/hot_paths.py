"""How fast the environment is where it is called most, each path beside what it is to be compared with.

    python benchmarks/hot_paths.py                        # all of it, about five minutes on two idle cores

Both sides of a comparison run in turn, in one process, so ratios hold on a busy machine too; shown are medians with
quartiles. Media are written first: JPEGs of 4K and 8K, and a minute of 1080p video with a key frame every 30 and every
250 frames. The table also goes into docs/speed.md. With --only, what is not measured stays as it is in the JSON file.
"""

import argparse
import importlib.util
import json
import re
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium.envs.registration import EnvSpec

from benchmarks.duel import Row, Wanted, duel
from benchmarks.hot_media import FRAMES, Scale, pixels, write_clips, write_pictures
from benchmarks.hot_rest import breakdown, memory
from benchmarks.hot_sides import all_frames, decoded, hostile, make, pillow, share_of
from benchmarks.provenance import RESULTS, provenance, readable
from pixel_env import decoding
from pixel_env.actions import MAX_TURN_CHARACTERS, parse
from pixel_env.cache import DECODED
from pixel_env.journal import replace_text
from pixel_env.media import ImageFile, VideoFile

PACKAGES = ("pixel-env", "gymnasium", "numpy", "pillow", "av", "decord")
PAGE = Path(__file__).parents[1] / "docs" / "speed.md"
SELECTED = "select_frames([1, 3, 5, 7, 9, 11, 13, 15])"
Env = gym.Env[Any, Any]


# --- paths ------------------------------------------------------------------------------------------------------------


def first_views(folder: Path, scale: Scale) -> Iterator[Row]:
    """Look for the first time at a JPEG, also with one crop after it, beside decoding all of it."""
    for name, megapixels, times in scale.views:
        path = folder / f"{name}.jpg"
        env = make(ImageFile(path), view_pixels=pixels(megapixels))
        observation, info = env.reset()
        size, call = info["views"][0].size, share_of(observation, 0.125)
        crop = env.step(call)[4]["views"][0]

        def view(path: Path = path, size: Any = size) -> None:
            np.array(pillow(decoded(path), size))

        def plain_view(path: Path = path, size: Any = size) -> None:
            np.array(decoded(path).resize(size))

        def episode(env: Env = env, call: str = call) -> None:
            env.reset()
            env.step(call)

        def view_and_crop(path: Path = path, size: Any = size, crop: Any = crop) -> None:
            picture = decoded(path)
            np.array(pillow(picture, size)), np.array(pillow(picture, crop.size, crop.region))

        race = partial(duel, repeats=scale.repeats, before=DECODED.clear)
        case, wanted = f"{name}, view of {megapixels:g} MP", Wanted(times=times)
        yield race("reset", case, env.reset, "decoding all of it, resizing", view, wanted=wanted)
        yield race("reset", case, env.reset, "the same with Pillow's default filter", plain_view)
        yield race("reset and a crop", case, episode, "decoding all of it, resizing twice", view_and_crop)


def crops(folder: Path, scale: Scale) -> Iterator[Row]:
    """Step on a decoded picture beside the resizing alone."""
    for name in dict.fromkeys(name for name, *_ in reversed(scale.views[1:])):
        path = folder / f"{name}.jpg"
        env, picture = make(ImageFile(path)), ImageFile(path).frame(0)
        for part in (0.125, 0.25, 0.5):
            call = share_of(env.reset()[0], part)
            shot = env.step(call)[4]["views"][0]
            alone = partial(pillow, picture, shot.size, shot.region)
            case, wanted = f"{name}, {part:g} of each side", Wanted(times=0.77)  # 1 / 1.3
            yield duel("crop_image", case, partial(env.step, call), "Pillow's resize", alone, 3 * scale.repeats, wanted)


def videos(folder: Path, scale: Scale) -> Iterator[Row]:
    """Look at a video and select eight frames beside decoding every frame; and the two readers."""
    for interval, times in scale.intervals:
        path, slow = folder / f"{interval}.mp4", max(1, scale.repeats // 3)
        env, indices = make(VideoFile(path)), decoding.sample_frames(scale.video[2], FRAMES)
        first, second = env.reset()[1]["views"][0].size, env.step(SELECTED)[4]["views"][0].size

        def episode(env: Env = env) -> None:
            env.reset()
            env.step(SELECTED)

        def everything(path: Path = path, indices: Any = indices, first: Any = first, second: Any = second) -> None:
            pictures = all_frames(path, indices)
            for some, size in ((pictures, first), (pictures[::2], second)):
                for picture in some:
                    np.array(pillow(picture, size))

        case, wanted = f"a key frame every {interval}", Wanted(times=times)
        against = "decoding every frame, resizing"
        yield duel("16 frames, then 8", case, episode, against, everything, slow, wanted, before=DECODED.clear)
        if importlib.util.find_spec("decord"):
            by_pyav = partial(decoding.read_with_pyav, str(path), indices)
            by_decord = partial(decoding.read_with_decord, str(path), indices, scale.video[2])
            yield duel("16 frames read by PyAV", case, by_pyav, "by decord", by_decord, slow)


def overhead(folder: Path, scale: Scale) -> Iterator[Row]:
    """Steps whose pictures are small and grey, beside an environment that does nothing."""
    nothing = gym.make(EnvSpec("Nothing-v0", entry_point="benchmarks.hot_sides:Nothing"))
    env = gym.make("PixelReason-Frames-v0", preset="micro", counterfactual="blank", max_turns=10**9)
    nothing.reset(seed=0)

    def steps(env: Env, action: Any) -> None:
        for _ in range(scale.steps):
            env.step(action)

    for action in ("crop_image([4, 4, 20, 20])", "select_frames([3, 11])", "Let me think."):
        env.reset(seed=0)  # else the list of views shown grows without end
        many, none = partial(steps, env, action), partial(steps, nothing, 0)
        against, wanted = "an environment that does nothing", Wanted(more=0.1)
        yield duel("step without pixels", f"`{action}`", many, against, none, scale.repeats, wanted, of=scale.steps)


def vectors(folder: Path, scale: Scale) -> Iterator[Row]:
    """Steps of several environments at a time, each of which selects eight frames, beside one after the other."""
    source = VideoFile(folder / f"{scale.intervals[0][0]}.mp4")
    for num_envs in scale.num_envs:
        alone = [make(source) for _ in range(num_envs)]
        for env in alone:
            env.reset()

        def one_by_one(alone: list[Env] = alone) -> None:
            for env in alone:
                env.step(SELECTED)

        for shared in (True, False):
            vector = gym.vector.AsyncVectorEnv([partial(make, source)] * num_envs, shared_memory=shared)
            vector.reset()
            case = f"{num_envs} environments, pictures {'in shared memory' if shared else 'pickled'}"
            together, wanted = partial(vector.step, (SELECTED,) * num_envs), Wanted(times=1.5) if shared else None
            yield duel("AsyncVectorEnv", case, together, "one after the other", one_by_one, scale.repeats, wanted)
            vector.close()


def reading(folder: Path, scale: Scale) -> Iterator[Row]:
    """Read hostile texts beside the half of them, twice, which takes as long where time is linear; in CPU time."""
    halves, repeats = hostile(scale.characters // 2), 3 * scale.repeats
    for name, text in hostile(scale.characters).items():

        def twice(half: str = halves[name]) -> None:
            parse(half), parse(half)

        case = f"`{name.encode('ascii', 'backslashreplace').decode()}`, {scale.characters:,} characters"
        wanted, once = Wanted(times=0.5, milliseconds=50), partial(parse, text)
        yield duel("parse", case, once, "half of it, twice", twice, repeats, wanted, cpu=True)
    long, short = "{" * 4 * MAX_TURN_CHARACTERS, "{" * MAX_TURN_CHARACTERS
    case, wanted = f"`{{`, {len(long):,} characters: refused by its length", Wanted(milliseconds=50)
    against = "a quarter of it, which is read"
    yield duel("parse", case, partial(parse, long), against, partial(parse, short), repeats, wanted, cpu=True)


PATHS: dict[str, Callable[[Path, Scale], Iterator[Row]]] = {
    "views": first_views, "crops": crops, "videos": videos, "overhead": overhead, "vectors": vectors, "parse": reading,
}  # fmt: skip
PICTURES, CLIPS = {"views", "crops", "parts", "memory"}, {"videos", "vectors", "parts"}
"""What needs which media."""
CHOICES = (*PATHS, "parts", "memory")


# --- results ----------------------------------------------------------------------------------------------------------


def table(written: dict[str, Any]) -> str:
    """Markdown tables of the results."""
    lines = ["| path | case | ms | against | ms | times as fast | wanted |", "|---|---|--:|---|--:|--:|---|"]
    for row in written["results"]:
        low, middle, high = row["times_as_fast"]
        wanted = f"{row['wanted']}: {'yes' if row['met'] else '**no**'}" if "wanted" in row else ""
        lines.append(
            f"| {row['path']} | {row['case']} | {row['ours_ms'][1]:g} | {row['against']} | {row['other_ms'][1]:g} | "
            f"{middle:.2f} ({low:.2f} to {high:.2f}) | {wanted} |"
        )
    lines += ["", "| of | part | ms |", "|---|---|--:|"]
    lines += [f"| {row['path']} | {row['part']} | {row['ms'][1]:g} |" for row in written["parts"]]
    lines += ["", "| memory | MB |", "|---|--:|"]
    lines += [f"| {name} | {size:g} |" for name, size in written["memory"].items()]
    runs: dict[str, list[str]] = {}
    for name in CHOICES:
        runs.setdefault(written["measured"][name], []).append(name)
    lines += ["", *(f"* {', '.join(names)}: {run}" for run, names in runs.items())]
    return "\n".join(lines)


def with_table(page: str, shown: str) -> str:
    r"""Put a table between the marks of a page.

    >>> with_table("a\n<!-- table -->\nold\n<!-- end -->\nb", "new")
    'a\n<!-- table -->\n\nnew\n\n<!-- end -->\nb'
    """
    marked = re.compile("(<!-- table -->\n).*(\n<!-- end -->)", re.DOTALL)
    return marked.sub(lambda found: f"{found[1]}\n{shown}\n{found[2]}", page)


def measure(folder: Path, scale: Scale, chosen: list[str], known: dict[str, Any]) -> dict[str, Any]:
    """Write media where there are none and measure what is chosen; take the rest from earlier results."""
    about = provenance(PACKAGES)
    machine = about["machine"]
    on = f"{machine['cpu']}, {machine['cores']} cores, load {machine['load_before']} before; {about['date']}"
    for needed, write in ((PICTURES, write_pictures), (CLIPS, write_clips)):
        if needed & set(chosen):
            write(folder, scale)
    results = []
    for name, path in PATHS.items():
        for row in path(folder, scale) if name in chosen else known["results"]:
            if name in chosen:
                print(f"{row['path']}, {row['case']}: {row['times_as_fast'][1]:.2f} times as fast", flush=True)
                results.append({"part": name} | row)
            elif row["part"] == name:
                results.append(row)
    media = {path.name: round(path.stat().st_size / 1e6, 2) for path in sorted(folder.iterdir())}
    return about | {
        "measured": known.get("measured", {}) | dict.fromkeys(chosen, f"{on}, commit {about['commit']}"),
        "media_mb": known.get("media_mb", {}) | media,
        "memory": memory(folder, scale) if "memory" in chosen else known["memory"],
        "parts": breakdown(folder, scale) if "parts" in chosen else known["parts"],
        "results": results,
    }


def main(scale: Scale | None = None) -> None:
    """Measure, print the table, write it and the JSON file."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", choices=CHOICES, default=list(CHOICES), help="what to measure (all)")
    parser.add_argument("--repeats", type=int, default=Scale.repeats, help="rounds of a comparison (%(default)s)")
    parser.add_argument("--media", type=Path, help="folder to keep the media in (default: a temporary one)")
    parser.add_argument("--out", type=Path, default=RESULTS / "hot_paths.json", help="JSON file to write")
    parser.add_argument("--page", type=Path, default=PAGE, help="page whose table is replaced")
    arguments = parser.parse_args()
    if arguments.repeats < 1:
        parser.error(f"--repeats must be at least 1, got {arguments.repeats}")
    known: dict[str, Any] = {}
    if set(arguments.only) != set(CHOICES):
        if not arguments.out.exists():
            parser.error(f"--only measures a part again, and there is no {arguments.out} with the rest")
        known = json.loads(arguments.out.read_text(encoding="utf-8"))
    with TemporaryDirectory() as temporary:
        folder = arguments.media or Path(temporary)
        folder.mkdir(parents=True, exist_ok=True)
        written = measure(folder, scale or Scale(repeats=arguments.repeats), arguments.only, known)
    arguments.out.parent.mkdir(parents=True, exist_ok=True)
    replace_text(arguments.out, readable(written))
    shown = table(written)
    replace_text(arguments.page, with_table(arguments.page.read_text(encoding="utf-8"), shown))
    print(shown)


if __name__ == "__main__":
    main()
