"""Forward passes of a Qwen2.5-VL over many rows at once: prompts, pieces of any length, single tokens."""

from collections.abc import Sequence
from typing import Any

import torch

from agents.conversation import ChatEncoder, Tokens, patchify
from agents.ragged_cache import RaggedCache


class Decoder:
    """Forward passes over rows that share prompts, inside `agents.ragged_cache.ragged_attention`.

    Attributes:
        position: (N,) M-RoPE position of the next token of a row.
    """

    def __init__(self, model: Any, encoder: ChatEncoder) -> None:
        self.model, self.encoder = model, encoder

    def prefill(self, prompts: Sequence[Tokens], sizes: Sequence[int]) -> torch.Tensor:
        """Read the prompts, each for as many rows as `sizes` says; returns the logits (N, V)."""
        device = self.model.device
        group = torch.arange(len(prompts), device=device).repeat_interleave(torch.tensor(sizes, device=device))
        lengths = torch.tensor([len(prompt.ids) for prompt in prompts], device=device)
        self.cache = RaggedCache(lengths, group)
        logits, after = self._read(prompts, torch.zeros_like(lengths))
        self.position = after[group]
        return logits[group]

    def extend(self, rows: torch.Tensor, pieces: Sequence[Tokens]) -> torch.Tensor:
        """Append a piece to each of `rows` (R,); returns the logits (R, V)."""
        lengths = torch.tensor([len(piece.ids) for piece in pieces], device=rows.device)
        self.cache.begin_extension(rows, lengths, int(lengths.max()))
        logits, self.position[rows] = self._read(pieces, self.position[rows])
        return logits

    def step(self, tokens: torch.Tensor, active: torch.Tensor) -> torch.Tensor:
        """Append one token (N,) to the rows that are `active` (N,) bool; returns logits (N, V), junk for the others."""
        self.cache.begin_step(active)
        position = self.position.expand(3, 1, -1).transpose(1, 2)
        self.position = self.position + active
        return self._forward(self.model.get_input_embeddings()(tokens[:, None]), position, torch.zeros_like(tokens))

    def keep(self, rows: torch.Tensor) -> None:
        """Keep these rows, in this order."""
        self.cache.keep(rows)
        self.position = self.position[rows]

    def _read(self, pieces: Sequence[Tokens], start: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Run right-padded pieces that begin at positions `start` (B,); returns last logits and next positions."""
        ids = torch.full((len(pieces), max(len(p.ids) for p in pieces)), self.encoder.end)
        for row, piece in enumerate(pieces):
            ids[row, : len(piece.ids)] = torch.tensor(piece.ids)
        lengths = torch.tensor([len(piece.ids) for piece in pieces])
        mask = torch.arange(ids.shape[1]) < lengths[:, None]
        is_image = (ids == self.encoder.image_pad) & mask
        images = [image for piece in pieces for image in piece.images]
        device, grid = start.device, None
        embeddings = self.model.get_input_embeddings()(ids.to(device))
        if images:
            pixels, grid = patchify(images, self.encoder.processor.image_processor)
            seen = self.model.model.get_image_features(pixels.to(device), grid.to(device)).pooler_output
            embeddings[is_image.to(device)] = torch.cat(list(seen)).to(embeddings.dtype)
        position, _ = self.model.model.get_rope_index(ids, is_image.int(), image_grid_thw=grid, attention_mask=mask)
        after = position.amax(dim=(0, 2)) + 1
        logits = self._forward(embeddings, position.to(device) + start[:, None], lengths.to(device) - 1)
        return logits, after.to(device) + start

    def _forward(self, embeddings: torch.Tensor, position: torch.Tensor, last: torch.Tensor) -> torch.Tensor:
        """Logits (B, V) behind token `last` (B,) of each row."""
        hidden = self.model.model.language_model(
            inputs_embeds=embeddings, position_ids=position, past_key_values=self.cache, use_cache=True
        ).last_hidden_state
        return self.model.lm_head(hidden[torch.arange(len(last), device=last.device), last])
