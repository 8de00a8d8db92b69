"""Suite ``read`` (after InfographicVQA): find the named panel of a dense page and read the short string in it."""

import math

import numpy as np

from pixel_env.media import Box
from pixel_env.tasks.drawing import Canvas, Mark, text_width
from pixel_env.tasks.task import Cue
from pixel_env.tasks.world import (
    DIGITS,
    LEAST_TEXT,
    LETTERS,
    Draft,
    Pair,
    World,
    contrast,
    pick,
    shuffled,
)

LAYOUTS = ("grid", "cards", "list", "table")
PANELS = {1: (2, 3), 2: (3, 5), 3: (6, 8)}
STRINGS = {
    "micro": {1: (4.0, 2, 2), 2: (4.0, 2, 3), 3: (2.7, 4, 12)},
    "standard": {1: (2.7, 2, 3), 2: (2.7, 3, 5), 3: (2.7, 6, 12)},
}
"""Height in view pixels, least and most characters of a string, by preset and level."""
TITLES = {"micro": (14.0, (2, 3)), "standard": (11.0, (2, 4))}
"""Height of a title in view pixels of the micro preset, and its number of letters."""
TITLE_HEIGHT = 20.0
"""Height of the title strip in view pixels of the micro preset; its letters are read without a closer look."""


def read(rng: np.random.Generator, world: World, level: int) -> Draft:
    """One task of the suite ``read``: three in four ask for a string too small to read in the first view."""
    page = _Page(rng, world, level)
    if rng.random() < 0.75:
        wanted = [page.ask_panel, page.ask_end] + ([page.ask_owner] if level > 2 else [])
        return pick(rng, wanted)()
    return pick(rng, [page.ask_title, page.ask_number, page.ask_colour])()


