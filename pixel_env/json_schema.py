"""The part of JSON Schema that functions of one's own are described in: checked, held against a call, drawn from.

Types object, array, string, number, integer and boolean, with ``description`` and the keywords of `KEYWORDS`. Whatever
else a schema holds is refused when it is made: a rule that is not enforced would be a false promise. Not a library,
because its sentences would be read by policies and change with its version.
"""

import json
import math
from collections.abc import Mapping
from typing import Any

import numpy as np

Schema = Mapping[str, Any]

KEYWORDS: dict[str, tuple[str, ...]] = {
    "object": ("properties", "required"),
    "array": ("items", "minItems", "maxItems"),
    "string": ("enum",),
    "number": ("enum", "minimum", "maximum"),
    "integer": ("enum", "minimum", "maximum"),
    "boolean": (),
}
"""Type: the keywords it may have."""

LARGEST = 2**53
"""No number may be larger: beyond it integers are not exact everywhere, and functions overflow."""

MOST_DRAWN, DRAWN_RANGE = 3, 10
"""Items of a drawn array beyond its fewest, at most; range of a drawn number without a maximum."""


class Mismatch(ValueError):
    """A value that does not fit a schema: what was expected, as a phrase, and the part of it that came."""


_NAMES = {
    "object": "an object",
    "array": "a list",
    "string": "a string",
    "number": "a number",
    "integer": "an integer",
    "boolean": "true or false",
}


def check_schema(schema: Any, what: str) -> None:
    """Raise ValueError or TypeError unless every rule in a schema is one that `fitted` enforces.

    >>> check_schema({"type": "string", "pattern": "a+"}, "label")
    Traceback (most recent call last):
    ValueError: expected label, a string, with no keyword but description, enum, got pattern; check that in the function
    """
    if not isinstance(schema, Mapping):
        raise TypeError(f"expected the schema of {what} as a dict, got {schema!r}")
    kind = schema.get("type")
    if not isinstance(kind, str) or kind not in KEYWORDS:
        raise ValueError(f"expected the type of {what} to be one of {', '.join(KEYWORDS)}, got {kind!r}")
    known = ("description", *KEYWORDS[kind])
    if unknown := [name for name in schema if name not in ("type", *known)]:
        raise ValueError(
            f"expected {what}, {_NAMES[kind]}, with no keyword but {', '.join(known)}, got {', '.join(unknown)}; "
            "check that in the function"
        )
    if kind == "object":
        properties, required = schema.get("properties", {}), schema.get("required", [])
        if not isinstance(properties, Mapping):
            raise TypeError(f"expected the properties of {what} as a dict, got {properties!r}")
        for name, inner in properties.items():
            check_schema(inner, name)
        if not isinstance(required, list) or not all(name in properties for name in required):
            raise ValueError(f"expected what {what} requires among {', '.join(properties)}, got {required!r}")
    if kind == "array":
        check_schema(schema.get("items"), f"each of {what}")
    _check_limits(schema, what, kind)


def _check_limits(schema: Schema, what: str, kind: str) -> None:
    unit = "number" if kind == "number" else "integer"
    for low, high in (("minimum", "maximum"), ("minItems", "maxItems")):
        limits = [schema[name] for name in (low, high) if name in schema]
        if not all(_is_of(limit, unit) for limit in limits) or limits != sorted(limits):
            raise ValueError(f"expected {low} and {high} of {what}, each {_NAMES[unit]}, in this order, got {limits}")
    if "enum" in schema:
        allowed = schema["enum"]
        fits = isinstance(allowed, list) and all(_is_of(value, kind) and _within(value, schema) for value in allowed)
        if not allowed or not fits:
            raise ValueError(f"expected the enum of {what} as a list, each {_NAMES[kind]} that fits, got {allowed!r}")


