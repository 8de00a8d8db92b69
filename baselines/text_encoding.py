r"""Questions as arrays of fixed size: words are numbers, in their order.

Every word that the generated suites use has a number of its own. Others, of task sets on disk, share `SPARE` numbers by
hash, so that two of them are seldom the same. Capitals and punctuation are lost.
"""

import re
from zlib import crc32

import numpy as np
from numpy.typing import NDArray

from pixel_env.prompts import IMAGE_MARKER
from pixel_env.tasks.drawing import COLOUR_NAMES, SHAPES

VOCABULARY = (
    *"0123456789abcdefghijklmnopqrstuvwxyz",
    *COLOUR_NAMES,
    *SHAPES,
    *"""above and appear appears are below black bottommost carry colour digit do does dots first frame frames from
    highest how icon in is left leftmost letter lowest many more next no object objects of on or page panel panels
    right rightmost same says seen than that the there title to together topmost tray trays visible what where which
    white written yes""".split(),
)
SPARE = 128
NUMBERS = 1 + len(VOCABULARY) + SPARE
"""How many numbers there are, with 0, which stands where no word is."""

_NUMBER_OF = {word: number for number, word in enumerate(VOCABULARY, start=1)}
_OPTION = re.compile(r"\([A-Z]\) (.*)")


def encode(text: str, length: int) -> NDArray[np.int64]:
    """Return the numbers (length,) of the first words of a text, then zeros.

    >>> encode("A b? A", 4).tolist()
    [11, 12, 11, 0]
    """
    numbers = np.zeros(length, np.int64)
    for place, word in enumerate(re.findall(r"\w+", text.lower())[:length]):
        numbers[place] = _NUMBER_OF.get(word) or 1 + len(VOCABULARY) + crc32(word.encode()) % SPARE
    return numbers


def read_question(text: str) -> tuple[str, tuple[str, ...]]:
    r"""Return question and options from the text of a first observation, where every policy reads them.

    >>> read_question("Image 1 (28x28): <image>\nWhich one?\n(A) red\n(B) blue\nLook at the visual input ...")
    ('Which one?', ('red', 'blue'))
    """
    lines = text.rpartition(IMAGE_MARKER)[2].strip("\n").split("\n")[:-1]  # what to do stands below, in one line
    options = [match[1] if (match := _OPTION.match(line)) else None for line in lines]
    asked = len(options)  # options are the last lines
    while asked and options[asked - 1] is not None:
        asked -= 1
    return "\n".join(lines[:asked]), tuple(option for option in options[asked:] if option is not None)
