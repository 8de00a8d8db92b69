"""Table 1 of the paper: its figures, quoted, and beside them what was measured here.

    python benchmarks/table1.py                                       # generated suites stand in; no data needed
    python benchmarks/table1.py --run micro --tasks vstar:/data/vstar_bench infographicvqa:/data/infovqa/val.json
    python benchmarks/table1.py --results runs/base runs/rl           # results of evaluate.py, nothing is run

The generated suites mirror the four benchmarks and are not them: their scores stand in a table of their own. The paper
gives single greedy runs without intervals. Its InfoVQA figures are on the test split, whose answers are hidden.
"""

import argparse
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks import evaluate
from benchmarks.result_file import read_result
from pixel_env.command_line import Parser, UsageError
from pixel_env.journal import replace_text
from pixel_env.tasks import SUITES

COLUMNS = ("V*", "TallyQA-complex", "MVBench", "InfoVQA")
SETS = dict(zip(("vstar", "tallyqa-complex", "mvbench", "infographicvqa"), COLUMNS, strict=True))
"""Format of `pixel_env.tasks`: its column."""
PARTS_OF_SETS = {"tallyqa/complex": "TallyQA-complex"} | {
    f"pixelreasoner/{name}": column
    for name, column in {
        "vstar": "V*", "tallyqa": "TallyQA-complex", "mvbench": "MVBench", "infovqa": "InfoVQA",
        "infographicvqa": "InfoVQA", "infographicsvqa": "InfoVQA",
    }.items()
}  # fmt: skip
"""Suite of a set with others, in lower case: its column. The release names the evaluation data by benchmark."""
STAND_INS = {"search": "V*", "count": "TallyQA-complex", "clip": "MVBench", "read": "InfoVQA"}
"""Generated suite: the benchmark that it mirrors."""

SOURCE = "arXiv 2505.15966v3, Table 1"
Row = tuple[str, tuple[float | None, ...]]

QUOTED: tuple[Row, ...] = (
    ("GPT-4o", (62.8, 73.0, 64.6, 80.7)),
    ("Gemini-2.0-Flash", (73.2, 73.8, None, 86.5)),
    ("Gemini-2.5-Pro", (79.2, 74.0, None, 84.0)),
    ("Video-R1-7B", (51.2, 42.6, 63.9, 67.9)),
    ("LongLLaVA-13B", (68.5, 64.6, 54.6, 65.4)),
    ("Gemma3-27B", (62.3, 54.3, 56.8, 59.4)),
    ("Qwen2.5-VL-7B", (70.4, 68.6, 63.8, 80.7)),
    ("Visual Sketchpad (GPT-4o)", (80.4, None, None, None)),
    ("IVM-Enhance (GPT-4V)", (81.2, None, None, None)),
    ("PaLI-3-VPD-5B", (70.9, None, None, None)),
    ("SEAL-7B", (74.8, None, None, None)),
    ("PaLI-X-VPD-55B", (76.6, None, None, None)),
    ("Pixel-Reasoner-7B", (84.3, 73.8, 67.8, 84.0)),
    ("Pixel-Reasoner-7B: RaPR", (78.53, 57.78, 66.95, 58.95)),
    ("warm start, no RL", (79.0, 67.9, 59.0, 74.3)),
    ("RL without curiosity", (81.1, 71.8, 66.4, 80.7)),
    ("RL without warm start", (81.7, 72.2, 65.6, 81.2)),
    ("RL without correction data", (80.1, 69.8, 63.6, 78.2)),
)
"""The paper's rows in percent: V*, TallyQA-complex and MVBench accuracy, InfoVQA ANLS; RaPR from its analysis."""


def measured(result: Mapping[str, Any], columns: Mapping[str, str]) -> list[list[str]]:
    """Return the two rows of a result, score and RaPR; none if it has no entry of `columns` (part or suite: column).

    A cell is the percentage with its 95% interval, and the number of questions. InfoVQA is scored by ANLS whatever the
    scorer of the result: the released one knows right and wrong only, and the authors' figure is ANLS, too.

    Raises:
        UsageError: Two suites of the result belong into one column.
    """
    found: dict[str, Mapping[str, Any]] = {}
    for label, part in result["parts"].items():
        strict = part.get("strict", part)
        names = (label,) if label in columns else part.get("suites", {})
        for name, column in ((name, columns[name.lower()]) for name in names if name.lower() in columns):
            if column in found:
                raise UsageError(f"expected one suite for {column}, got several in the results of {result['policy']}")
            scored = strict if column == "InfoVQA" else part
            found[column] = scored["summary"] if name == label else scored["suites"][name]
    if not found:
        return []
    name, about = str(result["policy"]), f"measured, {_rules(result)}, commit {result['commit']}"
    operations = "" if result["operations"] else ", without tools"
    scores = [_cell(found.get(column), "score") for column in COLUMNS]
    rates = [_cell(found.get(column), "rapr", number=False) for column in COLUMNS]
    return [[f"**{name}**{operations}", *scores, about], [f"**{name}**: RaPR", *rates, about]]


