"""Where a number comes from: command, commit, day, machine and versions, for the head of every results file."""

import json
import os
import platform
import re
import shlex
import subprocess
import sys
from collections.abc import Sequence
from contextlib import suppress
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

RESULTS = Path(__file__).parent / "results"


def readable(written: Any) -> str:
    """JSON for a results file: indented, but a list of numbers on one line.

    >>> print(readable({"a": [1, 2.5], "b": [[1, 2], [3, 4]]}), end="")
    {
     "a": [1, 2.5],
     "b": [
      [1, 2],
      [3, 4]
     ]
    }
    """
    plain = json.dumps(written, indent=1)
    return re.sub(r"\[\s+([^][{}]*?)\s+\]", lambda found: f"[{' '.join(found[1].split())}]", plain) + "\n"


def provenance(packages: Sequence[str]) -> dict[str, Any]:
    """Head of a results file; `packages` are those whose versions matter, where they are installed."""
    return {
        "command": shlex.join(["python", *sys.argv]),
        "commit": commit(),
        "date": datetime.now(UTC).date().isoformat(),
        "machine": machine(packages),
    }


def machine(packages: Sequence[str]) -> dict[str, Any]:
    """Processor, cores and load of this machine, and versions."""
    model = platform.processor() or "unknown"
    if (cpuinfo := Path("/proc/cpuinfo")).exists():
        lines = [line.split(":", 1)[1].strip() for line in cpuinfo.read_text().splitlines() if "model name" in line]
        model = lines[0] if lines else model
    return {
        "cpu": model,
        "cores": os.cpu_count(),
        "load_before": round(os.getloadavg()[0], 2),
        "python": platform.python_version(),
        "versions": _versions(packages),
    }


def _versions(packages: Sequence[str]) -> dict[str, str]:
    found = {}
    for name in packages:
        with suppress(PackageNotFoundError):
            found[name] = version(name)
    return found


def commit() -> str:
    """Commit of the checkout that this file is in, with a plus when files differ from it; "unknown" without git."""
    asked, here = ["git", "describe", "--always", "--dirty=+"], Path(__file__).parent
    try:
        said = subprocess.run(asked, cwd=here, capture_output=True, text=True, check=False)
    except OSError:  # no git; what was measured is worth more than its commit
        return "unknown"
    return said.stdout.strip() or "unknown"
