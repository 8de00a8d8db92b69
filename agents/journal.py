"""Files that a kill leaves whole: written a line at a time, or in one go."""

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


def replace_text(path: Path, text: str) -> None:
    """Write a file; a kill leaves the old one or the new one."""
    part = path.with_name(f"{path.name}.part")
    part.write_text(text, encoding="utf-8")
    part.replace(path)