def fitted(value: Any, schema: Schema, what: str) -> Any:
    """Return a value that fits, its integers as `int`: 2.0 is one in JSON Schema.

    Args:
        value: what `json.loads` gave.
        schema: what `check_schema` accepts.
        what: the name of the value.

    Raises:
        Mismatch: it does not fit.

    >>> schema = {"type": "object", "properties": {"degrees": {"type": "integer", "maximum": 359}}}
    >>> fitted({"degrees": 90.0}, schema, "the arguments")
    {'degrees': 90}
    >>> fitted({"degrees": 400}, schema, "the arguments")
    Traceback (most recent call last):
    pixel_env.json_schema.Mismatch: ('degrees as an integer of at most 359', 400)
    """
    kind = schema["type"]
    if not _is_of(value, kind) or not _within(value, schema):
        raise Mismatch(f"{what} as {_described(schema)}", value)
    match kind:
        case "object":
            return _fitted_object(value, schema, what)
        case "array":
            return [fitted(item, schema["items"], f"each of {what}") for item in value]
        case "integer":
            return int(value)
    return value


def _fitted_object(value: dict[str, Any], schema: Schema, what: str) -> dict[str, Any]:
    properties = schema.get("properties", {})
    if any(name not in value for name in schema.get("required", [])):
        raise Mismatch(f"{what} with {' and '.join(schema['required'])}", value)
    if extra := [name for name in value if name not in properties]:
        raise Mismatch(f"{what} with {' and '.join(properties) or 'nothing'} only", extra)
    return {name: fitted(item, properties[name], name) for name, item in value.items()}


def _within(value: Any, schema: Schema) -> bool:
    if "enum" in schema and value not in schema["enum"]:
        return False
    if schema["type"] == "array":
        return bool(schema.get("minItems", 0) <= len(value) <= schema.get("maxItems", math.inf))
    if schema["type"] in ("number", "integer"):
        return bool(schema.get("minimum", -math.inf) <= value <= schema.get("maximum", math.inf))
    return True


def _is_of(value: Any, kind: str) -> bool:
    match kind:
        case "object":
            return isinstance(value, dict)
        case "array":
            return isinstance(value, list)
        case "string":
            return isinstance(value, str)
        case "boolean":
            return isinstance(value, bool)
    if not isinstance(value, int | float) or isinstance(value, bool) or not abs(value) <= LARGEST:  # NaN compares false
        return False
    return kind == "number" or isinstance(value, int) or value.is_integer()  # 2.0 is an integer in JSON Schema


def _described(schema: Schema) -> str:
    if "enum" in schema:
        return f"one of {', '.join(json.dumps(value) for value in schema['enum'])}"
    name = _NAMES[schema["type"]]
    if schema["type"] == "array":
        low, high, between, unit = schema.get("minItems"), schema.get("maxItems"), "of", " items"
    else:
        low, high, between, unit = schema.get("minimum"), schema.get("maximum"), "from", ""
    if low is None and high is None:
        return name
    if low is None or high is None:
        return f"{name} of at {'most' if low is None else 'least'} {high if low is None else low}{unit}"
    return f"{name} {between} {low} to {high}{unit}"


def draw(schema: Schema, rng: np.random.Generator) -> Any:
    """Draw a value that fits; what is not required is there half of the time."""
    if "enum" in schema:
        return schema["enum"][int(rng.integers(len(schema["enum"])))]
    match schema["type"]:
        case "object":
            required = schema.get("required", [])
            properties = schema.get("properties", {}).items()
            return {name: draw(inner, rng) for name, inner in properties if name in required or rng.random() < 0.5}
        case "array":
            fewest = schema.get("minItems", 0)
            most = min(schema.get("maxItems", math.inf), fewest + MOST_DRAWN)
            return [draw(schema["items"], rng) for _ in range(int(rng.integers(fewest, most + 1)))]
        case "string":
            return str(rng.choice(["", "red", "图"]))
        case "boolean":
            return bool(rng.integers(2))
    low = schema.get("minimum", min(0, schema.get("maximum", 0)))
    high = schema.get("maximum", min(low + DRAWN_RANGE, LARGEST))
    return int(rng.integers(low, high + 1)) if schema["type"] == "integer" else float(rng.uniform(low, high))
