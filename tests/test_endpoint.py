"""A server that breaks in every way, and what is said about it."""

import asyncio
import gzip
import logging
import socket
import threading
import time
import tracemalloc
from collections.abc import Iterator
from contextlib import contextmanager
from email.utils import formatdate
from typing import Any

import pytest
from chat_server import PATIENCE, Answer, ChatServer, completion, refusal, serving

from agents import endpoint
from agents.endpoint import Endpoint, EndpointError, retry_after
from agents.replies import Reply
from pixel_env.actions import MAX_TURN_CHARACTERS

KEY = "sk-secret-0123456789"
GOOD = completion("Hm.")
REPLY = Reply("Hm.", "tiny-served", "stop", 100, 7)


@pytest.fixture(autouse=True)
def pauses(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The pauses asked for, none of which is taken; and no proxy."""
    taken: list[float] = []

    async def note(seconds: float) -> None:
        taken.append(seconds)

    monkeypatch.setattr(endpoint, "_sleep", note)
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    return taken


@contextmanager
def asking(*answers: Answer, **settings: Any) -> Iterator[tuple[ChatServer, Endpoint]]:
    """A server that gives these answers in turn, and the last one for ever."""
    defaults: dict[str, Any] = {"concurrency": 2, "timeout": 10.0, "retries": 3, "deadline": 100.0}
    with serving(lambda n, _: answers[min(n, len(answers) - 1)]) as server:
        asked = Endpoint(server.url, KEY, **defaults | settings)
        try:
            yield server, asked
        finally:
            asked.close()


def ask(asked: Endpoint) -> Reply:
    return asked.run(asked.ask("tiny", lambda: {"model": "tiny", "messages": [{"role": "user", "content": "Hi"}]}))


def error_of(asked: Endpoint) -> str:
    with pytest.raises(
        EndpointError, match=r"asked 'tiny' at http://127\.0\.0\.1:\d+/v1/chat/completions, got "
    ) as caught:
        ask(asked)
    message = str(caught.value)
    assert "\n" not in message and KEY not in message and len(message) < 600
    assert caught.value.__cause__ is None and caught.value.__suppress_context__
    return message


@pytest.mark.parametrize(
    "fault",
    [
        refusal(500, "out of memory"),
        refusal(503, "loading"),
        refusal(429, "slow down"),
        Answer(GOOD.body[:50]),
        Answer(GOOD.body, how="cut"),
        Answer(b"<html>busy</html>", headers={"Content-Type": "text/html"}),
        Answer(b""),
        completion(None, choices=[]),
        completion(None, choices=[{"index": 0, "finish_reason": "stop", "message": None}]),
        Answer(b"", 204),
    ],
    ids=["500", "503", "429", "half", "cut", "html", "empty", "no-choices", "no-message", "204"],
)
def test_what_passes_is_asked_again(fault: Answer, pauses: list[float]) -> None:
    with asking(fault, fault, GOOD) as (server, asked):
        assert ask(asked) == REPLY
        assert len(server.bodies) == 3
        assert server.bodies[0] == server.bodies[2]
    assert 0.25 <= pauses[0] <= 0.5 <= pauses[1] <= 1.0  # doubling, with jitter


@pytest.mark.parametrize("how", ["hang", "drip", "drip head"])
def test_an_answer_without_end_is_given_up(how: str) -> None:
    with asking(Answer(GOOD.body, how=how), GOOD, timeout=0.3) as (server, asked):
        assert ask(asked) == REPLY
        assert len(server.bodies) == 2
    with asking(Answer(GOOD.body, how=how), timeout=0.1, retries=1) as (server, asked):
        message = error_of(asked)
        assert "got no complete answer within 0.1 s after 2 tries in 0 s; raise timeout and deadline" in message


def test_an_answer_without_end_that_is_fast_is_given_up() -> None:
    for status in (200, 500):
        with asking(Answer(b"x" * 2**20, status, how="flood"), GOOD) as (server, asked):
            assert ask(asked) == REPLY
            assert len(server.bodies) == 2
    with asking(Answer(b"x" * 2**20, how="flood"), retries=0) as (server, asked):
        assert "got an answer of more than 8388608 bytes; look at the server's log" in error_of(asked)


@pytest.mark.parametrize("status", [200, 302, 400])
def test_a_compressed_answer_is_not_unpacked(status: int) -> None:
    """What is small when it is sent may be as large as it likes when it is unpacked."""
    bomb = gzip.compress(b" " * 2**27, 1)
    with asking(Answer(bomb, status, {"Content-Encoding": "gzip"})) as (server, asked):
        tracemalloc.start()
        message = error_of(asked)
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert "got an answer in the coding 'gzip'; have the server send it as it is" in message
        assert len(server.bodies) == 1 and peak < 2**24
        assert server.codings == ["identity"]


@pytest.mark.parametrize("charset", ["zlib", "hex", "base64", "bz2", "rot13", "utf-16", "no-such"])
def test_a_character_set_is_not_taken_from_the_server(charset: str) -> None:
    """Some of Python's codecs are no character sets, and raise what nobody expects of one."""
    said = {"Content-Type": f"application/json; charset={charset}"}
    with asking(Answer(GOOD.body, headers=said)) as (_, asked):
        assert ask(asked) == REPLY
    with asking(Answer(b'{"error": "caf\xc3\xa9 \xff"}', 400, said)) as (_, asked):
        assert 'got status 400, {"error": "caf\u00e9 \ufffd"}' in error_of(asked)


def test_a_reply_longer_than_a_turn_does_not_travel_on() -> None:
    with asking(completion("x" * (MAX_TURN_CHARACTERS + 1)), retries=0) as (_, asked):
        assert f"expected a reply of at most {MAX_TURN_CHARACTERS} characters, got 262145" in error_of(asked)
    with asking(completion("x" * MAX_TURN_CHARACTERS)) as (_, asked):
        assert len(ask(asked).text) == MAX_TURN_CHARACTERS


def test_no_request_is_sent_on() -> None:
    with serving(lambda *_: GOOD) as other:
        there = Answer(b"", 307, {"Location": f"{other.url}/chat/completions"})
        with asking(there) as (_, asked):
            assert "got status 307, without a word; give as base_url the address that" in error_of(asked)
        assert other.bodies == []


def test_retry_after_is_honoured(pauses: list[float]) -> None:
    with asking(refusal(429, "slow down", Retry_After="7"), GOOD) as (_, asked):
        assert ask(asked) == REPLY
    assert pauses == [7.0]


def test_no_one_waits_beyond_the_deadline(pauses: list[float]) -> None:
    with asking(refusal(429, "slow down", Retry_After="3600"), deadline=60.0) as (server, asked):
        message = error_of(asked)
        assert len(server.bodies) == 1 and pauses == []
    assert "status 429" in message and "it asks to wait 3600 s" in message and "lower concurrency" in message


def test_tries_are_counted(pauses: list[float]) -> None:
    with asking(refusal(500, "out of memory"), retries=3) as (server, asked):
        assert "out of memory" in (message := error_of(asked)) and "after 4 tries" in message
        assert len(server.bodies) == 4 and len(pauses) == 3


@pytest.mark.parametrize(
    ("status", "advice"),
    [
        (400, "the length of its context"),
        (401, "set OPENAI_API_KEY"),
        (403, "set OPENAI_API_KEY"),
        (404, r"GET http://127.0.0.1"),
        (413, "smaller images"),
        (300, "see what the server says"),
        (418, "see what the server says"),
        (422, "settings of the policy"),
    ],
)
def test_what_cannot_pass_is_told_at_once(status: int, advice: str, pauses: list[float]) -> None:
    said = f"The model `tiny` does not exist for {KEY}\x1b[31m\n\nTraceback " + "x" * 1000
    with asking(refusal(status, said)) as (server, asked):
        message = error_of(asked)
        assert f"got status {status}, " in message and advice in message and "does not exist for ***" in message
        assert message.isprintable()
        assert len(server.bodies) == 1 and pauses == []


def test_a_used_up_quota_does_not_pass() -> None:
    spent = Answer(b'{"error": {"message": "quota", "code": "insufficient_quota"}}', 429)
    with asking(spent) as (server, asked):
        assert "no quota left" in error_of(asked)
        assert len(server.bodies) == 1


def test_a_filtered_answer_is_an_error_and_no_answer() -> None:
    filtered = completion(None, choices=[{"finish_reason": "content_filter", "message": {"content": ""}}])
    with asking(filtered) as (server, asked):
        assert "content filter" in error_of(asked)
        assert len(server.bodies) == 1


def test_a_server_that_is_not_there(pauses: list[float]) -> None:
    with socket.socket() as taken:  # bound, and not listening
        taken.bind(("127.0.0.1", 0))
        url = f"http://user:{KEY}@127.0.0.1:{taken.getsockname()[1]}/v1/"
        asked = Endpoint(url, KEY, concurrency=1, timeout=5.0, retries=2, deadline=100.0)
        message = error_of(asked)
        asked.close()
    assert "no connection" in message and "check that the server runs" in message and "after 3 tries" in message
    assert len(pauses) == 2


def test_the_key_is_sent_and_never_comes_back(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    with asking(completion(f"Your key is {KEY}.")) as (server, asked):
        assert ask(asked).text == "Your key is ***."
        assert server.keys == [f"Bearer {KEY}"]
        assert KEY not in repr(asked)
    assert KEY not in caplog.text


def test_the_key_of_the_environment_and_none(monkeypatch: pytest.MonkeyPatch) -> None:
    settings: dict[str, Any] = {"concurrency": 1, "timeout": 5.0, "retries": 0, "deadline": 10.0}
    with serving(lambda *_: GOOD) as server:
        monkeypatch.setenv("OPENAI_API_KEY", KEY)
        first = Endpoint(server.url, None, **settings)
        monkeypatch.delenv("OPENAI_API_KEY")
        second = Endpoint(server.url, None, **settings)
        for asked in (first, second):
            ask(asked)
            asked.close()
        assert server.keys == [f"Bearer {KEY}", "Bearer none"]


def test_no_more_requests_at_once_than_allowed() -> None:
    with asking(GOOD, concurrency=3) as (server, asked):
        together = threading.Event()

        def answer(*_: Any) -> Answer:
            if server.running >= 3:
                together.set()
            together.wait(PATIENCE)
            return GOOD

        server.answer = answer

        async def many() -> list[Reply]:
            return await asyncio.gather(*(asked.ask("tiny", lambda: {"model": "t", "messages": []}) for _ in range(12)))

        assert asked.run(many()) == [REPLY] * 12
        assert server.most_running == 3


def test_it_may_be_asked_from_a_running_loop() -> None:
    with asking(GOOD) as (_, asked):

        async def inside() -> Reply:
            return ask(asked)

        assert asyncio.run(inside()) == ask(asked) == REPLY
        asked.close()  # and once more behind this block


@pytest.mark.parametrize("url", ["127.0.0.1:8000/v1", "ftp://127.0.0.1/v1", "http:///v1"])
def test_an_address_must_be_one(url: str) -> None:
    with pytest.raises(ValueError, match="expected base_url as http://host:port/v1"):
        Endpoint(url, KEY, concurrency=1, timeout=1.0, retries=0, deadline=1.0)


def test_dates_of_retry_after() -> None:
    assert 50 < retry_after(formatdate(time.time() + 60, usegmt=True)) <= 60
    assert retry_after(formatdate(time.time() - 60, usegmt=True)) == 0
    assert retry_after("1e999") == 0
