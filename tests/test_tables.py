"""Tables: counts, rows of results with their n, published rows kept apart."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import f1_score

from merba.tables import confusion_table, result_rows, table_1, table_5

PUBLISHED = Path(__file__).parents[1] / "config" / "published"
CLASSES = ["negative", "positive", "surprise"]
EXPERIMENT = {
    "method": "MERba-nano",
    "backbone": "SSM+ViT",
    "protocol": "loso",
    "control": "none",
    "datasets": ["casme2", "smic_hs"],
}


@pytest.fixture
def sheet():
    rows = [
        {"dataset": dataset, "subject": f"s{n % 5}", "clip": f"c{n}", "label": CLASSES[n % 3]}
        for dataset in ("casme2", "smic_hs")
        for n in range(30)
    ]
    return pd.DataFrame(rows)


def predictions(sheet, seeds=(1,), selection=("validation", "oracle")):
    parts = []
    for seed in seeds:
        for chosen in selection:
            random = np.random.default_rng(seed)
            right = random.random(len(sheet)) < (0.7 if chosen == "validation" else 0.9)
            other = random.choice(CLASSES, len(sheet))
            part = sheet.rename(columns={"label": "true"}).assign(
                seed=seed, selection=chosen, epoch=3, predicted=np.where(right, sheet["label"], other)
            )
            parts.append(part.assign(**{f"p_{name}": 1 / 3 for name in CLASSES}))
    return pd.concat(parts, ignore_index=True)


def test_scores_of_a_row_equal_scikit_learn(sheet):
    found = predictions(sheet)
    row = result_rows(found, EXPERIMENT, sheet, name="merba", data="demo").set_index("selection").loc["validation"]
    honest = found[found["selection"] == "validation"]
    assert row["combined_uf1"] == pytest.approx(f1_score(honest["true"], honest["predicted"], average="macro"))
    one = honest[honest["dataset"] == "casme2"]
    assert row["casme2_uf1"] == pytest.approx(f1_score(one["true"], one["predicted"], average="macro"))
    assert row["combined_uf1_low"] < row["combined_uf1"] < row["combined_uf1_high"]


def test_the_oracle_is_a_row_of_its_own_marked_as_leaking(sheet):
    rows = result_rows(predictions(sheet), EXPERIMENT, sheet, name="merba", data="demo")
    assert rows.set_index("selection")["leaks"].to_dict() == {"validation": False, "oracle": True}


def test_seeds_give_their_mean_and_spread(sheet):
    found = predictions(sheet, seeds=(1, 2))
    both = result_rows(found, EXPERIMENT, sheet, name="merba", data="demo").iloc[0]
    single = [
        result_rows(found[found["seed"] == seed], EXPERIMENT, sheet, name="merba", data="demo").iloc[0]["combined_uf1"]
        for seed in (1, 2)
    ]
    assert both["combined_uf1"] == pytest.approx(np.mean(single))
    assert both["combined_uf1_seed_sd"] == pytest.approx(np.std(single, ddof=1))


def test_dropped_clips_and_missing_folds_show(sheet):
    found = predictions(sheet)
    partial = found[(found["clip"] != "c0") & ~((found["dataset"] == "casme2") & (found["subject"] == "s1"))]
    row = result_rows(partial, EXPERIMENT, sheet, name="merba", data="demo").iloc[0]
    assert row["folds"] == "9/10"
    assert row["clips"] == "52/60"
    assert row["combined_n"] == 52


def test_table_5_keeps_published_and_reproduced_rows_apart(sheet):
    rows = result_rows(predictions(sheet), EXPERIMENT, sheet, name="merba", data="demo")
    table = table_5([rows], PUBLISHED / "table_5_3db.csv")
    published = table[table["source"] == "published"]
    assert len(published) == 10
    assert set(published["data"]) == {"3db"}
    assert published.set_index("method").loc["MERba", "combined_uf1"] == 0.884
    assert set(table.loc[table["source"] == "reproduced", "data"]) == {"demo"}


def test_a_confusion_table_counts_the_chosen_selection(sheet):
    found = predictions(sheet)
    counts = confusion_table(found, "oracle")
    assert counts.to_numpy().sum() == 60
    oracle = found[found["selection"] == "oracle"]
    hits = ((oracle["true"] == "positive") & (oracle["predicted"] == "surprise")).sum()
    assert counts.loc["positive", "surprise"] == hits


def test_table_1_lists_every_model_with_its_parameters():
    from merba.models import create_model

    table = table_1([("merba_nano", {"in_channels": 3}, 3), ("ststnet", {}, 3)])
    totals = table[table["block"] == "total"].set_index("model")["parameters"]
    for name, arguments in (("merba_nano", {"in_channels": 3}), ("ststnet", {})):
        assert totals[name] == sum(p.numel() for p in create_model(name, 3, **arguments).parameters())
