"""Where a number comes from: command, commit, day, machine and versions, for the head of every results file."""

import os
import platform
import subprocess
import sys
from collections.abc import Sequence
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

RESULTS = Path(__file__).parent / "results"


def provenance(packages: Sequence[str]) -> dict[str, Any]:
    """Head of a results file; `packages` are those whose versions matter."""
    return {
        "command": " ".join(["python", *sys.argv]),
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
        "versions": {name: version(name) for name in packages},
    }


def commit() -> str:
    """Commit of the checkout, with a plus when files differ from it."""
    said = subprocess.run(["git", "describe", "--always", "--dirty=+"], capture_output=True, text=True, check=False)
    return said.stdout.strip() or "unknown"
