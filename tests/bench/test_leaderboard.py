"""The page of results agrees with the shipped predictions."""

import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from merba.datasets.tasks import composite

BENCH = Path(__file__).parents[2] / "bench"


@pytest.fixture
def leaderboard(monkeypatch):
    monkeypatch.syspath_prepend(BENCH)
    import leaderboard

    yield leaderboard
    sys.modules.pop("leaderboard")


def test_page_and_files_are_those_of_the_shipped_predictions(leaderboard):
    tables = {name: leaderboard.results(name) for name in ("table_5_3db", *leaderboard.TABLES)}
    page = leaderboard.PAGE.read_text()
    assert page == leaderboard.page(page, tables), "run python bench/leaderboard.py"
    for name, rows in tables.items():
        path = leaderboard.PAGE.parent / "results" / f"public_flow_{name}.csv"
        assert path.exists() == bool(len(rows))
        if len(rows):
            assert path.read_text() == rows.round(4).to_csv(index=False), "run python bench/leaderboard.py"


def test_the_tables_have_a_row_for_each_experiment_with_predictions(leaderboard, monkeypatch, tmp_path):
    random = np.random.default_rng(0)
    files = {}
    for name, accuracy in (("merba", 0.6), ("ststnet", 0.8), ("lda", 0.7), ("scan_hr", 0.5), ("unlisted", 0.9)):
        clips = composite().rename(columns={"label": "true"}).assign(p_negative=1.0, p_positive=0.0, p_surprise=0.0)
        clips["predicted"] = clips["true"].where(random.random(len(clips)) < accuracy, "negative")
        selections = ["last"] if name == "lda" else ["last", "oracle"]
        parts = [clips.assign(seed=0, selection=selection) for selection in selections]
        unfinished = parts[0].iloc[:30].assign(seed=1, predicted="surprise")
        files[name] = tmp_path / f"{name}.csv"
        pd.concat([*parts, unfinished]).to_csv(files[name], index=False)
    monkeypatch.setattr(leaderboard, "shipped_predictions", lambda: files)
    tables = {name: leaderboard.results(name) for name in ("table_5_3db", *leaderboard.TABLES)}
    page = leaderboard.page("a" + leaderboard.MARKS[0] + leaderboard.MARKS[1] + "z", tables)
    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in page.splitlines() if line.startswith("|")]
    table_5, table_7 = rows[:5], rows[-4:]
    names = ["STSTNet", "PCA + LDA (ours)", "MERba-nano"]
    assert [row[0] for row in table_5[2:]] == names, "best first; no row for what the configuration lacks"
    assert [row[1] for row in table_5[2:]] == ["last", "–", "last"], "a fitted method has no epochs"
    assert [row[-1] == "–" for row in table_5[2:]] == [False, True, False], "and no oracle"
    assert [row[2:4] for row in table_5[2:]] == [["68/68", "1"]] * 3, "a seed that isn't finished doesn't count"
    better = tables["table_5_3db"].set_index(["experiment", "selection"])
    assert table_5[2][4].startswith(f"{better.at[('ststnet', 'last'), 'combined_uf1']:.3f} (")
    assert table_5[0][-2] == "UF1 minus that of MERba-nano" and table_5[2][-2].startswith("+") and table_5[4][-2] == "–"
    assert [row[0] for row in table_7[2:]] == ["hr vr hz vz", "hr"]
    assert "Table VI on these clips" not in page, "a table of one row compares nothing"
