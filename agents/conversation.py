"""Conversations as token ids: the only file that knows the chat template.

Ids are concatenated, never decoded and tokenised again: what a policy sampled is what it is trained on. The tests
compare the result with the processor's own chat template.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
import torch

from pixel_env.prompts import IMAGE_MARKER


class Shaped(Protocol):
    """A view, or what will be one: only its shape (H, W, 3) counts for the ids."""

    @property
    def shape(self) -> tuple[int, ...]:
        """(H, W, 3)."""


@dataclass
class Tokens:
    """A piece of a conversation as a model reads it.

    Attributes:
        ids: Token ids, image pads expanded.
        loss: For each id, 1 if the policy wrote it and is trained on it, else 0.
        images: Views (H, W, 3) uint8 in the order of their pads.
    """

    ids: list[int] = field(default_factory=list)
    loss: list[int] = field(default_factory=list)
    images: list[np.ndarray] = field(default_factory=list)

    def add(self, ids: Sequence[int], loss: int, images: Sequence[np.ndarray] = ()) -> None:
        """Append ids that all have the same loss flag."""
        self.ids += ids
        self.loss += [loss] * len(ids)
        self.images += images

    def __add__(self, other: "Tokens") -> "Tokens":
        """Both, one after the other."""
        return Tokens(self.ids + other.ids, self.loss + other.loss, self.images + other.images)


class ChatEncoder:
    """Turns text and views into ids in ChatML, as Qwen2.5-VL's template does, whatever the text contains."""

    def __init__(self, processor: Any) -> None:
        self.processor = processor
        self.tokenizer = processor.tokenizer
        self.factor = processor.image_processor.patch_size * processor.image_processor.merge_size
        convert = self.tokenizer.convert_tokens_to_ids
        self.image_pad, self.video_pad = processor.image_token_id, processor.video_token_id
        self.end = convert("<|im_end|>")
        self._start = convert("<|im_start|>")
        self._vision = convert("<|vision_start|>"), convert("<|vision_end|>")
        self._newline = self.text("\n")
        self._roles = {role: self.text(f"{role}\n") for role in ("system", "user", "assistant")}

    def text(self, text: str) -> list[int]:
        """Ids of plain text: a special token's name in it is spelled out, never turned into the special token.

        Half a surrogate pair, which no tokenizer takes, becomes a question mark.
        """
        text = text.encode("utf-8", "replace").decode()
        return self.tokenizer(text, add_special_tokens=False, split_special_tokens=True)["input_ids"]

    def observation(self, text: str, images: Sequence[Shaped]) -> list[int]:
        """Ids of an observation; every ``<image>`` becomes the pads of the next view.

        Raises:
            ValueError: The markers in the text and the images differ in number, or a view is off the patch grid.
        """
        parts = text.split(IMAGE_MARKER)
        if len(parts) != len(images) + 1:
            raise ValueError(
                f"expected {len(parts) - 1} images, one for each {IMAGE_MARKER} of the text, got {len(images)}"
            )
        ids = self.text(parts[0])
        for image, part in zip(images, parts[1:], strict=True):
            ids += [self._vision[0], *[self.image_pad] * self.pads(image), self._vision[1], *self.text(part)]
        return ids

    def pads(self, image: Shaped) -> int:
        """Number of image tokens of a view (H, W, 3)."""
        height, width = image.shape[:2]
        if height % self.factor or width % self.factor:
            raise ValueError(f"a view must be a multiple of {self.factor} pixels in both sides, got {width}x{height}")
        return (height // self.factor) * (width // self.factor)

    def folded(self, ids: Sequence[int]) -> list[int]:
        """Ids with one pad an image: what a processor reads that expands them itself."""
        pad = self.image_pad
        return [token for k, token in enumerate(ids) if token != pad or ids[k - 1] != pad]

    @property
    def forbidden(self) -> list[int]:
        """Special tokens that a policy may not write: all but the end of a turn."""
        # Not `all_special_ids`: that has only the tokens with a role, and pads and vision marks have none.
        special = [index for index, token in self.tokenizer.added_tokens_decoder.items() if token.special]
        return [index for index in special if index != self.end]

    def message(self, role: str, ids: Sequence[int]) -> list[int]:
        """Ids of one closed message."""
        return [self._start, *self._roles[role], *ids, self.end, *self._newline]

    @property
    def cue(self) -> list[int]:
        """Ids that ask the assistant to speak."""
        return [self._start, *self._roles["assistant"]]

    def prompt(self, instructions: str, text: str, images: Sequence[np.ndarray]) -> list[int]:
        """Ids of the system message, the first observation and the cue for the first action."""
        system = self.message("system", self.text(instructions)) if instructions else []
        return system + self.message("user", self.observation(text, images)) + self.cue

    def reply(self, text: str, images: Sequence[np.ndarray]) -> list[int]:
        """Ids from the end of an action to the cue for the next: what the environment says in between.

        The action's own ``<|im_end|>`` is the policy's and not part of it.
        """
        return self._newline + self.message("user", self.observation(text, images)) + self.cue


def patchify(images: Sequence[np.ndarray], image_processor: Any) -> tuple[torch.Tensor, torch.Tensor]:
    """Views as the rows a Qwen2.5-VL vision tower takes: what its image processor computes, without the detours.

    Args:
        images: Views (H, W, 3) uint8, sides multiples of patch size times merge size.
        image_processor: Gives patch size, merge size, mean and std.

    Returns:
        pixel_values (sum of patches, 3 * 2 * patch**2) float32 and image_grid_thw (len(images), 3) int64.
    """
    patch, merge = image_processor.patch_size, image_processor.merge_size
    scale = np.asarray(image_processor.image_std, np.float32) * 255.0
    shift = np.asarray(image_processor.image_mean, np.float32) * 255.0
    rows, grids = [], []
    for image in images:
        h, w = image.shape[0] // patch, image.shape[1] // patch
        pixels = (image.astype(np.float32) - shift) / scale
        blocks = pixels.reshape(h // merge, merge, patch, w // merge, merge, patch, 3).transpose(0, 3, 1, 4, 6, 2, 5)
        flat = blocks.reshape(h * w, 3, 1, patch * patch)
        rows.append(np.repeat(flat, 2, axis=2).reshape(h * w, -1))  # a still picture fills both frames of a patch
        grids.append((1, h, w))
    return torch.from_numpy(np.concatenate(rows)), torch.tensor(grids)
