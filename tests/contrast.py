"""How well the texts of a page can be read: their contrast, as WCAG 2.2 defines it."""

import re

from benchmarks.headless import Browser

DRAWN = """[...document.querySelectorAll("body *")].flatMap(node => {
  const own = [...node.childNodes].filter(one => one.nodeType === 3).map(one => one.data);
  const text = own.join("").trim() || node.value;
  if (!text || !node.checkVisibility() || node.closest("svg, script, option, :disabled")) return [];
  let behind = node;
  const clear = one => getComputedStyle(one).backgroundColor === "rgba(0, 0, 0, 0)";
  while (clear(behind) && behind.parentElement) behind = behind.parentElement;
  return [[text, getComputedStyle(node).color, getComputedStyle(behind).backgroundColor]];
})"""
"""Each text that is shown, its colour and that of the nearest element around it that has one."""


def faint(browser: Browser) -> dict[str, float]:
    """Texts that are drawn with a contrast below 4.5 to what is behind them, WCAG 2.2's least for text, and theirs.

    Text of controls that cannot be used, and what is drawn over pictures, is left out.
    """
    found = {}
    for text, ink, behind in browser.run(DRAWN):
        dark, light = sorted(map(luminance, (ink, behind)))
        if (contrast := (light + 0.05) / (dark + 0.05)) < 4.5:
            found[text] = contrast
    return found


def luminance(colour: str) -> float:
    """Relative luminance in [0, 1] of a colour as ``"rgb(R, G, B)"``, by WCAG 2.2."""
    match = re.fullmatch(r"rgb\((\d+), (\d+), (\d+)\)", colour)
    assert match, f"expected an opaque colour, got {colour}"
    shares = [int(part) / 255 for part in match.groups()]
    linear = [share / 12.92 if share <= 0.04045 else ((share + 0.055) / 1.055) ** 2.4 for share in shares]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]
