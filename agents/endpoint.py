"""One server that speaks the OpenAI chat protocol: asked politely, tried again while that can help, and errors told.

Requests go through the `openai` client. Trying again is done here: the client would neither do it for an answer that
drips or breaks off, nor keep to a deadline.
"""

import asyncio
import math
import os
import random
import threading
import time
from collections.abc import Callable, Coroutine, Mapping
from email.utils import parsedate_to_datetime
from typing import Any, TypeVar
from urllib.parse import urlsplit

from agents.replies import Reply, read

try:
    import openai
except ImportError as error:
    raise ImportError("expected the package openai; install it with: pip install openai") from error

FIRST_PAUSE, LONGEST_PAUSE = 0.5, 30.0
"""Seconds of back-off: the pause doubles from the first to the longest."""

MOST_BYTES = 2**23  # of an answer; the longest turn that is read has a quarter of a million characters
SHOWN_CHARACTERS = 200  # of a server's own words in an error

ADVICE = {
    400: "check the settings of the policy against what this server takes, and the length of its context",
    401: "set OPENAI_API_KEY, or pass api_key",
    403: "set OPENAI_API_KEY, or pass api_key, for an account that may use this model",
    404: "check base_url, which usually ends in /v1, and the name of the model; GET {base}/models lists the names",
    413: "show fewer or smaller images (view_pixels, crop_pixels, max_turns)",
    **dict.fromkeys((301, 302, 303, 307, 308), "give as base_url the address that the server sends on to"),
    422: "check the settings of the policy against what this server takes",
    429: "lower concurrency, or raise retries and deadline; if the account has no quota left, add to it",
}
PASSING = {408, 409, 425, 429}
"""Statuses that may be gone a moment later, besides those from 500 on."""

_TEXT = "pixel_env.text"
"""Where the text of an answer is kept, among what its HTTP library calls its extensions."""

Result = TypeVar("Result")


class EndpointError(RuntimeError):
    """A request that brought no reply: one line with what was sent where, what came back, and what to do."""


class _Fault(Exception):
    """What one try came to; `passing` if trying again can help, after `wait` seconds if the server says so."""

    def __init__(self, what: str, advice: str, *, passing: bool, wait: float = 0.0) -> None:
        super().__init__(what)
        self.advice, self.passing, self.wait = advice, passing, wait


