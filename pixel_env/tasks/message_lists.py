"""Recorded conversations about an image or a video, as `TIGER-Lab/PixelReasoner-SFT-Data` holds them.

A record has a `message_list`: system, user with the question, then assistant and user in turn, up to the assistant's
answer. Here a record becomes a task: its question, its media, and the answer it ends with. `agents.sft_data` plays
what was said in between.
"""

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pixel_env.actions import Answer, parse
from pixel_env.grading import grade_choice
from pixel_env.media import Source
from pixel_env.tasks.paths import find_tables
from pixel_env.tasks.questions import split_options
from pixel_env.tasks.records import Fields
from pixel_env.tasks.row import MAX_TEXT, Row
from pixel_env.tasks.tables import Table, open_table
from pixel_env.tasks.task import Task

FORMAT = "pixelreasoner-sft"
MAX_MESSAGES = 100
MARGIN = 0.1
"""What the release adds on every side of a box, in fractions of the image; the boxes of the data count on it."""


@dataclass(frozen=True)
class Message:
    """One message.

    Attributes:
        number: Its place in `message_list`, 0-based.
        role: ``"system"``, ``"user"`` or ``"assistant"``.
        text: Its texts, joined.
        images: Paths of its images.
        videos: Paths of the frames of each of its videos.
    """

    number: int
    role: str
    text: str
    images: tuple[str, ...]
    videos: tuple[tuple[str, ...], ...]


def messages(fields: Fields) -> tuple[Message, ...]:
    """Read the conversation of a record, without its system message: user, assistant, ..., assistant.

    Visuals may stand before or after the text of a message.

    Raises:
        ValueError: It is not of that form. The message names the place in the list, not the file.
    """
    listed = fields.get("message_list")
    if not isinstance(listed, list) or not 2 <= len(listed) <= MAX_MESSAGES:
        got = f"{len(listed)}" if isinstance(listed, list) else repr(listed)[:40]
        raise ValueError(f"expected message_list as 2 to {MAX_MESSAGES} messages, got {got}; correct the record")
    said = [_message(number, value) for number, value in enumerate(listed)]
    said = said[1:] if said[0].role == "system" else said
    for place, message in enumerate(said):
        expected = ("user", "assistant")[place % 2]
        if message.role != expected:
            raise ValueError(f"expected {_place(message.number)} of the {expected}, got one of the {message.role}")
    if len(said) < 2 or said[-1].role != "assistant":
        raise ValueError("expected an answer of the assistant as the last message, got none")
    return tuple(said)


def _message(number: int, value: Any) -> Message:
    role, content = (value.get("role"), value.get("content")) if isinstance(value, dict) else (None, None)
    items = [{"text": content}] if isinstance(content, str) else content
    if role not in ("system", "user", "assistant") or not isinstance(items, list):
        raise ValueError(f"expected {_place(number)} with a role and a content, got {str(value)[:80]!r}")
    texts, images, videos = [], [], []
    for item in items:
        # The kinds that an item is not are left out, or null where the file went through a table.
        given = {key: v for key, v in item.items() if key in _KINDS and v is not None} if isinstance(item, dict) else {}
        match list(given.items()):
            case [("text", str(text))]:
                texts.append(text)
            case [("image", str(path))]:
                images.append(path)
            case [("video", list(paths))] if paths and all(isinstance(path, str) for path in paths):
                videos.append(tuple(paths))
            case _:
                raise ValueError(
                    f"expected each content of {_place(number)} as a text, the path of an image or the list of the "
                    f"frames of a video, got {str(item)[:80]!r}"
                )
    text = "".join(texts)
    if len(text) > MAX_TEXT:
        raise ValueError(f"expected {_place(number)} of at most {MAX_TEXT} characters, got {len(text)}")
    return Message(number, role, text, tuple(images), tuple(videos))


_KINDS = ("text", "image", "video")


def _place(number: int) -> str:
    return f"message {number} (the first is 0)"


# --- as a task set ----------------------------------------------------------------------------------------------------


def open_messages(path: Path) -> Table:
    """Open the JSON file of the SFT data, or one of its parts; media are paths from its folder."""
    return open_table(find_tables(path, ("*.json", "*.jsonl")), ())


def messages_media(fields: Fields) -> str:
    """Return ``"video"`` if the question comes with one, ``"image"`` otherwise, also for what cannot be read."""
    try:
        return "video" if messages(fields)[0].videos else "image"
    except ValueError:
        return "image"


def messages_task(row: Row) -> Task:
    r"""Make a task of a record; its answer is the one that the record ends with.

    The release's guidelines behind the question are left out, since an environment says itself what may be called.
    """
    try:
        said = messages(row.fields)
    except ValueError as error:
        raise row.error(str(error)) from error
    final = parse(said[-1].text)
    if not isinstance(final, Answer) or not final.text.strip():
        raise row.error(rf"expected an answer in \boxed{{}} in the last message, got {said[-1].text[-60:]!r}")
    wording = _bare(said[0].text)
    question, choices = split_options(wording)
    if not question:
        raise row.error(f"expected a question in {_place(said[0].number)}, got {said[0].text[:40]!r}")
    answer, media = final.text.strip(), _media(row, said[0])
    if not choices:
        return row.task(question, media, (answer,), wording=wording)
    named = [choice for choice in choices if grade_choice(answer, (choice,), choices).correct]
    if len(named) != 1:
        raise row.error(f"expected an answer that names one option of {str(choices)[:80]}, got {answer[:40]!r}")
    return row.choice(question, media, choices, named[0], wording=wording)


def _bare(text: str) -> str:
    """Return a question without placeholders of visuals and without the guidelines behind it."""
    return re.sub(r"\n\s*Guidelines?:.*", "", re.sub(r"<(?:image|video)>", "", text), flags=re.DOTALL).strip()


def _media(row: Row, asked: Message) -> Source:
    if len(asked.images) + len(asked.videos) != 1:
        got = f"{len(asked.images)} images and {len(asked.videos)} videos"
        raise row.error(f"expected one image or one video in {_place(asked.number)}, got {got}")
    if asked.images:
        return row.image_file("image", asked.images[0])
    return row.with_fields({"video": list(asked.videos[0])}).frame_files("video")
