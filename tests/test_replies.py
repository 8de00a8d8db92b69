"""Replies: what is read from a server, counted and kept."""

import json
from pathlib import Path
from typing import Any

import pytest

from agents.replies import Reply, ReplyLog, Usage, read


def body(message: Any = None, **changes: Any) -> str:
    reply = {"model": "m", "choices": [{"finish_reason": "stop", "message": message or {"content": "Hm."}}]}
    return json.dumps(reply | {"usage": {"prompt_tokens": 5, "completion_tokens": 2}} | changes)


def test_a_reply() -> None:
    assert read(body()) == Reply("Hm.", "m", "stop", 5, 2)
    assert read(body({"content": None})).text == ""
    assert read(body({"content": None, "refusal": "I will not."})).text == "I will not."
    assert read(body({"content": "Hm.", "tool_calls": None})).text == "Hm."
    call = {"function": {"name": "select_frames", "arguments": {"target_frames": [1]}}}
    assert read(body({"content": None, "tool_calls": [call]})).text.startswith('<tool_call>{"name": "select_frames"')


@pytest.mark.parametrize(
    ("usage", "tokens"),
    [
        ({"prompt_tokens": 5}, (5, None)),
        (None, (None, None)),
        ("many", (None, None)),
        ({"prompt_tokens": -1, "completion_tokens": True}, (None, None)),
        ({"prompt_tokens": 0, "completion_tokens": 0}, (0, 0)),
    ],
)
def test_what_is_not_reported_is_unknown(usage: Any, tokens: tuple[int | None, int | None]) -> None:
    reply = read(body(usage=usage))
    assert (reply.prompt_tokens, reply.completion_tokens) == tokens


@pytest.mark.parametrize(
    ("text", "wrong"),
    [
        (body()[:40], "JSON"),
        ("", "JSON"),
        ("<html>", "JSON"),
        ("[" * 100_000, "JSON"),
        ("[]", "message in choices"),
        (body(choices=[]), "message in choices"),
        (body(choices=None), "message in choices"),
        (body(choices=[{"message": None}]), "message in choices"),
        (body({"content": ["Hm."]}), "text or null, got list"),
        (body({"content": "", "tool_calls": 3}), "tool_calls as a list, got int"),
        (body({"content": "", "tool_calls": ["crop_image"]}), "tool calls with a name"),
        (body({"content": "", "tool_calls": [{"function": {"name": None, "arguments": "{}"}}]}), "tool calls with a"),
    ],
)
def test_what_is_no_chat_completion(text: str, wrong: str) -> None:
    with pytest.raises(ValueError, match=wrong):
        read(text)


def test_usage_adds_up_and_never_takes_unknown_for_nothing() -> None:
    known = Usage.of(Reply("", None, None, 100, 7)) + Usage.of(Reply("", None, None, 200, 3))
    assert known == Usage(2, 0, 300, 10)
    assert known.cost((1.0, 10.0)) == pytest.approx(400e-6)
    assert known.cost(None) is None
    part = known + Usage.of(Reply("", None, None, 100, None))
    assert part == Usage(3, 1, 400, None)
    assert part.cost((1.0, 10.0)) is None
    assert str(part) == "3 requests, 400 tokens read, unknown tokens written; the server gave no figures for 1"
    assert str(known) == "2 requests, 300 tokens read, 10 tokens written"


def test_a_log_keeps_replies_and_drops_a_torn_line(tmp_path: Path) -> None:
    path = tmp_path / "new" / "replies.jsonl"
    replies = {"a": Reply("Hm.\n\ud800", "m", "stop", 5, 2), "b": Reply("")}
    log = ReplyLog(path)
    for key, reply in replies.items():
        log.add(key, reply)
    whole = path.read_bytes()
    for cut in range(whole.index(b"\n") + 1, len(whole)):
        path.write_bytes(whole[:cut])
        log = ReplyLog(path)
        assert log.get("a") == replies["a"] and log.get("b") is None
        log.add("b", replies["b"])
        assert path.read_bytes() == whole


def test_a_file_that_is_no_log_is_not_written_to(tmp_path: Path) -> None:
    path = tmp_path / "replies.jsonl"
    path.write_text('{"key": "a", "text": "Hm."}\nnotes\n')
    with pytest.raises(ValueError, match=r"replies.jsonl:2: expected a kept reply, got b'notes'"):
        ReplyLog(path)
    assert path.read_text().endswith("notes\n")
