"""Visual operations of one's own: a function and its schema, offered to policies beside crop_image and select_frames.

The function works on full-resolution pictures, as crops do; what it makes is shown in the budget of a crop and becomes
a picture like any other, from which later crops and calls are cut at the resolution that the function gave it.
"""

import inspect
import json
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from PIL import Image

from pixel_env import prompts
from pixel_env.actions import IMAGE_ARGUMENTS, CustomCall
from pixel_env.decoding import MAX_IMAGE_PIXELS, to_rgb
from pixel_env.json_schema import Schema, check_schema
from pixel_env.media import MAX_ENLARGEMENT, Source, view, view_size
from pixel_env.operations import OperationResult, View
from pixel_env.settings import ViewSettings


class OperationError(RuntimeError):
    """A function of one's own that failed in another way than by ValueError: its fault, and not that of the policy."""


@dataclass(frozen=True)
class Operation:
    """A function that policies may call.

    Attributes:
        schema: How it is described to them, an OpenAI-style function as in `pixel_env.actions.SCHEMAS`; its
            ``parameters`` in the part of JSON Schema of `pixel_env.json_schema`. An integer named ``target_image``, or
            an array of integers named ``target_images``, are numbers of images shown, counted from 1. Calls are nested
            at most `pixel_env.actions.MAX_NESTING` deep.
        function: Called with the arguments by name, and with pictures in place of these numbers: RGB, what the image
            shows at the full resolution of its source. Returns a picture or a list of them, each a PIL image or an
            array (H, W, 3) uint8. Raises ValueError, with a message for the policy, for what cannot be done. For replay
            it has to do the same each time; for processes of their own, to be defined in a module. Bound in the schema
            what could grow without end, such as a factor of enlargement.

    Raises:
        TypeError, ValueError: The schema is not of this kind, or not of this function.

    >>> from PIL import ImageOps
    >>> image = {"type": "integer", "minimum": 1, "description": "The number of the image."}
    >>> parameters = {"type": "object", "properties": {"target_image": image}, "required": ["target_image"]}
    >>> function = {"name": "mirror", "description": "Swap left and right.", "parameters": parameters}
    >>> Operation({"type": "function", "function": function}, lambda target_image: ImageOps.mirror(target_image)).name
    'mirror'
    """

    schema: Schema
    function: Callable[..., Any]

    def __post_init__(self) -> None:
        copied = json.loads(json.dumps(self.schema, allow_nan=False))  # so that it cannot change any more
        object.__setattr__(self, "schema", copied)
        if not isinstance(copied, dict) or set(copied) != {"type", "function"} or copied["type"] != "function":
            raise ValueError(f'expected a schema {{"type": "function", "function": {{...}}}}, got {self.schema!r}')
        function = copied["function"]
        if not isinstance(function, dict) or set(function) != {"name", "description", "parameters"}:
            raise ValueError(f"expected a function with name, description and parameters, got {function!r}")
        if not isinstance(function["name"], str) or not re.fullmatch(r"[a-zA-Z0-9_-]{1,64}", function["name"]):
            raise ValueError(f"expected a name of at most 64 letters, digits, - or _, got {function['name']!r}")
        self._check_parameters(function["parameters"])

    def _check_parameters(self, parameters: Any) -> None:
        check_schema(parameters, f"the parameters of {self.name}")
        if parameters["type"] != "object":
            raise ValueError(f"expected the parameters of {self.name} as an object, got {parameters['type']}")
        properties = parameters.get("properties", {})
        for name, kinds in (("target_image", ["integer"]), ("target_images", ["array", "integer"])):
            inner = properties.get(name)
            got = inner and [inner["type"], *([inner["items"]["type"]] if inner["type"] == "array" else [])]
            if got not in (None, kinds):
                raise ValueError(f"expected {name} of {self.name} as {' of '.join(kinds)}, got {' of '.join(got)}")
        signature = inspect.signature(self.function)
        for given in (properties, parameters.get("required", [])):
            try:
                signature.bind(**dict.fromkeys(given))
            except TypeError as error:
                names = ", ".join(given) or "nothing"
                raise TypeError(
                    f"expected a function that can be called with {names} by name, as the schema allows: {error}"
                ) from None

    @property
    def name(self) -> str:
        """What policies call it."""
        return str(self.schema["function"]["name"])


