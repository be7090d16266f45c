"""The schemas, and the messages for values that don't fit them. Stages need this, but not the code that reads configurations."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Self

from merba.errors import did_you_mean, unknown

if TYPE_CHECKING:
    from jsonschema import ValidationError

SCHEMAS = Path(__file__).parent / "schemas"


@cache
def schema(name: str) -> dict[str, Any]:
    """The JSON Schema `merba/config/schemas/{name}.schema.yaml`."""
    import yaml  # training doesn't need it

    return yaml.safe_load((SCHEMAS / f"{name}.schema.yaml").read_text())


def defaults(section: str) -> dict[str, Any]:
    """The defaults of a section of the configuration, such as `training`."""
    return {key: about["default"] for key, about in schema("config")["properties"][section]["properties"].items()}


class Section:
    """Settings of a section of the configuration: a dataclass of its keys, with the schema's defaults."""

    section: ClassVar[str]

    def __init_subclass__(cls, *, name: str) -> None:
        cls.section = name

    @classmethod
    def of(cls, given: Mapping[str, Any] | None = None) -> Self:
        """The settings `given`, with defaults for the others."""
        return cls(**defaults(cls.section) | dict(given or {}))


def faults(node: Mapping[str, Any], value: Any) -> Iterator[ValidationError]:
    """Where `value` doesn't fit the schema `node`.

    Stricter than JSON Schema: numbers must be finite, and 2.0 is not an integer, because Python's `range` refuses it.
    """
    from jsonschema import Draft202012Validator
    from jsonschema.validators import extend

    types = {
        "integer": lambda _, number: type(number) is int,  # not bool
        "number": lambda _, number: type(number) is int or (type(number) is float and math.isfinite(number)),
    }
    checker = Draft202012Validator.TYPE_CHECKER.redefine_many(types)
    return extend(Draft202012Validator, type_checker=checker)(node).iter_errors(value)


def explain(error: ValidationError) -> str:
    """One line for a user: the key's path, what is wrong there, and what would be right."""
    where = ".".join(map(str, error.path)) or "top level"
    node = error.schema if isinstance(error.schema, dict) else {}  # a schema can also be true or false, though none here is
    if error.validator == "additionalProperties":
        known = node.get("properties", {})
        strange = sorted(set(error.instance) - set(known), key=str)
        hints = [f"{key!r}{did_you_mean(key, known)}" for key in strange]
        return f"{where}: unknown key {', '.join(hints)}"
    if error.validator == "required":
        missing = [key for key in error.validator_value if key not in error.instance]
        return f"{where}: missing key {', '.join(map(repr, missing))}"
    if error.validator == "type":
        types = [error.validator_value] if isinstance(error.validator_value, str) else error.validator_value
        hint = _number_as_text(error.instance) if {"number", "integer"} & set(types) else ""
        return f"{where}: {error.instance!r} is not of type {' or '.join(types)}{hint}"
    if error.validator == "pattern":
        return f"{where}: {error.instance!r} has other characters than lower-case letters, digits and underscores"
    if error.validator in ("oneOf", "anyOf"):
        return f"{where}: {error.instance!r} doesn't fit: {node.get('description', error.message)}"
    if error.validator == "enum":
        return f"{where}: {unknown(error.instance, error.validator_value)}"
    return f"{where}: {error.message}"


def _number_as_text(value: Any) -> str:
    """A hint if text is a number: YAML 1.1 reads 1e-3 as text, because it has no decimal point."""
    try:
        return f"; write it as {float(value)!r}" if isinstance(value, str) else ""
    except ValueError:
        return ""