def _rules(result: Mapping[str, Any]) -> str:
    """Say what scored a result, and in whose protocol it was played."""
    scorer, protocol = result["scorer"], result["environment"]["protocol"]
    return f"scorer {scorer}" + (f", protocol {protocol}" if protocol != "native" else "")


def _cell(summary: Mapping[str, Any] | None, key: str, number: bool = True) -> str:
    if summary is None or summary[key] is None:
        return "-"
    low, mean, high = (100 * summary[key][side] for side in ("low", "mean", "high"))
    return f"{mean:.1f} [{low:.1f}, {high:.1f}]" + (f" n={summary['questions']}" if number else "")


def quoted() -> list[list[str]]:
    """Return the paper's rows."""
    return [
        [name, *("-" if value is None else str(value) for value in values), f"quoted, {SOURCE}"]
        for name, values in QUOTED
    ]


def markdown(results: Sequence[Mapping[str, Any]]) -> str:
    """Return both tables: the paper's with what was measured on its benchmarks, and that of the generated suites."""
    rows = [row for result in results for row in measured(result, SETS | PARTS_OF_SETS)]
    text = "## Table 1\n\n" + _table(COLUMNS, quoted() + rows)
    stand_ins = [row for result in results for row in measured(result, STAND_INS)]
    if stand_ins:
        heads = [f"`{suite}` (after {column})" for suite, column in STAND_INS.items()]
        text += "\n\n## The generated suites\n\nNot to be set beside the figures above.\n\n" + _table(heads, stand_ins)
    return text


def _table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [["model", *columns, "source"], ["---", *["---:"] * len(columns), "---"], *rows]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)


def run(policies: Sequence[str], tasks: Sequence[str], n: int, out: Path, more: Sequence[str]) -> list[Path]:
    """Evaluate policies; returns the folders of their results.

    Raises:
        UsageError: An evaluation could not be made; why was told by it.
    """
    folders = []
    for number, policy in enumerate(policies):
        folder = out / f"{number}-{''.join(c if c.isalnum() else '-' for c in policy).strip('-')}"
        asked = [*(tasks or SUITES), "--policy", policy, "--out", str(folder), *more]
        asked += ["--limit", str(n)] if n else []
        if evaluate.main(["--tasks", *asked]):
            raise UsageError(f"the evaluation of {policy} failed")
        folders.append(folder)
    return folders


def _check_parts(results: Sequence[Mapping[str, Any]]) -> None:
    for result in results:
        if not any(measured(result, columns) for columns in (SETS | PARTS_OF_SETS, STAND_INS)):
            raise UsageError(
                f"expected results on one of {', '.join((*SETS, *PARTS_OF_SETS, *STAND_INS))}, "
                f"got {', '.join(result['parts'])} of {result['policy']}"
            )


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit code."""
    formatter = argparse.RawDescriptionHelpFormatter
    parser = Parser(prog="table1.py", description=__doc__, formatter_class=formatter, allow_abbrev=False)
    add = parser.add_argument
    add("--results", nargs="+", type=Path, default=[], help="results of evaluate.py to set beside the paper's")
    add("--run", nargs="+", metavar="POLICY", help="policies to evaluate, as in evaluate.py (micro, without --results)")
    add("--tasks", nargs="+", default=[], help="NAME:PATH of the paper's benchmarks (the four generated suites)")
    add("--n", type=int, help="questions of each (32 of a generated suite, all of a set on disk)")
    add("--out", type=Path, default=Path("runs/table1"), help="folder of the evaluations and table1.md (%(default)s)")
    try:
        arguments, more = parser.parse_known_args(argv)
        if more and not more[0].startswith("--"):
            raise UsageError(f"expected options, got {more[0]!r}; see --help of table1.py and of evaluate.py")
        for tasks in arguments.tasks:  # before anything is played
            if (name := tasks.partition(":")[0]) not in (*SETS, *STAND_INS, "tallyqa", "pixelreasoner"):
                raise UsageError(
                    f"expected --tasks of the paper's benchmarks, {', '.join(SETS)}, tallyqa or pixelreasoner, or of "
                    f"the generated suites, got {name}"
                )
        policies = arguments.run or ([] if arguments.results else ["micro"])
        n = arguments.n or (0 if arguments.tasks else 32)
        if not arguments.tasks:
            more += [] if "--preset" in more else ["--preset", "micro"]
        folders = [*arguments.results, *run(policies, arguments.tasks, n, arguments.out, more)]
        results = [read_result(folder) for folder in folders]
        _check_parts(results)
        text = markdown(results)
        arguments.out.mkdir(parents=True, exist_ok=True)
        replace_text(arguments.out / "table1.md", text + "\n")
    except OSError as error:
        print(f"table1.py: error: cannot write to {arguments.out}: {error.strerror}", file=sys.stderr)
        return 2
    except UsageError as error:
        print(f"table1.py: error: {error}", file=sys.stderr)
        return 2
    print(f"\n{text}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
