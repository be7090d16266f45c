"""Splits: disjoint subjects, all clips used once as test, depending only on seed and sheet."""

import numpy as np
import pandas as pd
import pytest

from merba.errors import MerbaError
from merba.protocols import (
    EVERYBODY,
    folds,
    hold_out_subjects,
    holdout_split,
    loso_split,
    loso_subjects,
    make_split,
    shared_subjects,
)


@pytest.fixture
def clips():
    random = np.random.default_rng(3)
    rows = [
        {"dataset": dataset, "subject": f"s{subject:02}", "clip": f"c{clip}", "label": label}
        for dataset in ("casme2", "samm")
        for subject in range(12)
        for clip, label in enumerate(random.choice(["negative", "positive", "surprise"], random.integers(3, 12)))
    ]
    return pd.DataFrame(rows)


def people(clips, rows):
    return set(zip(clips["dataset"].iloc[rows], clips["subject"].iloc[rows], strict=True))


def test_each_clip_is_tested_exactly_once(clips):
    folds = loso_subjects(clips, ["casme2", "samm"])
    tested = np.concatenate([loso_split(clips, *fold, stopping="none", seed=0).test for fold in folds])
    assert sorted(tested) == list(range(len(clips)))


@pytest.mark.parametrize("stopping", ["none", "validation"])
def test_parts_share_no_subject_and_leave_out_no_clip(clips, stopping):
    split = loso_split(clips, "samm", "s03", stopping=stopping, seed=0)
    parts = [people(clips, part) for part in (split.train, split.validation, split.test)]
    assert parts[2] == {("samm", "s03")}
    assert not (parts[0] & parts[1] or parts[0] & parts[2] or parts[1] & parts[2])
    assert len(split.train) + len(split.validation) + len(split.test) == len(clips)


def test_the_same_id_in_two_datasets_is_two_people(clips):
    assert ("casme2", "s03") in people(clips, loso_split(clips, "samm", "s03", stopping="none", seed=0).train)


def test_a_tenth_is_held_out_with_every_class(clips):
    split = loso_split(clips, "samm", "s03", stopping="validation", seed=0)
    share = len(split.validation) / (len(split.validation) + len(split.train))
    assert 0.05 < share < 0.15
    assert set(clips["label"].iloc[split.validation]) == {"negative", "positive", "surprise"}


def test_a_split_depends_on_the_seed_alone(clips):
    def held_out(seed):
        return loso_split(clips, "samm", "s03", stopping="validation", seed=seed).validation.tolist()

    assert held_out(1) == held_out(1)
    assert any(held_out(1) != held_out(seed) for seed in range(2, 6))


def test_labels_of_the_test_subject_change_no_split(clips):
    poisoned = clips.copy()
    poisoned.loc[(clips["dataset"] == "samm") & (clips["subject"] == "s03"), "label"] = "surprise"
    a, b = (loso_split(sheet, "samm", "s03", stopping="validation", seed=0) for sheet in (clips, poisoned))
    assert (a.train == b.train).all()
    assert (a.validation == b.validation).all()


def test_over_the_folds_most_subjects_are_held_out_and_nobody_mostly(clips):
    # One subject has more than a tenth of the clips, all of one class: the splitter assigns it first in every fold.
    large = pd.DataFrame([{"dataset": "samm", "subject": "s99", "clip": f"c{n}", "label": "negative"} for n in range(30)])
    sheet = pd.concat([clips, large], ignore_index=True)
    folds = loso_subjects(sheet, ["casme2", "samm"])
    held_out = [people(sheet, loso_split(sheet, *fold, stopping="validation", seed=0).validation) for fold in folds]
    times = {fold: sum(fold in part for part in held_out) for fold in folds}
    assert sum(count > 0 for count in times.values()) >= 0.8 * len(folds)
    assert max(times.values()) <= len(folds) / 3


@pytest.mark.parametrize("part", range(12))
@pytest.mark.parametrize("sizes", [(2, 2, 2), (9, 1, 1), (30, 5, 5, 1, 1, 1, 1)])
def test_few_subjects_hold_out_some(sizes, part):
    subjects = np.repeat(np.arange(len(sizes)), sizes).astype(str)
    labels = np.array(["a", "b"] * sum(sizes))[: sum(sizes)]
    train, held_out = hold_out_subjects(labels, subjects, seed=0, part=part)
    assert len(held_out) > 0
    assert len(train) > 0
    assert not set(subjects[train]) & set(subjects[held_out])


def test_one_training_subject_cannot_be_split():
    with pytest.raises(MerbaError, match="at least two training subjects"):
        hold_out_subjects(np.array(["a", "b"]), np.array(["x", "x"]), seed=0, part=0)


def test_the_subjects_with_most_clips(clips):
    sizes = clips.groupby(["dataset", "subject"]).size()
    chosen = loso_subjects(clips, ["casme2", "samm"], most_clips=3)
    assert sorted(sizes[chosen]) == sorted(sizes)[-3:]


def test_a_subject_without_usable_clips_is_not_tested_and_everybody_is_trained_on(clips):
    split = loso_split(clips, "samm", "s99", stopping="none", seed=0)
    assert (len(split.train), len(split.test)) == (len(clips), 0)


@pytest.fixture
def divided(clips):
    """The clips with splits as DFME's: subjects 9 and 10 are test A, 11 is test B."""
    number = clips["subject"].str[1:].astype(int)
    return clips.assign(split=np.select([number < 9, number < 11], ["train", "test_a"], "test_b"))


@pytest.mark.parametrize("stopping", ["none", "validation"])
def test_holdout_trains_on_the_training_split_and_tests_on_both_tests(divided, stopping):
    split = holdout_split(divided, stopping=stopping, seed=0)
    assert set(divided["split"].iloc[split.test]) == {"test_a", "test_b"}
    assert set(divided["split"].iloc[np.concatenate([split.train, split.validation])]) == {"train"}
    assert len(split.train) + len(split.validation) + len(split.test) == len(divided)
    assert bool(len(split.validation)) == (stopping == "validation")
    assert not people(divided, split.train) & people(divided, split.validation)


def test_people_who_are_trained_on_and_tested_are_named(divided, caplog):
    holdout_split(divided, stopping="none", seed=0)
    assert not caplog.records
    tested = divided[divided["split"] == "test_a"].index[0]
    known = divided[divided["split"] == "train"].iloc[0]
    divided.loc[tested, ["dataset", "subject"]] = known[["dataset", "subject"]]
    holdout_split(divided, stopping="none", seed=0)
    name = f"{known['dataset']}/{known['subject']}"
    assert f"1 subjects are in both the training and the test part ({name})" in caplog.text
    assert shared_subjects(divided) == [name]


def test_a_model_for_new_faces_leaves_nobody_out(clips):
    split = make_split(clips, EVERYBODY, "all", "all", stopping="none", seed=0)
    assert split.train.tolist() == list(range(len(clips)))
    assert not len(split.validation)
    assert not len(split.test)


def test_an_experiments_folds_follow_its_protocol(divided):
    experiment = {"protocol": "loso", "folds": "all", "datasets": ["samm"]}
    assert len(folds(divided, experiment)) == 12
    assert len(folds(divided, experiment | {"folds": {"most_clips": 2}})) == 2
    assert folds(divided, experiment | {"protocol": "holdout"}) == [("samm", "holdout")]


def test_holdout_without_splits_is_refused(clips):
    experiment = {"protocol": "holdout", "datasets": ["samm"]}
    with pytest.raises(MerbaError, match="dataset samm has all: use `protocol: loso`"):
        folds(clips.assign(split="all"), experiment)
