"""The benchmarks' results as tables: bench/results/README.md, made from the JSON files in the same folder.

python bench/tables.py      (every benchmark does this after writing its file)
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

RESULTS = Path(__file__).parent / "results"
INTRODUCTION = """# Measured

`python bench/tables.py` makes this page from the JSON files in this folder. The benchmark of the same name writes each file.
Without `gpu.json`, no GPU has been measured. In columns, `_s` means seconds, `_ms` milliseconds, `_mb` MB, `a_clip` per clip.
"""


def rows(figures: dict, label: str = "") -> Iterator[tuple[str, dict]]:
    """A label and a cell for each column, for every level of the figures that has values itself."""
    levels = {}
    for name, value in figures.items():
        if isinstance(value, list) and value and isinstance(value[0], dict):
            levels |= {f"{name} {i}": one for i, one in enumerate(value, start=1)}
        elif isinstance(value, dict):
            levels[name] = value
    values = {name: value for name, value in figures.items() if not isinstance(value, dict) and f"{name} 1" not in levels}
    if values:
        yield label, values
    for name, level in levels.items():
        yield from rows(level, f"{label}, {name}".removeprefix(", "))


def cell(value: object) -> str:
    """A value in a table: numbers to four digits, a list of them in one cell."""
    if isinstance(value, list):
        return " / ".join(map(cell, value))
    if isinstance(value, float):
        return f"{value:.0f}" if abs(value) >= 1000 else f"{value:.4g}"
    return "–" if value is None else str(value)


def section(file: Path) -> str:
    """A benchmark's machine, settings and goals, and one table for all rows with the same columns."""
    figures = json.loads(file.read_text())
    about, goals = figures.pop("machine"), figures.pop("goals")
    settings = {name: value for name, value in figures.items() if not isinstance(value, dict | list)}
    machine = [about["gpu"] or about["processor"], f"{about['cores']} cores", f"Python {about['python']}"]
    machine += [f"{name} {version}" for name, version in about["versions"].items() if version]
    lines = [f"## bench/{file.stem}.py", ", ".join(machine)]
    for title, listed in (("Settings", settings), ("Goals", goals)):
        if listed:
            lines.append(f"{title}: " + ", ".join(f"{name} {cell(value)}" for name, value in listed.items()))

    tables: dict[tuple[str, ...], list[list[str]]] = {}
    for label, values in rows({name: value for name, value in figures.items() if name not in settings}):
        tables.setdefault(tuple(values), []).append([label, *map(cell, values.values())])
    for columns, body in tables.items():
        table = [["", *columns], ["---", *["---:"] * len(columns)], *body]
        lines.append("\n".join(f"| {' | '.join(line)} |" for line in table))
    return "\n\n".join(lines)


def readme(folder: Path = RESULTS) -> str:
    """All sections."""
    return "\n".join([INTRODUCTION, *(section(file) + "\n" for file in sorted(folder.glob("*.json")))])


def write_readme(folder: Path = RESULTS) -> None:
    """Write the tables next to the JSON files."""
    (folder / "README.md").write_text(readme(folder))


if __name__ == "__main__":
    write_readme()
