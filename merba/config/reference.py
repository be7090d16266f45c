"""The page docs/configuration.md, made from the schema."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import yaml

from merba.config import schema


def reference() -> str:
    """The text of docs/configuration.md, made from the schema: every key, its values, default and meaning."""
    lines = [
        "# Configuration",
        "",
        "Every key that a file given by `--configfile` may have. Made from `merba/config/schemas/config.schema.yaml` by",
        "`python -m merba.config.reference > docs/configuration.md`.",
        "",
        "| key | values | default | meaning |",
        "| --- | --- | --- | --- |",
    ]
    for path, node in _keys("", schema("config")):
        default = yaml.safe_dump(node["default"], default_flow_style=True).split("\n")[0] if "default" in node else ""
        lines.append(f"| `{path}` | {_values(node)} | {f'`{default}`' if default else ''} | {node['description']} |")
    return "\n".join(lines) + "\n"


def _keys(prefix: str, node: Mapping[str, Any]) -> Iterator[tuple[str, Mapping[str, Any]]]:
    children = dict(node.get("properties", {}))
    if isinstance(extra := node.get("additionalProperties"), Mapping):
        children["NAME"] = {"description": "", **extra}
    for key, child in children.items():
        if child.get("description"):
            yield f"{prefix}{key}", child
        yield from _keys(f"{prefix}{key}.", child)


def _values(node: Mapping[str, Any]) -> str:
    if "enum" in node:
        return ", ".join(f"`{value}`" for value in node["enum"])
    kind = node.get("type", "")
    words = [kind] if isinstance(kind, str) else list(kind)
    bounds = {"minimum": "≥", "exclusiveMinimum": ">", "maximum": "≤", "exclusiveMaximum": "<"}
    return " or ".join(words) + "".join(f" {sign} {node[key]}" for key, sign in bounds.items() if key in node)


if __name__ == "__main__":
    print(reference(), end="")
