"""Files at every moment of their writing: the old one or the new one, and lines that are whole."""

import errno
import itertools
import signal
import tempfile
from collections.abc import Callable
from pathlib import Path

import pytest
from failpoints import at_line, files_of_at_most, killed_at_line, no_room
from hypothesis import given
from hypothesis import strategies as st

from pixel_env.journal import append, complete_lines, replace_text, replacing

Work = Callable[[], object]


def write_folder(path: Path, text: str) -> None:
    with replacing(path) as part:
        part.mkdir()
        (part / "a").write_text(text)
        (part / "b").write_text(text)


def content(path: Path) -> dict[str, str]:
    """Every file below a path; nothing where there is none."""
    files = path.rglob("*") if path.is_dir() else [path] if path.exists() else []
    return {file.name: file.read_text() for file in files}


@pytest.mark.parametrize("write", [replace_text, write_folder])
def test_a_kill_at_any_line_leaves_the_old_one_or_the_new_one(
    write: Callable[[Path, str], None], tmp_path: Path
) -> None:
    path, ends = tmp_path / "it", list[dict[str, str]]()
    for number in itertools.count(1):
        write(path, "old")
        old = content(path)
        code = killed_at_line(number, lambda: write(path, "new"), tmp_path / "log")
        if code == 0:
            break
        assert code == -signal.SIGKILL
        ends.append(content(path))
        write(path, "newest")  # whatever was left beside it is in nobody's way
        assert set(content(path).values()) == {"newest"} and [p.name for p in tmp_path.iterdir()].count("it") == 1
        assert {p.name for p in tmp_path.iterdir()} == {"it", "log"}
    new = content(path)
    assert number > 8 and old in ends and new in ends
    neither = [end for end in ends if end not in (old, new)]
    assert neither == ([] if write is replace_text else [{}] * len(neither))  # a folder may be gone for a moment


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # an error between open and with
@pytest.mark.parametrize("write", [replace_text, write_folder])
def test_an_error_at_any_line_leaves_the_old_one_or_the_new_one(
    write: Callable[[Path, str], None], tmp_path: Path
) -> None:
    path, failed = tmp_path / "it", 0
    for number in itertools.count(1):
        write(path, "old")
        with at_line(number, no_room) as lines:
            try:
                write(path, "new")
            except OSError as error:
                assert error.errno == errno.ENOSPC
                failed += 1
        if lines[0] < number:
            break
        left = set(content(path).values())
        assert left in ({"old"}, {"new"}) or (write is write_folder and not left)
    assert failed == number - 1 and [p.name for p in tmp_path.iterdir()] == ["it"]


def test_a_file_beyond_a_limit_is_not_begun(tmp_path: Path) -> None:
    path = tmp_path / "it"
    path.write_text("old")
    with files_of_at_most(1000), pytest.raises(OSError, match="File too large"):
        replace_text(path, "x" * 1001)
    assert content(tmp_path) == {"it": "old"}


@given(st.lists(st.text(st.characters(exclude_characters="\n\r", exclude_categories=["Cs"]), max_size=9)), st.data())
def test_whatever_is_cut_off_whole_lines_stay(lines: list[str], data: st.DataObject) -> None:
    whole = "".join(f"{line}\n" for line in lines).encode()
    cut = whole[: data.draw(st.integers(0, len(whole)))]
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "lines")
        path.write_bytes(cut)
        complete_lines(path)
        assert path.read_bytes() == cut[: cut.rfind(b"\n") + 1]
        append(path, "next")
        assert path.read_bytes().decode().split("\n")[-2:] == ["next", ""]


def test_lines_are_completed_at_any_moment(tmp_path: Path) -> None:
    """A kill while the cut line is dropped costs none of the others: the file is never written anew."""
    path = tmp_path / "lines"
    for number in itertools.count(1):
        path.write_text("first\nsecond\nthi")
        code = killed_at_line(number, lambda: complete_lines(path), tmp_path / "log")
        assert path.read_text() in ("first\nsecond\nthi", "first\nsecond\n")
        if code == 0:
            break
    assert number > 2 and path.read_text() == "first\nsecond\n"


def test_a_line_that_does_not_fit_is_left_out(tmp_path: Path) -> None:
    path = tmp_path / "lines"
    append(path, "first")
    with files_of_at_most(10):
        for _ in range(2):
            with pytest.raises(OSError, match=r"No space left|File too large"):
                append(path, "second")
            assert path.read_text() == "first\n"
    append(path, "second")
    assert path.read_text() == "first\nsecond\n"
