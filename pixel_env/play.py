"""Play episodes by hand in the browser: `python -m pixel_env.play`, then open the address that it prints."""

import argparse
import signal
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import gymnasium as gym

from pixel_env.decoding import MediaError
from pixel_env.game import Game
from pixel_env.play_server import LOOPBACK, PlayServer
from pixel_env.registration import ENVIRONMENTS
from pixel_env.settings import PRESETS
from pixel_env.tasks import DEFAULT_LEVELS, FORMATS, LEVELS, SPLITS, SUITES
from pixel_env.trajectory import load_jsonl


def parser() -> argparse.ArgumentParser:
    """Return the command line."""
    command = argparse.ArgumentParser(
        prog="python -m pixel_env.play",
        description="Play episodes by hand in the browser, and keep each as a trajectory.",
        allow_abbrev=False,
    )
    add = command.add_argument
    add(
        "env", nargs="?", choices=tuple(ENVIRONMENTS), default="PixelReason-Mixed-v0", metavar="ENV",
        help=f"id of the environment: {', '.join(ENVIRONMENTS)} (%(default)s)",
    )  # fmt: skip
    add(
        "--tasks", nargs="+", metavar="TASKS",
        help=f"NAME:PATH of a set on disk ({', '.join(FORMATS)}), or generated suites ({', '.join(SUITES)}); "
        "by default all suites of ENV",
    )  # fmt: skip
    add(
        "--levels",
        nargs="+",
        type=int,
        choices=LEVELS,
        default=DEFAULT_LEVELS,
        help="of generated suites, mixed (1 2 3)",
    )
    add("--split", choices=SPLITS, default="train", help="of generated suites (%(default)s)")
    add("--preset", choices=tuple(PRESETS), default="standard", help="size of pictures (%(default)s)")
    add(
        "--crop-padding", type=float, default=0.0,
        help="margin around a box, in fractions of the image; a training run takes demonstrations with its own margin "
        "only (%(default)s)",
    )  # fmt: skip
    add("--seed", type=int, default=0, help="draws the tasks (%(default)s)")
    add(
        "--out", type=Path, default=Path("played.jsonl"),
        help="file that finished episodes are appended to (%(default)s)",
    )  # fmt: skip
    add("--port", type=int, default=0, help=f"of {LOOPBACK}, which only this machine can reach (a free one)")
    return command


def env_kwargs(options: argparse.Namespace) -> dict[str, Any]:
    """Return the keyword arguments of the environment.

    Raises:
        ValueError: `--tasks` is neither one set on disk nor suites.
    """
    kwargs: dict[str, Any] = {
        "split": options.split,
        "difficulty": list(options.levels),
        "preset": options.preset,
        "crop_padding": options.crop_padding,
    }
    match options.tasks:
        case None:
            return kwargs
        case [spec] if ":" in spec:
            return kwargs | {"tasks": spec}
        case suites if set(suites) <= set(SUITES):
            return kwargs | {"suite": suites}
    raise ValueError(
        f"expected --tasks as one NAME:PATH, or suites out of {', '.join(SUITES)}, got {' '.join(options.tasks)}"
    )


def check_out(path: Path) -> None:
    """Check that episodes can be appended to a file before one is played.

    Raises:
        ValueError: It holds something else.
        OSError: It cannot be written, or its folder does not exist.
    """
    if not path.parent.is_dir():
        raise FileNotFoundError(f"expected --out in an existing folder, got {path}; make the folder first")
    if path.exists():
        load_jsonl(path)
        with path.open("rb+") as file:
            content = file.read()
            if content and not content.endswith(b"\n"):
                raise ValueError(f"expected the last line of {path} to be complete; give another file to --out")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit code, 2 for input that cannot be used."""
    command = parser()
    options = command.parse_args(arguments)
    if not 0 <= options.port < 2**16:
        command.error(f"expected --port from 0 to 65535, got {options.port}")
    try:
        check_out(options.out)
        env = gym.make(options.env, **env_kwargs(options))
        server = PlayServer(Game(env, options.out, options.seed), options.port)
    except (ImportError, MediaError, OSError, TypeError, ValueError) as error:
        print(f"play: {error}", file=sys.stderr)
        return 2
    print(f"Open {server.address}\nFinished episodes are appended to {options.out}. Ctrl+C ends.", flush=True)
    try:
        server.serve_forever()
    except KeyboardInterrupt:
        kept = len(load_jsonl(options.out)) if options.out.exists() else 0
        print(f"\n{options.out}: {kept} episode{'s' * (kept != 1)}")
    finally:
        server.server_close()
        env.close()
    return 0


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # a stop ends like Ctrl+C
    sys.exit(main())
