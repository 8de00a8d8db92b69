"""Rollouts of many episodes at once: one forward pass a token, prompts computed once a group, the cache kept.

Nothing waits: as soon as a quarter of the rows have finished their turn, the environment answers them, and they go on
beside the others.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from agents.conversation import ChatEncoder, Tokens
from agents.decoder import Decoder
from agents.ragged_cache import ragged_attention
from agents.transcript import Budget, Sample, Transcript, transcripts
from pixel_env.policies import Streams
from pixel_env.rollout import Conversation, Episode

NEVER = -1e4
"""Logit bias of a forbidden token: probability exactly 0, but finite, so that masked positions stay finite."""


def restrict_vocabulary(model: Any, encoder: ChatEncoder) -> None:
    """Forbid every special token but the end of a turn, in every computation that reads the output head.

    A sampled image pad has no picture and would crash the model. The bias is a buffer that is not saved: generation,
    trainer and engine see one distribution, and the weights on disk stay plain.
    """
    head = model.get_output_embeddings()
    if "bias" in head._buffers:
        return
    bias = torch.zeros(head.weight.shape[0], dtype=head.weight.dtype, device=head.weight.device)
    bias[encoder.forbidden] = NEVER
    head._parameters.pop("bias", None)
    head.register_buffer("bias", bias, persistent=False)


class Engine:
    """Plays episodes with a Qwen2.5-VL model.

    Args:
        model: The policy; its output head is restricted by `restrict_vocabulary`.
        encoder: Chat template and tokenizer.
        max_new_tokens: Most tokens of one turn; a longer turn is closed and played as it stands.
        max_completion_tokens: Most tokens behind the prompt, those of the environment included.
        temperature: 0 takes the likeliest token; log-probabilities are then those of temperature 1.
        seed: Of the sampling. Each turn draws from a stream of its own, given by this seed, that of the episode's reset
            and the number of the turn, not by who shares the batch. So the episodes of a group need different seeds.
    """

    def __init__(
        self,
        model: Any,
        encoder: ChatEncoder,
        *,
        max_new_tokens: int = 160,
        max_completion_tokens: int = 1024,
        temperature: float = 1.0,
        seed: int = 0,
    ) -> None:
        self.model, self.encoder, self.temperature = model, encoder, temperature
        self.budget = Budget(max_new_tokens, max_completion_tokens)
        self._streams = Streams(seed)
        restrict_vocabulary(model, encoder)

    @torch.no_grad()
    def rollout(self, groups: Sequence[Sequence[Episode]]) -> list[Sample]:
        """Play episodes to their end.

        Args:
            groups: Episodes after their reset; those of a group share the task and so the first observation.

        Returns:
            One sample an episode: those of the first group, those of the second, ...
        """
        begun = transcripts(groups, self.encoder, self.budget)
        live = [rows for group in begun if (rows := [row for row in group if not row.over])]
        if live:
            records = [row for rows in live for row in rows]
            conversations = [row.conversation for row in records]
            with ragged_attention(self.model.model.language_model):
                _Run(self, [rows[0].prompt for rows in live], list(map(len, live)), conversations, records).play()
        return [row.sample() for group in begun for row in group]

    @torch.no_grad()
    def complete(self, prompts: Sequence[Tokens], conversations: Sequence[Conversation]) -> list[list[int]]:
        """The next turn of each conversation, without its ``<|im_end|>``; `prompts` are what is read of them."""
        with ragged_attention(self.model.model.language_model):
            run = _Run(self, prompts, [1] * len(prompts), conversations)
            while run.active.any():
                run.step()
        turns = [run.turn(row)[0] for row in range(len(prompts))]
        return [ids[: len(ids) - (ids[-1] == self.encoder.end)] for ids in turns]

    def chances(self, conversations: Sequence[Conversation]) -> torch.Tensor:
        """Numbers (N, max_new_tokens) from 0 up to 1, float64, that decide the next turns of N conversations."""
        drawn = [self._streams.of(conversation).random(self.budget.max_new_tokens) for conversation in conversations]
        return torch.from_numpy(np.stack(drawn)).to(self.model.device)

    def draw(self, logits: torch.Tensor, chances: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Tokens (N,) and their log-probabilities (N,) from logits (N, V) and a number from 0 up to 1 for each (N,).

        A token is where the sum of the probabilities passes its number. In 64 bits a number below 1 times the whole sum
        stays below it, so a token of probability 0 is never drawn.
        """
        logps = (logits.float() / (self.temperature or 1.0)).log_softmax(-1)
        if self.temperature == 0:
            tokens = logps.argmax(-1)
        else:
            sums = logps.exp().cumsum(-1, dtype=torch.float64)
            tokens = torch.searchsorted(sums, chances[:, None] * sums[:, -1:], right=True)[:, 0]
        return tokens, logps.gather(1, tokens[:, None])[:, 0]


