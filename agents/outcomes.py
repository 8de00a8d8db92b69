"""What became of a seed: the demonstrations made of it, or why there are none, and what asking about it took."""

import dataclasses
import hashlib
import json
from dataclasses import dataclass
from typing import Any

from agents.replies import Usage
from pixel_env.trajectory import Trajectory

REASONS = {
    "damaged": "the media cannot be read",
    "unsuited": "no answer or no evidence is known, or no such boxes or frames exist",
    "duplicate": "the same picture with the same question came before",
    "not_rich": "the teacher finds too little in the image to ask about",
    "bad_region": "the proposed region is no small box of the image",
    "mentions_crop": "the question speaks of the crop",
    "bad_question": "the question has no right option, or two that read alike",
    "no_need_to_look": "it is answered as well without the crop or the frames",
    "leak": "the answer is given away before it is looked for",
    "acts": "a remark would be read as a call or an answer",
    "numbered": "a remark calls an image by a number that it does not have in every trajectory",
    "wrong_answer": "the answer is wrong",
    "looked": "the sampled answer is not a textual one: it took an operation or several turns",
    "malformed_reply": "the teacher's reply is not of the form asked for, twice",
    "replay": "played again, it differs",
    "no_reply": "the teacher or the policy did not reply; the same command asks again",
}
"""Why a seed or a demonstration was dropped."""


class DroppedError(Exception):
    """Something is not used; `reason` is a key of `REASONS`."""

    def __init__(self, reason: str, detail: str = "") -> None:
        super().__init__(f"{REASONS[reason]}: {detail}" if detail else REASONS[reason])
        self.reason, self.detail = reason, detail


@dataclass(frozen=True)
class Outcome:
    """A demonstration, or why there is none.

    Attributes:
        kind: Which was to be made, a key of `agents.demonstrations.LOOKS`; "" where the whole seed was dropped.
        trajectory: The demonstration, None if it was dropped.
        reason: Why it was dropped, a key of `REASONS`; "" if it was not.
        detail: More about that.
    """

    kind: str = ""
    trajectory: Trajectory | None = None
    reason: str = ""
    detail: str = ""


@dataclass(frozen=True)
class Record:
    """What became of a seed.

    Attributes:
        stage: "question", "taught" or "textual": what it was the seed of.
        source: Its task set, as on the command line.
        index: Of its task there.
        task_id: The task.
        fingerprint: Of picture and question, by which duplicates are found; "" where they could not be read.
        usage: Tokens of all replies about it.
        outcomes: One a demonstration that was to be made, or one for all.
        question: Of a plain image: the line of the task that was made of it.
    """

    stage: str
    source: str
    index: int
    task_id: str
    fingerprint: str
    usage: Usage
    outcomes: tuple[Outcome, ...]
    question: dict[str, Any] | None = None

    @property
    def key(self) -> tuple[str, str, int]:
        """What tells seeds apart."""
        return self.stage, self.source, self.index

    @property
    def trajectories(self) -> list[Trajectory]:
        """The demonstrations made of it."""
        return [outcome.trajectory for outcome in self.outcomes if outcome.trajectory is not None]

    @property
    def reasons(self) -> set[str]:
        """Why something of it was dropped."""
        return {outcome.reason for outcome in self.outcomes if outcome.reason}

    def to_json(self) -> str:
        """Return one line of JSON."""
        fields = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
        outcomes = [dataclasses.asdict(outcome) for outcome in self.outcomes]
        return json.dumps(fields | {"usage": dataclasses.asdict(self.usage), "outcomes": outcomes})

    @classmethod
    def from_json(cls, line: str) -> "Record":
        """Read what `to_json` wrote; raises ValueError for anything else."""
        try:
            fields = json.loads(line)
            outcomes = tuple(Outcome(**outcome | _trajectory(outcome["trajectory"])) for outcome in fields["outcomes"])
            return cls(**fields | {"usage": Usage(**fields["usage"]), "outcomes": outcomes})
        except (KeyError, TypeError, AttributeError) as error:
            raise ValueError(f"expected a record of a seed, got {line[:60]!r}: {error}") from error


def fingerprint(begun: Trajectory) -> str:
    """Return what tells pictures with their questions apart, given an episode about them."""
    seen = json.dumps([begun.first_digests, begun.first_observation])
    return hashlib.sha256(seen.encode()).hexdigest()[:16]


def _trajectory(fields: dict[str, Any] | None) -> dict[str, Trajectory | None]:
    return {"trajectory": None if fields is None else Trajectory.from_json(json.dumps(fields))}
