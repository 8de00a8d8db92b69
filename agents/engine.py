"""Rollouts of many episodes at once: one forward pass a token, prompts computed once a group, the cache kept.

What the policy sampled is what a trainer gets: ids are recorded as they are drawn and never made again from text.
Nothing waits: as soon as a quarter of the rows have finished their turn, the environment answers them, and they go on
beside the others.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from agents.conversation import ChatEncoder, Tokens
from agents.decoder import Decoder
from pixel_env.rollout import Episode
from pixel_env.trajectory import Trajectory

NEVER = -1e4
"""Logit bias of a forbidden token: probability exactly 0, but finite, so that masked positions stay finite."""


@dataclass(frozen=True)
class Sample:
    """One rollout as a trainer needs it.

    Attributes:
        prompt_ids: Ids of the first observation, image pads expanded.
        completion_ids: All that followed, up to the end of the last turn of the policy.
        policy_mask: 1 where the policy wrote the token (its ``<|im_end|>`` included), 0 where the environment did.
        logps: Log-probabilities the tokens were drawn with; 0 where the policy did not write.
        images: Views (H, W, 3) uint8 in the order of their pads, those of the prompt first.
        num_prompt_images: How many of them belong to the prompt.
        trajectory: The record of the episode.
        cut: The budget of the rollout ended it before the environment did.
    """

    prompt_ids: list[int]
    completion_ids: list[int]
    policy_mask: list[int]
    logps: list[float]
    images: list[np.ndarray]
    num_prompt_images: int
    trajectory: Trajectory
    cut: bool


def restrict_vocabulary(model: Any, encoder: ChatEncoder) -> None:
    """Forbid every special token but the end of a turn, in every computation that reads the output head.

    A sampled image pad has no picture and would crash the model. The bias is a buffer that is not saved: generation,
    trainer and engine see one distribution, and the weights on disk stay plain.
    """
    head = model.get_output_embeddings()
    if "bias" in head._buffers:
        return
    bias = torch.zeros(head.weight.shape[0], dtype=head.weight.dtype, device=head.weight.device)
    # Not `all_special_ids`: that has only the tokens with a role, and pads and vision marks have none.
    special = [index for index, token in encoder.tokenizer.added_tokens_decoder.items() if token.special]
    bias[[index for index in special if index != encoder.end]] = NEVER
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
        seed: Seed of the sampling.
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
        if not 0 < max_new_tokens <= max_completion_tokens - 1:
            raise ValueError(
                "expected max_new_tokens of at least 1 and below max_completion_tokens, "
                f"got {max_new_tokens} and {max_completion_tokens}"
            )
        self.model, self.encoder, self.temperature = model, encoder, temperature
        self.max_new_tokens, self.max_completion_tokens = max_new_tokens, max_completion_tokens
        self.generator = torch.Generator(model.device).manual_seed(seed)
        restrict_vocabulary(model, encoder)

    @torch.no_grad()
    def rollout(self, groups: Sequence[Sequence[Episode]]) -> list[Sample]:
        """Play episodes to their end.

        Args:
            groups: Episodes after their reset; those of a group share the task and so the first observation.

        Returns:
            One sample an episode: those of the first group, those of the second, ...
        """
        playable = [[episode for episode in group if not episode.done] for group in groups]
        prompts, sizes = [_prompt(self.encoder, group) for group in playable if group], [len(g) for g in playable if g]
        rows: dict[int, Sample] = {}
        if prompts:
            run = _Run(self, prompts, sizes, [episode for group in playable for episode in group])
            rows = {id(episode): sample for episode, sample in zip(run.episodes, run.play(), strict=True)}
        return [rows.get(id(e)) or _unplayable(self.encoder, e) for group in groups for e in group]

    @torch.no_grad()
    def complete(self, prompts: Sequence[Tokens]) -> list[list[int]]:
        """The next turn of each conversation, without its ``<|im_end|>``."""
        run = _Run(self, prompts, [1] * len(prompts), [])
        while run.active.any():
            run.step()
        return [run.turn(row)[0] for row in range(len(prompts))]

    def draw(self, logits: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Tokens (N,) and their log-probabilities (N,) from logits (N, V)."""
        logps = (logits.float() / (self.temperature or 1.0)).log_softmax(-1)
        if self.temperature == 0:
            tokens = logps.argmax(-1)
        else:
            tokens = torch.multinomial(logps.exp(), 1, generator=self.generator)[:, 0]
        return tokens, logps.gather(1, tokens[:, None])[:, 0]