class Endpoint:
    """A server, and a thread with an event loop in which it is asked; `close` ends both."""

    def __init__(
        self,
        base_url: str,
        api_key: str | None,
        *,
        concurrency: int,
        timeout: float,
        retries: int,
        deadline: float,
    ) -> None:
        """Prepare to ask; nothing is sent yet. For the arguments see `EndpointPolicy`."""
        self._shown_url = _without_secrets(base_url)
        self.timeout, self.retries, self.deadline = timeout, retries, deadline
        self._secret = api_key or os.environ.get("OPENAI_API_KEY", "")
        # A server that wants no key gets a word in its place: the client refuses to start without one.
        # No redirects: what is sent, pictures included, is for this server.
        http = openai.DefaultAsyncHttpxClient(follow_redirects=False, event_hooks={"response": [self._look]})
        self._client = openai.AsyncOpenAI(
            base_url=base_url,
            api_key=self._secret or "none",
            max_retries=0,
            timeout=timeout,
            http_client=http,
            default_headers={"Accept-Encoding": "identity"},
        )
        self._slots = asyncio.Semaphore(concurrency)
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="endpoint", daemon=True)
        self._thread.start()

    def run(self, work: Coroutine[Any, Any, Result]) -> Result:
        """Run a coroutine in the thread of the endpoint; may be called from any thread, also one with a loop."""
        future = asyncio.run_coroutine_threadsafe(work, self._loop)
        try:
            return future.result()
        except BaseException:
            future.cancel()  # Ctrl-C arrives here, not in the thread
            raise

    def close(self) -> None:
        """Close the connections and end the thread."""
        if self._loop.is_closed():
            return
        self.run(self._client.close())
        self.run(self._loop.shutdown_default_executor())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    async def ask(self, model: str, body: Callable[[], dict[str, Any]]) -> Reply:
        """Return the reply to a request.

        Args:
            model: The model, for errors.
            body: Makes the request; called in a thread, and only when it is the request's turn to be sent.

        Raises:
            EndpointError: There is none, and trying again cannot help, or has not.
        """
        request: dict[str, Any] = {}
        begun, tries = math.inf, 0
        while True:
            async with self._slots:
                begun, tries = min(begun, time.monotonic()), tries + 1
                request = request or await asyncio.to_thread(body)
                try:
                    return await self._try(request, begun + self.deadline - time.monotonic())
                except _Fault as fault:
                    failed = fault
            pause = max(failed.wait, _back_off(tries))
            spent = time.monotonic() - begun
            if not failed.passing or tries > self.retries or spent + pause > self.deadline:
                # Not chained: what the client says of the answer may hold the key.
                raise EndpointError(self._told(model, failed, tries, spent)) from None
            await _sleep(pause)

    async def _try(self, request: dict[str, Any], left: float) -> Reply:
        """Send a request once, with `left` seconds until its deadline; raises _Fault."""
        seconds = max(0.0, min(self.timeout, left))
        try:
            async with asyncio.timeout(seconds):  # the client's own time-out begins anew with every byte
                async with self._client.chat.completions.with_streaming_response.create(**request) as answer:
                    reply = read(answer.http_response.extensions[_TEXT])
        except (TimeoutError, openai.APITimeoutError):
            what = f"no complete answer within {seconds:.3g} s"
            raise _Fault(what, "raise timeout and deadline, or lower concurrency", passing=True) from None
        except openai.APIConnectionError as error:
            if isinstance(error.__cause__, _Fault):  # of `_look`, which the client calls
                raise error.__cause__ from None
            what = f"no connection: {self._brief(str(error.__cause__ or error))}"
            raise _Fault(what, "check that the server runs and base_url is its address", passing=True) from None
        except ValueError as error:
            advice = "look at the server's log; does it speak the OpenAI chat protocol?"
            raise _Fault(self._brief(str(error)), advice, passing=True) from None
        if reply.finish == "content_filter":
            raise _Fault("the content filter of the server held the answer back", "leave the task out", passing=False)
        return reply

    async def _look(self, response: Any) -> None:
        """Read an answer in the place of the client, which would take as much as the server sends; raises _Fault.

        A compressed answer is refused unread: a few bytes may become any number of them.
        """
        if (coding := response.headers.get("content-encoding", "identity").strip().lower()) != "identity":
            what, advice = f"an answer in the coding {self._brief(coding)!r}", "have the server send it as it is"
            raise _Fault(what, advice, passing=False)
        body = bytearray()
        async for piece in response.aiter_raw():
            body += piece
            if len(body) > MOST_BYTES:
                advice = "look at the server's log; does it speak the OpenAI chat protocol?"
                raise _Fault(f"an answer of more than {MOST_BYTES} bytes", advice, passing=True)
        text = self._redact(body.decode("utf-8", "replace"))  # whatever character set the server names
        if not response.is_success:
            raise self._refusal(response.status_code, response.headers, text)
        response.extensions[_TEXT] = text

    def _refusal(self, status: int, headers: Mapping[str, str], text: str) -> _Fault:
        advice = ADVICE.get(status, "look at the server's log" if status >= 500 else "see what the server says")
        return _Fault(
            f"status {status}, {self._brief(text) or 'without a word'}",
            advice.format(base=self._shown_url),
            passing=(status in PASSING or status >= 500) and "insufficient_quota" not in text,
            wait=retry_after(headers.get("retry-after")),
        )

    def _told(self, model: str, fault: _Fault, tries: int, spent: float) -> str:
        after = f" after {tries} tries in {spent:.0f} s" if tries > 1 else ""
        asked = f", and it asks to wait {fault.wait:.0f} s" if fault.wait else ""
        return f"asked {model!r} at {self._shown_url}/chat/completions, got {fault}{asked}{after}; {fault.advice}"

    def _brief(self, text: str) -> str:
        """Return a server's words as one short line that no terminal or file takes harm from."""
        line = "".join(character if character.isprintable() else " " for character in self._redact(text))
        return " ".join(line.split())[:SHOWN_CHARACTERS]

    def _redact(self, text: str) -> str:
        """Take the key out of what a server says. Words such as "EMPTY", sent where none is wanted, are no secret."""
        return text.replace(self._secret, "***") if len(self._secret) >= 8 else text


def retry_after(header: str | None) -> float:
    """Read a Retry-After header: seconds from now, 0 where it says nothing.

    >>> retry_after("2.5"), retry_after(None), retry_after("soon"), retry_after("-1"), retry_after("nan")
    (2.5, 0.0, 0.0, 0.0, 0.0)
    """
    try:
        seconds = float(header or 0)
    except ValueError:
        try:
            seconds = parsedate_to_datetime(header or "").timestamp() - time.time()
        except (ValueError, OverflowError):
            return 0.0
    return max(0.0, seconds) if math.isfinite(seconds) else 0.0


def _back_off(tries: int) -> float:
    """Seconds to wait after a number of tries: doubling, and spread, so that clients do not come back in step."""
    longest = min(LONGEST_PAUSE, FIRST_PAUSE * 2.0 ** (tries - 1))
    return random.uniform(longest / 2, longest)


async def _sleep(seconds: float) -> None:
    await asyncio.sleep(seconds)


def _without_secrets(url: str) -> str:
    """Return an address without user, password and query.

    Raises:
        ValueError: It is no http address.
    """
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ValueError(f"expected base_url as http://host:port/v1, got one with scheme {parts.scheme!r}")
    host = f"[{parts.hostname}]" if ":" in parts.hostname else parts.hostname
    port = f":{parts.port}" if parts.port else ""
    return f"{parts.scheme}://{host}{port}{parts.path.rstrip('/')}"