class _Run:
    """One batch of rollouts. `index` (N,) maps live rows to records; the newest token of a row is not in the cache.

    Attributes:
        ids: (N, max_completion_tokens) what the policy wrote, at its place behind the prompt.
        logps: (N, max_completion_tokens) its log-probabilities.
        chances: (N, max_new_tokens) what decides the tokens of the newest turn.
        turn_start: (N,) where the newest turn begins.
        length: (N,) where it ends.
        active: (live rows,) whose turn goes on.
    """

    def __init__(
        self,
        engine: Engine,
        prompts: Sequence[Tokens],
        sizes: Sequence[int],
        conversations: Sequence[Conversation],
        records: Sequence[Transcript] = (),
    ) -> None:
        self.engine, self.encoder, self.records = engine, engine.encoder, records
        rows, room, device = sum(sizes), engine.budget.max_completion_tokens, engine.model.device
        self.ids = torch.zeros(rows, room, dtype=torch.long, device=device)
        self.logps = torch.zeros(rows, room, device=device)
        self.chances = engine.chances(conversations)
        self.length = torch.zeros(rows, dtype=torch.long, device=device)
        self.turn_start = torch.zeros_like(self.length)
        self.active = torch.ones(rows, dtype=torch.bool, device=device)
        self.index = torch.arange(rows, device=device)
        self.decoder = Decoder(engine.model, engine.encoder)
        self._choose(self.index, self.decoder.prefill(prompts, sizes))

    def play(self) -> None:
        """Play all episodes to their end."""
        while len(self.index):
            waiting = int((~self.active).sum())
            if 4 * waiting >= len(self.index):
                self._answer()
            else:
                self.step()

    def step(self) -> None:
        """One more token for every active row."""
        newest = self.ids[self.index, self.length[self.index] - 1]
        logits = self.decoder.step(newest, self.active)
        live = self.active.nonzero()[:, 0]
        self._choose(live, logits[live])

    def turn(self, record: int) -> tuple[list[int], list[float]]:
        """Ids and log-probabilities of the newest turn."""
        turn = slice(int(self.turn_start[record]), int(self.length[record]))
        return self.ids[record, turn].tolist(), self.logps[record, turn].tolist()

    def _choose(self, rows: torch.Tensor, logits: torch.Tensor) -> None:
        """Draw the next token of live rows (R,) from logits (R, V) and see who has finished the turn."""
        records = self.index[rows]
        at = self.length[records]
        tokens, logps = self.engine.draw(logits, self.chances[records, at - self.turn_start[records]])
        self.ids[records, at], self.logps[records, at] = tokens, logps
        self.length[records] = at + 1
        over = at + 1 - self.turn_start[records] >= self.engine.budget.max_new_tokens
        over |= at + 2 >= self.engine.budget.max_completion_tokens  # room for an <|im_end|>
        self.active[rows] = ~over & (tokens != self.encoder.end)

    def _answer(self) -> None:
        """Let the environment answer the rows that have finished their turn; drop those whose episode is over."""
        waiting = (~self.active).nonzero()[:, 0].tolist()
        replies = {row: self._play(record) for row, record in zip(waiting, self.index[waiting].tolist(), strict=True)}
        lengths = [
            had + len(reply.ids) if (reply := replies.get(row)) else had
            for row, had in enumerate(self.decoder.cache.lengths.tolist())
        ]
        kept = [row for row in range(len(self.index)) if replies.get(row, True)]
        kept.sort(key=lambda row: -lengths[row])
        keep = torch.tensor(kept, dtype=torch.long, device=self.index.device)
        self.index, self.active = self.index[keep], self.active[keep]
        if kept:
            self.decoder.keep(keep)
        pieces = [reply for row in kept if (reply := replies.get(row))]
        if pieces:
            rows = (~self.active).nonzero()[:, 0]
            records = self.index[rows]
            self.chances[records] = self.engine.chances([self.records[k].conversation for k in records.tolist()])
            self._choose(rows, self.decoder.extend(rows, pieces))

    def _play(self, record: int) -> Tokens | None:
        """Take the turn of one row; returns what the model has to read before its next turn, None if there is none."""
        ids, logps = self.turn(record)
        transcript = self.records[record]
        after = transcript.take(ids, logps)
        if after is None:
            return None
        self.length[record] = self.turn_start[record] = len(transcript)
        return Tokens(ids[-1:], [1]) + after