class _Page:
    """A page under construction: title, panels in one of four layouts, strings that share a prefix as near misses.

    In the standard preset a page holds more panels than there are colours, and all but the strings is drawn larger:
    a panel in a grid or among cards then carries an icon, and colour and icon name it together.
    """

    def __init__(self, rng: np.random.Generator, world: World, level: int) -> None:
        self.rng, self.world, self.level = rng, world, level
        self.size = world.image_size(rng)
        self.text_unit = world.unit(self.size)
        self.dense = world.clutter > 1
        self.unit = self.text_unit * world.clutter
        self.icons = pick(rng, LAYOUTS) in ("list", "table")  # named by an icon beside it, else by its own colour
        self.layout = pick(rng, ("list", "table") if self.icons else ("grid", "cards"))
        number = int(rng.integers(PANELS[level][0], PANELS[level][1] + 1)) * world.clutter
        self.pairs = self._pairs(world, number)
        self.title_height, (low, high) = TITLES[world.preset]
        self.title = "".join(pick(rng, LETTERS) for _ in range(int(rng.integers(low, high + 1))))
        self.texts = self._texts(number)
        self._aligned = self.layout == "table" or (self.layout == "grid" and self.dense)
        self.boxes = self._boxes(number)

    def _pairs(self, world: World, number: int) -> list[Pair]:
        """One attribute pair a panel, the panel asked about first; where colours suffice, no colour twice."""
        target = pick(self.rng, world.target_pairs)
        pairs = [target]
        for pair in shuffled(self.rng, world.pairs):
            free = pair not in pairs if self.dense else all(pair[0] != other[0] for other in pairs)
            if len(pairs) < number and free:
                pairs.append(pair)
        return pairs

    def _texts(self, number: int) -> list[str]:
        _, low, high = STRINGS[self.world.preset][self.level]
        draw = lambda n: "".join(pick(self.rng, LETTERS + DIGITS) for _ in range(n))  # noqa: E731
        texts = [draw(int(self.rng.integers(low, high + 1)))]
        while len(texts) < number:
            text = draw(int(self.rng.integers(low, high + 1)))
            if self.level > 1 and len(texts) == 1:
                text = texts[0][: low - 1] + text[low - 1 :]
            if text not in texts:
                texts.append(text)
        return texts

    def _boxes(self, number: int) -> list[Box]:
        """A box a panel, source pixels, in the places that the layout allows."""
        u, (width, height) = self.unit, self.size
        columns = self._columns(number)
        rows = -(-number // columns)
        top = TITLE_HEIGHT * u
        slot_w, slot_h = width / columns, (height - top) / rows
        slots = [(c * slot_w, top + r * slot_h) for r in range(rows) for c in range(columns)]
        if self.layout == "cards":
            slots = shuffled(self.rng, slots)
        panel_h = min(slot_h - 2, self.rng.uniform(10, 13) * u)
        boxes = []
        for (x, y), text in zip(slots, self.texts, strict=False):
            room = slot_w - (14 * u if self.icons else 2 * u)
            panel_w = min(room, self._panel_width(text, panel_h, room))
            left = x + (13 * u if self.icons else u)
            dx = 0.0 if self._aligned else self.rng.uniform(0, max(0.0, x + slot_w - u - panel_w - left))
            dy = 0.0 if self._aligned and self.dense else self.rng.uniform(0, max(0.0, slot_h - panel_h - 1))
            boxes.append((round(left + dx), round(y + dy), round(left + dx + panel_w), round(y + dy + panel_h)))
        return [boxes[i] for i in self._order(number)]

    def _columns(self, number: int) -> int:
        """Number of columns of slots."""
        if self.dense:  # slots about twice as wide as high
            return max(2, round(math.sqrt(number * self.size[0] / self.size[1] / 2)))
        return 1 if self.layout in ("list", "table") and number <= 5 else 2

    def _panel_width(self, text: str, panel_h: float, room: float) -> float:
        """Wanted width of a panel, source pixels; `room` is what its slot has."""
        written = text_width(text, self._text_height())
        if not self.dense:
            return max(12 * self.unit, written + 4 * self.unit)
        share = 0.8 if self._aligned else self.rng.uniform(0.45, 0.85)
        return max(written + 2 * panel_h, share * room)  # an icon fits left of the string

    def _order(self, number: int) -> list[int]:
        """Which slot each panel takes: the panel asked about stands anywhere."""
        if self.layout == "cards":
            return list(range(number))
        # Boxes were sized for the text of the same index, so the texts move with them.
        order = [int(i) for i in self.rng.permutation(number)]
        self.texts = [self.texts[i] for i in order]
        return order

    def _text_height(self) -> float:
        return max(LEAST_TEXT, STRINGS[self.world.preset][self.level][0] * self.world.scale * self.text_unit)

    def _marks(self) -> list[Mark]:
        u = self.unit
        strip = (0.0, 2 * u, float(self.size[0]), (TITLE_HEIGHT - 2) * u)
        marks = [Mark("text", strip, text=self.title, text_height=self.title_height * u, ink="black")]
        for (colour, shape), text, box in zip(self.pairs, self.texts, self.boxes, strict=True):
            fill = "white" if self.icons else colour
            marks.append(Mark("panel", box, fill, text, self._text_height(), contrast(fill)))
            if self.icons:
                side = min(11 * u, box[3] - box[1])
                marks.append(
                    Mark(shape, (round(box[0] - side - u), box[1], round(box[0] - u), box[1] + round(side)), colour)
                )
            elif self.dense:
                marks.append(_inner_icon(shape, box, contrast(fill)))
        return marks

    def _canvases(self) -> tuple[Canvas, ...]:
        return (Canvas(*self.size, int(self.rng.integers(2**31)), tuple(self._marks())),)

    def _name(self, index: int) -> str:
        colour, shape = self.pairs[index]
        if self.icons:
            return f"next to the {colour} {shape}"
        return f"in the {colour} panel with the {shape}" if self.dense else f"in the {colour} panel"

    def _draft(self, question: str, answer: str, kind: str, needs: bool, box: Box) -> Draft:
        return Draft(question, self._canvases(), (answer,), kind, needs, Cue(box))

    def ask_panel(self) -> Draft:
        """Read the string of a panel named by colour or icon."""
        return self._draft(f"What is written {self._name(0)}?", self.texts[0], "text", True, self.boxes[0])

    def ask_end(self) -> Draft:
        """Read the string of the highest or lowest panel, where one leads clearly; else name it by colour or icon."""
        side = pick(self.rng, ("highest", "lowest"))
        key = (lambda k: self.boxes[k][1]) if side == "highest" else (lambda k: -self.boxes[k][1])
        first, second = sorted(range(len(self.boxes)), key=key)[:2]
        if abs(self.boxes[first][1] - self.boxes[second][1]) < 6 * self.unit:
            return self.ask_panel()
        return self._draft(f"What is written in the {side} panel?", self.texts[first], "text", True, self.boxes[first])

    def ask_owner(self) -> Draft:
        """Name the colour of the panel, or of the icon beside it, that carries a given string."""
        thing = "icon next to" if self.icons else "panel that says"
        return self._draft(
            f"Which colour is the {thing} {self.texts[0]}?", self.pairs[0][0], "text", True, self.boxes[0]
        )

    def ask_title(self) -> Draft:
        """Read the large title."""
        box = (0.0, 0.0, float(self.size[0]), TITLE_HEIGHT * self.unit)
        return self._draft("What is the title of the page?", self.title, "text", False, box)

    def ask_number(self) -> Draft:
        """Count the panels."""
        box = (0.0, 0.0, float(self.size[0]), float(self.size[1]))
        return self._draft("How many panels are on the page?", str(len(self.boxes)), "number", False, box)

    def ask_colour(self) -> Draft:
        """Name the colour of the highest panel or icon."""
        first, second = sorted(range(len(self.boxes)), key=lambda k: self.boxes[k][1])[:2]
        if abs(self.boxes[first][1] - self.boxes[second][1]) < 6 * self.unit:
            return self.ask_title()
        thing = "icon" if self.icons else "panel"
        return self._draft(
            f"Which colour is the highest {thing}?", self.pairs[first][0], "text", False, self.boxes[first]
        )


def _inner_icon(shape: str, panel: Box, ink: str) -> Mark:
    """An icon at the left end of a panel, source pixels."""
    x1, y1, _, y2 = panel
    gap = round(0.15 * (y2 - y1))
    return Mark(shape, (x1 + gap, y1 + gap, x1 + y2 - y1 - gap, y2 - gap), ink, ink=ink)
