"""Tables: counts, rows of results with their n, published rows kept apart."""

from itertools import permutations

import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import f1_score

from merba.evaluation.metrics import unweighted
from merba.evaluation.paper_tables import confusion_table, loso_rows, table_1, table_4, table_5, table_6, table_7
from merba.evaluation.published import published
from merba.evaluation.runs import Run

CLASSES = ["negative", "positive", "surprise"]
EXPERIMENT = {
    "method": "MERba-nano",
    "backbone": "SSM+ViT",
    "protocol": "loso",
    "control": "none",
    "against": None,
    "datasets": ["casme2", "smic_hs"],
}


@pytest.fixture
def sheet():
    rows = [
        {"dataset": dataset, "subject": f"s{n % 5}", "clip": f"c{n}", "label": CLASSES[n % 3], "split": "all"}
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


def finished(name, settings, predictions):
    """An experiment with its folds' predictions in memory."""
    run = Run(name, settings, folders=[])
    vars(run)["predictions"] = predictions  # the cached property keeps its value there
    return run


def rows_of(predictions, sheet):
    """Rows of one experiment, by loso."""
    return pd.DataFrame(loso_rows(finished("merba", EXPERIMENT, predictions), None, sheet, "demo"))


def test_scores_of_a_row_equal_scikit_learn(sheet):
    found = predictions(sheet)
    row = rows_of(found, sheet).set_index("selection").loc["validation"]
    honest = found[found["selection"] == "validation"]
    assert row["combined_uf1"] == pytest.approx(f1_score(honest["true"], honest["predicted"], average="macro"))
    one = honest[honest["dataset"] == "casme2"]
    assert row["casme2_uf1"] == pytest.approx(f1_score(one["true"], one["predicted"], average="macro"))
    assert row["combined_uf1_low"] < row["combined_uf1"] < row["combined_uf1_high"]


def test_the_oracle_is_a_row_of_its_own_marked_as_leaking(sheet):
    rows = rows_of(predictions(sheet), sheet)
    assert rows.set_index("selection")["leaks"].to_dict() == {"validation": "no", "oracle": "yes"}


def test_seeds_give_their_mean_and_spread(sheet):
    found = predictions(sheet, seeds=(1, 2))
    both = rows_of(found, sheet).iloc[0]
    single = [rows_of(found[found["seed"] == seed], sheet).iloc[0]["combined_uf1"] for seed in (1, 2)]
    assert both["combined_uf1"] == pytest.approx(np.mean(single))
    assert both["combined_uf1_seed_sd"] == pytest.approx(np.std(single, ddof=1))


def test_intervals_and_differences_are_of_the_mean_over_seeds(sheet):
    found = predictions(sheet, seeds=(1, 2, 3))
    single = predictions(sheet, seeds=(1,))
    ours, theirs = finished("merba", EXPERIMENT, found), finished("first", EXPERIMENT, single)
    row = loso_rows(ours, theirs, sheet, "demo")[0]
    assert row["combined_uf1_low"] < row["combined_uf1"] < row["combined_uf1_high"]
    assert row["difference"] == pytest.approx(row["combined_uf1"] - rows_of(single, sheet).iloc[0]["combined_uf1"])
    assert row["difference_low"] <= row["difference"] <= row["difference_high"]
    assert row["against_n"] == len(sheet)


def test_dropped_clips_and_missing_folds_show(sheet):
    found = predictions(sheet)
    partial = found[(found["clip"] != "c0") & ~((found["dataset"] == "casme2") & (found["subject"] == "s1"))]
    row = rows_of(partial, sheet).iloc[0]
    assert row["folds"] == "9/10"
    assert row["clips"] == "52/60"
    assert row["combined_n"] == 52


def test_table_5_keeps_published_and_reproduced_rows_apart(sheet):
    ours = [finished("merba", EXPERIMENT, predictions(sheet))]
    table = table_5(ours, sheet, "demo")
    printed = table[table["source"] == "published"]
    assert len(printed) == 10
    assert set(printed["data"]) == {"3db"}
    assert printed.set_index("method").loc["MERba", "combined_uf1"] == 0.884
    assert set(table.loc[table["source"] == "reproduced", "data"]) == {"demo"}


def test_a_difference_is_taken_on_the_clips_that_both_predicted(sheet):
    mine = predictions(sheet)
    theirs = predictions(sheet, seeds=(4,))[lambda rows: rows["clip"] != "c0"].assign(
        selection=lambda rows: rows["selection"].replace("validation", "last")
    )
    ours = [finished("a", EXPERIMENT | {"against": "b"}, mine), finished("b", EXPERIMENT, theirs)]
    table = table_5(ours, sheet, "demo").set_index(["experiment", "selection"])
    row = table.loc[("a", "validation")]
    scores = [
        f1_score(one["true"], one["predicted"], average="macro")
        for one in (rows[(rows["selection"] != "oracle") & (rows["clip"] != "c0")] for rows in (mine, theirs))
    ]
    assert row["difference"] == pytest.approx(scores[0] - scores[1], abs=1e-4)
    assert row["difference_low"] < row["difference"] < row["difference_high"]
    assert (row["against"], row["against_n"]) == ("b", 58)
    assert table["against"].notna().sum() == 2, "only a's rows are compared"


@pytest.fixture
def divided(sheet):
    """The sheet as a dataset with DFME's splits: four subjects are the tests."""
    split = sheet["subject"].map({"s0": "train", "s1": "test_a", "s2": "test_a", "s3": "test_b", "s4": "test_b"})
    return sheet[sheet["dataset"] == "casme2"].assign(dataset="dfme", split=split)


HOLDOUT = EXPERIMENT | {"protocol": "holdout", "datasets": ["dfme"], "model": {"name": "merba_nano"}}


def test_table_4_has_a_row_for_each_test_set(divided):
    found = predictions(divided[divided["split"] != "train"])
    table = table_4([finished("m", HOLDOUT, found)], divided, "demo")
    assert (table["source"] == "published").sum() == 14
    ours = table[(table["source"] == "reproduced") & (table["selection"] == "validation")].set_index("test_set")
    assert ours["clips"].to_dict() == {"test_a": "12/12", "test_b": "12/12"}
    honest = found[(found["selection"] == "validation") & (found["split"] == "test_b")]
    assert ours.loc["test_b", "uf1"] == pytest.approx(f1_score(honest["true"], honest["predicted"], average="macro"), abs=1e-4)


def test_table_6_names_where_extractors_and_attention_look(divided):
    found = predictions(divided[divided["split"] != "train"])
    ours = [
        finished("whole", HOLDOUT, found),
        finished("local", HOLDOUT | {"model": {"name": "merba_nano", "attention": "local"}}, found),
    ]
    table = table_6(ours, divided, "demo")
    rows = table[(table["source"] == "reproduced") & (table["selection"] == "oracle")]
    assert set(rows["test_set"]) == {"test_b"}
    looks = rows.set_index("experiment")[["extractor", "self_attention"]]
    assert looks.loc["whole"].tolist() == ["local", "global"]
    assert looks.loc["local"].tolist() == ["local", "local"]


def test_table_7_has_the_cost_of_every_direction_set(divided):
    found = predictions(divided[divided["split"] != "train"])
    ours = [finished("hr", HOLDOUT | {"model": {"name": "merba_nano", "directions": "hr"}}, found)]
    table = table_7(ours, divided, "demo")
    printed = table[table["source"] == "published"].set_index("row")
    assert printed["parameters"].nunique() == 1, "directions share one mixer"
    assert printed.loc[1, "flops"] < printed.loc[2, "flops"] < printed.loc[6, "flops"]
    assert printed.loc[6, "parameters"] == pytest.approx(94e6, rel=0.01)
    mine = table[table["experiment"] == "hr"]
    assert set(mine["directions"]) == {"hr"}
    assert (mine["parameters"] < 1e6).all()


LOSO = EXPERIMENT | {"model": {"name": "merba_nano", "in_channels": 2, "image_size": 28, "stem_stride": 1, "window": 4}}


@pytest.mark.parametrize(("make", "ablation"), [(table_6, {"attention": "local"}), (table_7, {"directions": "hr"})])
def test_tables_6_and_7_take_rows_by_loso_with_the_costs_of_the_model_that_ran(sheet, make, ablation):
    from merba.models import create_model

    found = predictions(sheet)
    model = LOSO["model"] | ablation
    run = finished("ablated", LOSO | {"model": model, "against": "whole"}, found)
    table = make([run, finished("whole", LOSO, predictions(sheet, seeds=(4,)))], sheet, "public_flow")
    row = table[(table["experiment"] == "ablated") & (table["selection"] == "validation")].iloc[0]
    honest = found[found["selection"] == "validation"]
    assert row["uf1"] == pytest.approx(f1_score(honest["true"], honest["predicted"], average="macro"), abs=1e-4)
    assert (row["test_set"], row["folds"], row["clips"], row["n"]) == ("all", "10/10", "60/60", 60)
    assert row["difference_low"] < row["difference"] < row["difference_high"]
    assert row["parameters"] == sum(p.numel() for p in create_model(**model, num_classes=3).parameters())
    printed = table[table["source"] == "published"]
    assert set(printed["test_set"]) == {"test_b"} and set(printed["leaks"]) == {"unknown"}


@pytest.mark.parametrize("make", [table_4, table_5])
def test_published_rows_say_whether_their_public_code_leaks(make, sheet):
    table = make([], sheet, "demo")
    assert set(table["leaks"]) <= {"yes", "unknown"}
    assert set(table.loc[table["leaks"] == "yes", "method"]) == ({"HTNet", "SLSTT"} if make is table_5 else set())


def least_uf1(sizes, uar):
    """A bound below the UF1 of every confusion matrix with classes of these sizes and this UAR.

    UF1 is the mean of 2 TP / (n + p), where the numbers p of predictions add up to the clips N. By Cauchy and Schwarz the sum of
    (√TP)² / (n + p) is at least (Σ √TP)² / 2N, a concave function of the recalls: least where all but one of them are 0 or 1.
    """
    recalls = np.clip(uar * len(sizes) - np.arange(len(sizes)), 0, 1)
    return min(np.sqrt(recalls * order).sum() ** 2 / (len(sizes) * sum(sizes)) for order in permutations(sizes))


def test_no_confusion_matrix_is_below_the_bound_of_uf1():
    random = np.random.default_rng(0)
    for _ in range(300):
        counts = np.stack([random.multinomial(size, random.dirichlet([0.3] * 3)) for size in (70, 51, 43)])
        uf1, uar = unweighted(counts)
        assert uf1 >= least_uf1((70, 51, 43), uar)


def test_lbp_tops_published_pair_on_smic_hs_is_impossible_and_no_other_is(sheet):
    rows = table_5([], sheet, "3db")
    counts = published("table_3_3db_counts").set_index("class").drop("total")
    impossible = [
        (row["method"], dataset)
        for dataset in ("combined", "smic_hs", "casme2", "samm")
        for _, row in rows.iterrows()
        if row[f"{dataset}_uf1"] + 5e-5 < least_uf1(counts[dataset], row[f"{dataset}_uar"] - 5e-5)
    ]
    assert impossible == [("LBP-TOP", "smic_hs")]
    assert least_uf1(counts["smic_hs"], 0.5280) == pytest.approx(0.29, abs=0.01)
    assert rows["note"].notna().sum() == 1 and "0.29" in rows.set_index("method")["note"]["LBP-TOP"]


def test_a_confusion_table_counts_the_chosen_selection(sheet):
    found = predictions(sheet)
    counts = confusion_table(found, "oracle")
    assert counts.to_numpy().sum() == 60
    oracle = found[found["selection"] == "oracle"]
    hits = ((oracle["true"] == "positive") & (oracle["predicted"] == "surprise")).sum()
    assert counts.loc["positive", "surprise"] == hits


def test_table_1_lists_every_model_with_its_parameters():
    from merba.models import create_model

    models = {"MERba-nano": ("merba_nano", {"in_channels": 3}), "MERba-nano (dim 8)": ("merba_nano", {"dim": 8})}
    table = table_1([(*model, 3) for model in models.values()])
    totals = table[table["block"] == "total"].set_index("model")["parameters"]
    assert list(totals.index) == list(models), "two of one size are told apart"
    for title, (name, arguments) in models.items():
        assert totals[title] == sum(p.numel() for p in create_model(name, 3, **arguments).parameters())
