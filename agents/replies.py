"""What an endpoint answered: read from its JSON, counted in tokens and money, and kept for a later run."""

import dataclasses
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pixel_env.actions import MAX_TURN_CHARACTERS
from pixel_env.chat import action_text
from pixel_env.journal import append, complete_lines


@dataclass(frozen=True)
class Reply:
    """One answer of an endpoint.

    Attributes:
        text: The action text.
        model: What the server says it is; may be more exact than what was asked for.
        finish: Why the answer ended, such as "stop" or "length".
        prompt_tokens: Tokens read, None where the server does not say.
        completion_tokens: Tokens written, None where the server does not say.
    """

    text: str
    model: str | None = None
    finish: str | None = None
    prompt_tokens: int | None = None
    completion_tokens: int | None = None


@dataclass(frozen=True)
class Usage:
    """Tokens of some requests. A sum that misses a figure of the server is unknown, so None, and never too low.

    Requests that brought no answer are not counted, whatever the server charges for them.

    Attributes:
        requests: Requests that were answered.
        unreported: Those among them for which the server did not give both figures.
        prompt_tokens: Tokens read.
        completion_tokens: Tokens written.
    """

    requests: int = 0
    unreported: int = 0
    prompt_tokens: int | None = 0
    completion_tokens: int | None = 0

    @classmethod
    def of(cls, reply: Reply) -> "Usage":
        """Return the usage of one request."""
        missing = reply.prompt_tokens is None or reply.completion_tokens is None
        return cls(1, int(missing), reply.prompt_tokens, reply.completion_tokens)

    def __add__(self, other: "Usage") -> "Usage":
        return Usage(
            self.requests + other.requests,
            self.unreported + other.unreported,
            _sum(self.prompt_tokens, other.prompt_tokens),
            _sum(self.completion_tokens, other.completion_tokens),
        )

    def cost(self, prices: tuple[float, float] | None) -> float | None:
        """Return the price, given those of a million tokens read and of a million written; None where unknown.

        >>> Usage(1, 0, 2_000_000, 100_000).cost((0.5, 10.0)), Usage(1, 1, None, 9).cost((0.5, 10.0))
        (2.0, None)
        """
        if prices is None or self.prompt_tokens is None or self.completion_tokens is None:
            return None
        return (prices[0] * self.prompt_tokens + prices[1] * self.completion_tokens) / 1e6

    def __str__(self) -> str:
        figures = [
            f"{'unknown' if number is None else number} tokens {what}"
            for what, number in (("read", self.prompt_tokens), ("written", self.completion_tokens))
        ]
        missing = f"; the server gave no figures for {self.unreported}" if self.unreported else ""
        return f"{self.requests} requests, {', '.join(figures)}{missing}"


def _sum(a: int | None, b: int | None) -> int | None:
    return None if a is None or b is None else a + b


def read(body: str) -> Reply:
    """Read the body of a chat completion. Nothing of it is taken on trust.

    Raises:
        ValueError: It is no chat completion, or its text is longer than a turn may be; says what is wrong.
    """
    try:
        answer = json.loads(body)
    except (ValueError, RecursionError):  # half an answer, or brackets without end
        raise ValueError(f"expected a chat completion as JSON, got {len(body)} characters that are not") from None
    match answer:
        case {"choices": [{"message": dict(message)} as choice, *_]}:
            text = action_text(_words(message), _calls(message.get("tool_calls") or []))
            if len(text) > MAX_TURN_CHARACTERS:  # no environment reads it: not to be kept, sent again or written
                raise ValueError(f"expected a reply of at most {MAX_TURN_CHARACTERS} characters, got {len(text)}")
            usage = answer.get("usage")
            usage = usage if isinstance(usage, dict) else {}
            tokens = [_count(usage.get(name)) for name in ("prompt_tokens", "completion_tokens")]
            return Reply(text, _name(answer.get("model")), _name(choice.get("finish_reason")), *tokens)
    raise ValueError("expected a chat completion with a message in choices, got none")


def _words(message: dict[str, Any]) -> str | None:
    words = message.get("content") or message.get("refusal")
    if words is not None and not isinstance(words, str):
        raise ValueError(f"expected the content of the message as text or null, got {type(words).__name__}")
    return words


def _calls(calls: Any) -> list[tuple[str, str]]:
    if not isinstance(calls, list):
        raise ValueError(f"expected tool_calls as a list, got {type(calls).__name__}")
    return [_call(call) for call in calls]


def _call(call: Any) -> tuple[str, str]:
    match call:
        case {"function": {"name": str(name), "arguments": str(arguments)}}:
            return name, arguments
        case {"function": {"name": str(name), "arguments": dict(arguments)}}:  # not as the protocol has it, but seen
            return name, json.dumps(arguments)
    raise ValueError("expected tool calls with a name and arguments as text, got something else")


def _count(value: Any) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) and value >= 0 else None


def _name(value: Any) -> str | None:
    return value[:200] if isinstance(value, str) else None


class ReplyLog:
    """Replies on disk, one a line, so that a run that was killed asks nothing twice.

    A line is added the moment a reply arrives and never changed. One run may write a file at a time.
    """

    def __init__(self, path: str | Path) -> None:
        """Open a file, or begin one; a last line that a kill cut short is dropped.

        Raises:
            ValueError: Another line is not a reply; names the file and the line.
        """
        self._path = path = Path(path)
        path.parent.mkdir(parents=True, exist_ok=True)
        whole = path.read_bytes() if path.exists() else b""
        complete = whole[: whole.rfind(b"\n") + 1]
        self._kept = dict(
            _kept_line(line, f"{path}:{number}") for number, line in enumerate(complete.splitlines(), start=1)
        )
        complete_lines(path)

    def get(self, key: str) -> Reply | None:
        """Return the reply to a request, None if it was not answered yet."""
        return self._kept.get(key)

    @property
    def models(self) -> set[str]:
        """What the server said it is, in all replies."""
        return {reply.model for reply in self._kept.values() if reply.model}

    def add(self, key: str, reply: Reply) -> None:
        """Keep a reply; it is with the operating system when this returns.

        Raises:
            OSError: It is not, and the file is as it was.
        """
        self._kept[key] = reply
        append(self._path, json.dumps({"key": key, **dataclasses.asdict(reply)}))


def _kept_line(line: bytes, where: str) -> tuple[str, Reply]:
    try:
        fields = json.loads(line)
        return fields.pop("key"), Reply(**fields)
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"{where}: expected a kept reply, got {line[:60]!r}; repair or delete the file") from error
