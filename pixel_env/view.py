"""Write trajectories as one HTML page: `python -m pixel_env.view trajectories.jsonl [other.jsonl] -o page.html`."""

import argparse
import pkgutil
import sys
from collections.abc import Sequence
from pathlib import Path

from pixel_env.custom_operations import Operation
from pixel_env.journal import replace_text
from pixel_env.trajectory import Trajectory
from pixel_env.viewer import Damaged, to_html


def read_run(path: Path) -> list[Trajectory | Damaged]:
    """Read a file of trajectories; lines that are none are kept as damaged, empty ones are skipped.

    Raises:
        ValueError: no line is a trajectory.
        OSError: the file cannot be read.
    """
    run: list[Trajectory | Damaged] = []
    with open(path, encoding="utf-8", errors="backslashreplace") as file:
        for number, line in enumerate(file, start=1):
            if line.strip():
                run.append(_read_line(number, line))
    if not any(isinstance(item, Trajectory) for item in run):
        got = f"line {run[0].line}: {run[0].problem}" if run and isinstance(run[0], Damaged) else "an empty file"
        raise ValueError(
            f"expected {path} to hold trajectories, one JSON object a line, got {got}; "
            "give a file written by pixel_env.trajectory.save_jsonl"
        )
    return run


def _read_line(number: int, line: str) -> Trajectory | Damaged:
    try:
        return Trajectory.from_json(line)
    except ValueError as error:
        problem = " ".join(str(error).split())[:200]
        return Damaged(number, line, problem)


def run_names(paths: Sequence[Path]) -> list[str]:
    """Name each run by its file; two files of one name by as much of their paths as tells them apart.

    >>> run_names([Path("a/test.jsonl"), Path("b/test.jsonl")]), run_names([Path("a/x.jsonl"), Path("y.jsonl")])
    (['a/test', 'b/test'], ['x', 'y'])
    """
    stems = [path.with_suffix("").parts for path in paths]
    for length in range(1, max(map(len, stems)) + 1):
        names = ["/".join(parts[-length:]) for parts in stems]
        if len(set(names)) == len(names):
            return names
    return [f"{name} ({position})" for position, name in enumerate(names, start=1)]


def _operation(name: str) -> Operation:
    try:
        operation = pkgutil.resolve_name(name)
    except (ImportError, AttributeError, ValueError) as error:
        raise argparse.ArgumentTypeError(f"cannot be imported: {error}") from None
    if not isinstance(operation, Operation):
        raise argparse.ArgumentTypeError(f"expected a pixel_env.Operation at {name}, got {type(operation).__name__}")
    return operation


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit code, 2 for input that cannot be used."""
    parser = argparse.ArgumentParser(
        prog="python -m pixel_env.view",
        description="Write one HTML page, without any other file, that shows trajectories. "
        "Pictures are drawn again by replay.",
    )
    parser.add_argument("trajectories", type=Path, help="file of trajectories, JSON Lines")
    parser.add_argument("other", type=Path, nargs="?", help="a second run, shown beside the first, matched by task")
    parser.add_argument("-o", "--out", type=Path, default=Path("page.html"), help="page to write (%(default)s)")
    parser.add_argument(
        "--operation", type=_operation, action="append", default=[], metavar="MODULE:NAME",
        help="an operation of one's own that the trajectories call; the option can be given again for another",
    )  # fmt: skip
    options = parser.parse_args(arguments)
    paths = [path for path in (options.trajectories, options.other) if path is not None]
    try:
        if options.out.suffix == ".jsonl":
            raise ValueError(f"expected a page to write, got {options.out}; give -o a name that ends in .html")
        runs = [read_run(path) for path in paths]
        named = dict(zip(run_names(paths), runs, strict=True))
        page = to_html(named, progress=True, operations=options.operation)
        replace_text(options.out, page)
    except (OSError, ValueError) as error:
        missing = isinstance(error, FileNotFoundError)
        print(f"view: {error}{'; check the path' if missing else ''}", file=sys.stderr)
        return 2
    print(f"{options.out}: {sum(map(len, runs))} episodes, {len(page) / 1e6:.1f} MB")
    return 0


if __name__ == "__main__":
    sys.exit(main())
