r"""Answers on which public scorers disagree: our verdict, the released scorer's, others', and the reason for ours.

    python benchmarks/verdicts.py    # writes benchmarks/results/verdicts.md; needs pip install "pixel-env[math]"

The first two verdicts are computed here. The others were given by the functions named, run once: lmms-eval
(`tasks/vstar_bench/utils.py`, `api/metrics.py`), VLMEvalKit (`utils/matching_util.py`, `dataset/utils/tallyqa.py`,
`dataset/utils/vqa_eval.py`, as of 18fc37a), the package anls 0.0.2 and math-verify 0.9.0, accepted answer first.
"""

from dataclasses import dataclass

from benchmarks.provenance import RESULTS
from pixel_env.grading import Grade, grade
from pixel_env.journal import replace_text
from pixel_env.released_grading import grade_released
from pixel_env.tasks import ProceduralTasks, Task

OUT = RESULTS / "verdicts.md"
HEAD = """# Verdicts

Answers on which public scorers disagree. "ours" is `pixel_env.grading`, "released" the scorer of Pixel Reasoner
(`scorer="pixelreasoner_compat"`). Of a choice, the options are (A) red car, (B) blue car, (C) a green car, (D) none.
An unreadable answer is wrong, and counted. Written by `python benchmarks/verdicts.py`, which says where the others'
verdicts come from.

| kind | accepted | answer | ours | released | others | why ours |
|---|---|---|---|---|---|---|
"""
COLOURS = ("red car", "blue car", "a green car", "none")


@dataclass(frozen=True)
class Row:
    """An answer that scorers disagree on.

    Attributes:
        kind: the answer kind of the task.
        accepted: the accepted answer.
        answer: what stood in the box.
        elsewhere: what others say.
        reason: why ours says what it says.
    """

    kind: str
    accepted: str
    answer: str
    elsewhere: str
    reason: str


ROWS = (
    Row("choice", "blue car", "B. red car", "lmms-eval, VLMEvalKit: B",
        "letter and text disagree: a choice would be a guess"),
    Row("choice", "blue car", "A blue car", "lmms-eval, VLMEvalKit: A",
        "an article, not an option; and no option's text"),
    Row("choice", "blue car", "the blue car", "VLMEvalKit: B; lmms-eval: none", "more than an option's text: a rule of "
        "containment would also pass \"not the blue car\""),
    Row("choice", "blue car", "B or C", "lmms-eval: B; VLMEvalKit: asks a judge", "undecided"),
    Row("choice", "blue car", "blue", "lmms-eval: B, its first letter", "a part of an option's text is a guess"),
    Row("choice", "blue car", "Be quick", "lmms-eval: B, its first letter", "no option is named"),
    Row("choice", "none", "I don't know", "lmms-eval: D, the only letter from A to D",
        "it says that there is no answer"),
    Row("choice", "none", "Definitely blue", "lmms-eval: D, its first letter", "it names, if any, another option"),
    Row("choice", "blue car", "B: blue car", "lmms-eval, VLMEvalKit: B", "letter and text agree"),
    Row("choice", "blue car", "blue car", "lmms-eval, VLMEvalKit: B", "exactly the text of one option"),
    Row("number", "7", "seven", "VLMEvalKit: 7", "a number word is a number"),
    Row("number", "7", "7 dogs", "VLMEvalKit: 7", "words around one number do not change it"),
    Row("number", "7", "7 or 8", "VLMEvalKit: 7, the first", "undecided"),
    Row("number", "3", "3 of 7", "VLMEvalKit: 3, the first", "two numbers: which one is meant is a guess"),
    Row("number", "7", "-7", "VLMEvalKit: 7", "the sign counts"),
    Row("number", "20", "twenty-one", "VLMEvalKit: 20", "it says 21"),
    Row("number", "21", "21", "VLMEvalKit: none, it reads 0 to 20", "counts have no limit"),
    Row("number", "1", "1,200", "VLMEvalKit: 1", "it says 1200"),
    Row("number", "7", "3+4", "math-verify: equal", "nothing is computed"),
    Row("value", "-4", "2009-2013", "math-verify: equal", "a range is no difference"),
    Row("value", "3", "1 2", "math-verify: equal", "two numbers are no sum"),
    Row("value", "0.5", "1/2", "math-verify: equal", "equal values"),
    Row("text", "new york", "york new", "math-verify: equal", "texts are compared as texts: an anagram is another one"),
    Row("text", "facebook", "facebook.", "anls, lmms-eval, VLMEvalKit: 0.89", "right, as it says the "
        "same; its score is ANLS as it is"),
    Row("text", "facebook", "facebok", "anls, lmms-eval, VLMEvalKit: 0.88", "ANLS: one letter of eight is missing"),
    Row("text", "ab", "ac", "anls: 0; lmms-eval, VLMEvalKit: 0.5", "the official threshold is strict: at half the "
        "distance the score is 0"),
    Row("text", "abd", "abc        ", "anls, VLMEvalKit: 0.67; lmms-eval: 0.91", "lengths are those of the texts "
        "compared, without the spaces"),
    Row("spans", "red, blue", "blue, red", "math-verify: equal, as sets of products", "the same pieces"),
    Row("spans", "red, blue", "red, blue, green", "anls: 0.56", "a superset is not the answer"),
)  # fmt: skip


def task_of(row: Row) -> Task:
    """Return a task that accepts what the row says; its picture does not matter."""
    media = ProceduralTasks(("search",), preset="micro")[0].media
    choices = COLOURS if row.kind == "choice" else ()
    return Task("verdict", "verdicts", "?", media, (row.accepted,), row.kind, choices)


def strict_verdict(row: Row) -> str:
    """Return the verdict of the strict rule."""
    return described(grade(task_of(row), row.answer))


def released_verdict(row: Row) -> str:
    """Return the verdict of the released scorer on the answer in a box."""
    return described(grade_released(task_of(row), [f"\\boxed{{{row.answer}}}"]))


def described(verdict: Grade) -> str:
    """Return a verdict in a word, with its score where that says more."""
    if verdict.parse_failure:
        return "unreadable"
    word = "right" if verdict.correct else "wrong"
    return word if verdict.score in (0, 1) else f"{word}, {verdict.score:.2f}"


def line(row: Row) -> str:
    """Return one row of the table."""
    answers = [f"`{text}`" for text in (row.accepted, row.answer)]
    return (
        f"| {' | '.join([row.kind, *answers, strict_verdict(row), released_verdict(row), row.elsewhere, row.reason])} |"
    )


def main() -> None:
    """Write the table."""
    replace_text(OUT, HEAD + "".join(line(row) + "\n" for row in ROWS))


if __name__ == "__main__":
    main()