class _Run:
    """One batch of rollouts. `index` (N,) maps live rows to records; the newest token of a row is not in the cache."""

    def __init__(
        self, engine: Engine, prompts: Sequence[Tokens], sizes: Sequence[int], episodes: list[Episode]
    ) -> None:
        self.engine, self.encoder, self.episodes = engine, engine.encoder, episodes
        self.prompts = [prompt for prompt, size in zip(prompts, sizes, strict=True) for _ in range(size)]
        self.images: list[list[np.ndarray]] = [[] for _ in self.prompts]
        self.cut = [False] * len(self.prompts)
        rows, room, device = len(self.prompts), engine.max_completion_tokens, engine.model.device
        self.ids = torch.zeros(rows, room, dtype=torch.long, device=device)
        self.written = torch.zeros(rows, room, dtype=torch.bool, device=device)
        self.logps = torch.zeros(rows, room, device=device)
        self.length = torch.zeros(rows, dtype=torch.long, device=device)
        self.turn_start = torch.zeros_like(self.length)
        self.active = torch.ones(rows, dtype=torch.bool, device=device)
        self.index = torch.arange(rows, device=device)
        self.decoder = Decoder(engine.model, engine.encoder)
        self._choose(self.index, self.decoder.prefill(prompts, sizes))

    def play(self) -> list[Sample]:
        """Play all episodes to their end."""
        while len(self.index):
            waiting = int((~self.active).sum())
            if 4 * waiting >= len(self.index):
                self._answer()
            else:
                self.step()
        return [self._sample(row) for row in range(len(self.prompts))]

    def step(self) -> None:
        """One more token for every active row."""
        newest = self.ids[self.index, self.length[self.index] - 1]
        logits = self.decoder.step(newest, self.active)
        live = self.active.nonzero()[:, 0]
        self._choose(live, logits[live])

    def turn(self, record: int) -> tuple[list[int], bool]:
        """Ids of the newest turn without its end, and whether it ended by itself."""
        ids = self.ids[record, self.turn_start[record] : self.length[record]].tolist()
        ended = ids[-1] == self.encoder.end
        return ids[: len(ids) - ended], ended

    def _choose(self, rows: torch.Tensor, logits: torch.Tensor) -> None:
        """Draw the next token of live rows (R,) from logits (R, V) and see who has finished the turn."""
        tokens, logps = self.engine.draw(logits)
        records = self.index[rows]
        at = self.length[records]
        self.ids[records, at], self.logps[records, at], self.written[records, at] = tokens, logps, True
        self.length[records] = at + 1
        over = at + 1 - self.turn_start[records] >= self.engine.max_new_tokens
        over |= at + 2 >= self.engine.max_completion_tokens  # room for an <|im_end|>
        self.active[rows] = ~over & (tokens != self.encoder.end)

    def _answer(self) -> None:
        """Let the environment answer the rows that have finished their turn; drop those whose episode is over."""
        waiting = (~self.active).nonzero()[:, 0].tolist()
        replies = {row: self._play(record) for row, record in zip(waiting, self.index[waiting].tolist(), strict=True)}
        kept = [row for row in range(len(self.index)) if replies.get(row, True)]
        if len(kept) < len(self.index):
            keep = torch.tensor(kept, dtype=torch.long, device=self.index.device)
            self.index, self.active = self.index[keep], self.active[keep]
            if kept:
                self.decoder.keep(keep)
        pieces = [reply for reply in replies.values() if reply]
        if pieces:
            rows = (~self.active).nonzero()[:, 0]
            self._choose(rows, self.decoder.extend(rows, pieces))

    def _play(self, record: int) -> Tokens | None:
        """Take the turn of one row; returns what the model has to read before its next turn, None if there is none."""
        newest = int(self.ids[record, self.length[record] - 1])
        ids, ended = self.turn(record)
        piece = Tokens()
        piece.add([newest], 1)
        if not ended:
            self._record(record, [self.encoder.end])
            piece.add([self.encoder.end], 0)
        episode = self.episodes[record]
        if episode.step(self.encoder.tokenizer.decode(ids)):
            return None
        observation = episode.conversation.observations[-1]
        reply = self.encoder.reply(observation["text"], observation["images"])
        if int(self.length[record]) + len(reply) + 2 > self.engine.max_completion_tokens:
            self.cut[record] = True
            return None
        self._record(record, reply)
        self.turn_start[record] = self.length[record]
        self.images[record] += observation["images"]
        piece.add(reply, 0, observation["images"])
        return piece

    def _record(self, record: int, ids: list[int]) -> None:
        """Append ids that the policy did not write."""
        start = int(self.length[record])
        self.ids[record, start : start + len(ids)] = torch.tensor(ids, device=self.ids.device)
        self.length[record] += len(ids)

    def _sample(self, record: int) -> Sample:
        prompt, length = self.prompts[record], int(self.length[record])
        return Sample(
            prompt_ids=prompt.ids,
            completion_ids=self.ids[record, :length].tolist(),
            policy_mask=self.written[record, :length].int().tolist(),
            logps=self.logps[record, :length].tolist(),
            images=[*prompt.images, *self.images[record]],
            num_prompt_images=len(prompt.images),
            trajectory=self.episodes[record].trajectory(),
            cut=self.cut[record],
        )


def _prompt(encoder: ChatEncoder, group: Sequence[Episode]) -> Tokens:
    """The prompt of a group, once."""
    first = group[0].conversation
    observation = first.observations[0]
    for episode in group[1:]:
        other = episode.conversation.observations[0]
        same = len(other["images"]) == len(observation["images"]) and all(
            map(np.array_equal, other["images"], observation["images"])
        )
        if other["text"] != observation["text"] or not same:
            got = f"{first.task_id} and {episode.conversation.task_id}"
            raise ValueError(f"expected the episodes of a group to begin alike, got {got}")
    tokens = Tokens()
    ids = encoder.prompt(first.instructions, observation["text"], observation["images"])
    tokens.add(ids, 0, observation["images"])
    return tokens


def _unplayable(encoder: ChatEncoder, episode: Episode) -> Sample:
    """The sample of an episode that broke off at its reset: no token carries loss."""
    return Sample(encoder.cue, [encoder.end], [0], [0.0], [], 0, episode.trajectory(), cut=False)
