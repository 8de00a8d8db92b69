"""Conversations as messages of the OpenAI chat protocol, and replies as action texts. Nothing is sent here.

A video is what the environment shows of it, numbered frames: each is an image of the message, since the protocol has no
item for videos.

The protocol says nothing of special tokens: what the template of a server does with the name of one in a text is up to
the server.
"""

import base64
import io
import json
import re
from collections.abc import Callable, Sequence
from typing import Any, Literal

import numpy as np
from PIL import Image

from pixel_env.actions import CropImage, CustomCall, SelectFrames, parse
from pixel_env.json_schema import Schema
from pixel_env.prompts import IMAGE_BELOW, IMAGE_MARKER, functions_apart, plain
from pixel_env.rollout import Conversation

Tools = Literal["text", "native"]
Message = dict[str, Any]
Show = Callable[[np.ndarray], str]
"""What stands for an image (H, W, 3) uint8 in a message: its `data_url`, or a digest where it is not sent."""

_OPEN, _CLOSE = "<tool_call>", "</tool_call>"


def data_url(image: np.ndarray) -> str:
    """Return an image (H, W, 3) uint8 as the data URL of a PNG, which keeps every pixel."""
    file = io.BytesIO()
    Image.fromarray(image).save(file, "PNG", compress_level=1)
    return f"data:image/png;base64,{base64.b64encode(file.getvalue()).decode()}"


def messages(conversation: Conversation, tools: Tools = "text", show: Show = data_url) -> list[Message]:
    """Return the messages of a conversation in which it is the policy's turn.

    Args:
        conversation: What has been said and shown.
        tools: ``"text"``: calls are text, as the system text asks for. ``"native"``: calls are tool calls of the
            protocol, and what they gave stands under the role "tool".
        show: What stands for an image.

    Raises:
        ValueError: The markers in a text and the images differ in number.
    """
    system, schemas = (conversation.instructions, []) if tools == "text" else functions_apart(conversation.instructions)
    first, *later = conversation.observations
    said: list[Message] = [{"role": "system", "content": system}] if system else []
    said.append({"role": "user", "content": parts(first["text"], first["images"], show)})
    for turn, (action, observation) in enumerate(zip(conversation.actions, later, strict=True), start=1):
        text, images = observation["text"], observation["images"]
        call_id = f"call{turn:05d}"  # nine letters and digits, which the strictest servers ask for
        call = native_call(action, call_id, schemas) if tools == "native" else None
        if call is None:
            # A marker in the policy's words is no image, and half a surrogate pair cannot be sent.
            said += [{"role": "assistant", "content": plain(action)}]
            said += [{"role": "user", "content": parts(text, images, show)}]
        else:
            said += [call, *_result(call_id, text, images, show)]
    return said


def template_messages(conversation: Conversation, special_tokens: Sequence[str]) -> list[Message]:
    """Return the same for the chat template of a processor of transformers: an image is a picture, a text a part.

    Args:
        conversation: What has been said and shown.
        special_tokens: Names that the tokenizer would not take for text: of all in its `added_tokens_decoder` that are
            special (its `all_special_tokens` leaves some out). A template cannot tell one that somebody wrote from its
            own, so they are broken by a space.

    Raises:
        ValueError: The markers in a text and the images differ in number.
    """

    def part(said: Message) -> Message:
        if said["type"] == "image_url":
            return {"type": "image", "image": pictures.pop(0)}
        return _text(_broken(said["text"], special_tokens))

    pictures = [Image.fromarray(image) for shown in conversation.observations for image in shown["images"]]
    said = messages(conversation, "text", lambda image: "")
    for message in said:
        content = message["content"]
        message["content"] = [part(one) for one in ([_text(content)] if isinstance(content, str) else content)]
    return said


def native_call(action: str, call_id: str, schemas: Sequence[Schema] = ()) -> Message | None:
    """Return an action that ends in one good call, of the functions offered, as a message with a tool call, else None.

    A broken call stays text, and so do NaN, infinity and half a surrogate pair, which `parse` reads: servers read the
    arguments in the history as JSON and refuse the whole request.
    """
    before, tag, rest = action.rpartition(_OPEN)
    call, close, after = rest.partition(_CLOSE)
    read = parse(action, schemas)
    if not tag or not close or after or not isinstance(read, CropImage | SelectFrames | CustomCall):
        return None
    asked = json.loads(call)
    try:
        json.dumps(asked["arguments"], ensure_ascii=False, allow_nan=False).encode()
    except ValueError:
        return None
    function = {"name": asked["name"], "arguments": json.dumps(asked["arguments"])}
    return {
        "role": "assistant",
        "content": plain(before.rstrip()) or None,
        "tool_calls": [{"id": call_id, "type": "function", "function": function}],
    }


def action_text(content: str | None, calls: Sequence[tuple[str, str]]) -> str:
    r"""Return a reply as the environment reads it: the words, then every call as text.

    Args:
        content: The words of the reply.
        calls: Name and arguments of each tool call. The arguments are put in as they came: where they are not JSON,
            the environment says so to the policy, as it does for a call that was written as text.

    >>> action_text("Closer.", [("select_frames", '{"target_frames": [2]}')])
    'Closer. <tool_call>{"name": "select_frames", "arguments": {"target_frames": [2]}}</tool_call>'
    """
    tagged = [f'{_OPEN}{{"name": {json.dumps(name)}, "arguments": {arguments}}}{_CLOSE}' for name, arguments in calls]
    if not content or not tagged:
        return content or " ".join(tagged)
    return " ".join([content.rstrip(), *tagged])


def parts(text: str, images: Sequence[np.ndarray], show: Show) -> list[Message]:
    """Return the parts of a message, every image where its marker stands in the text."""
    first, *rest = text.split(IMAGE_MARKER)
    _check(len(rest), len(images))
    made = [_text(first)]
    for image, words in zip(images, rest, strict=True):
        made += [_picture(image, show), _text(words)]
    return [part for part in made if part.get("text") != ""]


def _result(call_id: str, text: str, images: Sequence[np.ndarray], show: Show) -> list[Message]:
    """Return what a call gave: its text under the role "tool", its images in a user message.

    Many servers and templates take only text in a tool message, so images follow in a message of their own.
    """
    _check(text.count(IMAGE_MARKER), len(images))
    said: list[Message] = [
        {"role": "tool", "tool_call_id": call_id, "content": text.replace(IMAGE_MARKER, IMAGE_BELOW)}
    ]
    if images:
        said.append({"role": "user", "content": [_picture(image, show) for image in images]})
    return said


def _check(markers: int, images: int) -> None:
    if markers != images:
        raise ValueError(f"expected {markers} images, one for each {IMAGE_MARKER} of the text, got {images}")


def _text(text: str) -> Message:
    return {"type": "text", "text": text}


def _picture(image: np.ndarray, show: Show) -> Message:
    return {"type": "image_url", "image_url": {"url": show(image)}}


def _broken(text: str, names: Sequence[str]) -> str:
    """Break every name in a text.

    >>> _broken("a<|im_end|>b", ["<|im_end|>"])
    'a< |im_end|>b'
    """
    for name in names:
        # Looking ahead finds names that share characters, such as two "aXa" in "aXaXa".
        text = re.sub(f"{re.escape(name[:1])}(?={re.escape(name[1:])})", lambda first: f"{first[0]} ", text)
    return text
