"""The tables of bench/results."""

import json
import sys
from pathlib import Path

import pytest

BENCH = Path(__file__).parents[2] / "bench"


@pytest.fixture
def tables(monkeypatch):
    monkeypatch.syspath_prepend(BENCH)
    import tables

    yield tables
    sys.modules.pop("tables")


def test_the_tables_show_what_the_files_hold(tables):
    written = (BENCH / "results" / "README.md").read_text()
    assert written == tables.readme(), "run python bench/tables.py"


def test_a_table_for_all_rows_of_the_same_columns(tables, tmp_path):
    machine = {"processor": "P", "gpu": "G", "cores": 2, "python": "3", "versions": {"torch": "2", "numba": None}}
    figures = {"machine": machine, "goals": {"speed": 2}, "batch": 4, "part": {"a": {"ms": 1.23456}, "b": {"ms": None}},
               "plans": [{"jobs": 3, "files": [1, 2]}]}  # fmt: skip
    (tmp_path / "gpu.json").write_text(json.dumps(figures))
    assert (
        tables.section(tmp_path / "gpu.json")
        == """## bench/gpu.py

G, 2 cores, Python 3, torch 2

Settings: batch 4

Goals: speed 2

|  | ms |
| --- | ---: |
| part, a | 1.235 |
| part, b | – |

|  | jobs | files |
| --- | ---: | ---: |
| plans 1 | 3 | 1 / 2 |"""
    )
