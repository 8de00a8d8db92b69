"""What `benchmarks/micro_base.py` writes, and that it tells right from wrong."""

import json
import sys
from pathlib import Path
from typing import Any

import pytest

from agents.micro_lessons import take, whole
from benchmarks import micro_base
from pixel_env.tasks.drawing import Canvas, Mark


def test_the_file_has_every_skill_with_its_interval(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    asked: list[int] = []

    def silent(model: Any, processor: Any, prompts: Any, **_: Any) -> list[str]:
        asked.append(len(prompts))
        return [""] * len(prompts)

    monkeypatch.setattr(micro_base, "generate", silent)
    rows = [{"stage": "fit", "explained": 0.6}] + [{"stage": "speak", "step": k, "read": k / 9} for k in (1, 2)]
    (tmp_path / "log.json").write_text(json.dumps(rows))
    arguments = ["--n", "5", "--log", str(tmp_path / "log.json"), "--out", str(tmp_path / "base.json")]
    monkeypatch.setattr(sys, "argv", ["benchmarks/micro_base.py", *arguments])
    micro_base.main()
    written = json.loads((tmp_path / "base.json").read_text())
    assert len(written["results"]) == 15 and asked == [5] * 14
    assert {tuple(share[:2]) for share in written["results"].values()} == {(0.0, 0.0)}
    assert all(0.3 < share[2] < 0.6 for share in written["results"].values())  # Wilson: 0 of 5 is at most 43%
    assert written["curves"] == {"speak": {"read": [[1, 1 / 9], [2, 2 / 9]]}}
    assert (tmp_path / "base.png").read_bytes().startswith(b"\x89PNG")
    assert written["n"] == 5 and "operations called when offered" in capsys.readouterr().out


def test_right_answers_are_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    lessons: list[Any] = []
    closeups = micro_base.closeups

    def remembered(*arguments: Any) -> list[Any]:
        lessons[:] = closeups(*arguments)
        return list(lessons)

    def knowing(model: Any, processor: Any, prompts: Any, **_: Any) -> list[str]:
        if lessons and len(lessons) == len(prompts):
            answers = [one.turns[0].answer for one in lessons]
            lessons.clear()
            return [answers[0], *["?"] * (len(answers) - 1)]
        return [""] * len(prompts)

    class Model:
        def eval(self) -> None: ...

    monkeypatch.setattr(micro_base, "closeups", remembered)
    monkeypatch.setattr(micro_base, "generate", knowing)
    shares, texts = micro_base.probe(Model(), micro_base.micro.load_processor("agents/micro_base"), n=4)
    assert [share for name, share in shares.items() if "close-ups" in name] == [0.25] * 8
    assert shares["box holds the thing, 1 to 4 candidates"] == 0 and texts == [""] * 4


@pytest.mark.parametrize(
    ("text", "held"),
    [
        ('the red star {"bbox_2d": [40, 40, 50, 50]}', True),  # scaled: 26.3 to 63.7 both ways
        ("[54, 54, 64, 64]", False),  # 40.3 to 77.7: the left side is cut
        ("[30, 30, 80, 80]", True),  # larger than a ninth, so made smaller: 36.3 to 73.7
        ("[0, 0, 100, 100]", True),  # 31.3 to 68.7
        ("[0, 44, 112, 54]", True),  # a ninth may be as flat as what is pointed at
        ("[50, 40, 40, 50]", False),
        ("[40, 40]", False),
        ("", False),
    ],
)
def test_a_box_is_scaled_to_a_ninth_of_the_view(text: str, held: bool) -> None:
    canvas = Canvas(112, 112, 0, (Mark("star", (40, 44, 52, 54), "red"),))
    shot = take(canvas, whole(canvas))
    assert micro_base.holds(text, shot, shot.things[0]) is held