def perform(
    operation: Operation, call: CustomCall, shown: Sequence[View], source: Source, settings: ViewSettings
) -> OperationResult:
    """Call the function of an operation and show what it makes.

    Args:
        operation: The operation that is called.
        call: Arguments that fit its schema; image numbers are 0-based.
        shown: Every view so far, in the order of their numbers.
        source: Where views come from that no function made.
        settings: Budgets.

    Raises:
        OperationError: The function fails in another way than by ValueError, or returns something else than pictures.
    """
    images = [number for name in IMAGE_ARGUMENTS for number in _listed(call.arguments.get(name, []))]
    most = max(settings.num_frames, settings.max_selected_frames)
    if len(images) > most:  # each is copied
        return OperationResult((), "too_many_images", prompts.too_many_images(len(images), most))
    if unknown := [image for image in images if not 0 <= image < len(shown)]:
        return OperationResult((), "unknown_image", prompts.unknown_image(unknown[0], len(shown)))
    arguments = dict(call.arguments)
    for name in IMAGE_ARGUMENTS:
        if name in arguments:
            pictures = [_full_resolution(shown[image], source) for image in _listed(arguments[name])]
            arguments[name] = pictures if isinstance(arguments[name], list) else pictures[0]
    try:
        made = _checked(operation.function(**arguments), settings.max_selected_frames)
    except ValueError as error:
        return OperationResult((), "refused", prompts.refused(call.name, str(error)))
    except Exception as error:  # of code that is not ours: the episode breaks off, and is not scored
        raise OperationError(f"{call.name}: {type(error).__name__}: {error}") from error
    views = tuple(_whole_view(picture, settings) for picture in made)
    lines = [prompts.made_line(len(shown) + k, shot.size, call.name, images) for k, shot in enumerate(views)]
    return OperationResult(views, None, "\n".join(lines))


def _whole_view(made: Image.Image, settings: ViewSettings) -> View:
    size = view_size(made.width, made.height, settings.crop_pixels, settings.factor, MAX_ENLARGEMENT)
    return View(0, (0.0, 0.0, float(made.width), float(made.height)), size, made)


def _listed(numbers: int | list[int]) -> list[int]:
    return numbers if isinstance(numbers, list) else [numbers]


def _full_resolution(shot: View, source: Source) -> Image.Image:
    """Return a fresh picture of what a view shows, as large as its region is."""
    x1, y1, x2, y2 = shot.region
    size = max(1, round(x2 - x1)), max(1, round(y2 - y1))
    return Image.fromarray(view(shot.whole(source), shot.region, size))


def _checked(made: Any, most: int) -> list[Image.Image]:
    """Return what a function made as RGB pictures; ValueError for what may be due to its arguments."""
    listed = made if isinstance(made, list | tuple) else [made]
    if not 1 <= len(listed) <= most:
        raise ValueError(f"expected 1 to {most} pictures, got {len(listed)}")
    pictures = []
    for one in listed:
        if isinstance(one, np.ndarray) and one.dtype == np.uint8 and one.ndim == 3 and one.shape[2] == 3:
            width, height = one.shape[1], one.shape[0]
        elif isinstance(one, Image.Image):
            width, height = one.size
        else:
            raise TypeError(f"expected PIL images or arrays (H, W, 3) uint8, got {_kind(one)}")
        if not 0 < width * height <= MAX_IMAGE_PIXELS:
            raise ValueError(f"expected a picture of 1 to {MAX_IMAGE_PIXELS} pixels, got {width} x {height}")
        pictures.append(to_rgb(Image.fromarray(one) if isinstance(one, np.ndarray) else one.copy()))
    return pictures


def _kind(value: Any) -> str:
    return f"array {value.shape} {value.dtype}" if isinstance(value, np.ndarray) else type(value).__name__
