"""Files that are written a line at a time, so that a kill costs at most the line that was being written."""

from pathlib import Path


def append(path: Path, line: str) -> None:
    """Append one line; a kill leaves it whole, or cut short without its end."""
    with path.open("a", encoding="utf-8") as file:
        file.write(f"{line}\n")


def complete_lines(path: Path) -> None:
    """Drop a last line that a kill cut short; make the file if there is none."""
    text = path.read_bytes() if path.exists() else b""
    if not path.exists() or not text.endswith(b"\n"):
        path.write_bytes(text[: text.rfind(b"\n") + 1])
