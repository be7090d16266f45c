"""The ceiling on the public flow: each figure in a case with a known answer."""

import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from merba.datasets.tasks import composite

BENCH = Path(__file__).parents[2] / "bench"


@pytest.fixture
def ceiling(monkeypatch):
    monkeypatch.syspath_prepend(BENCH)
    import ceiling

    yield ceiling
    for name in ("ceiling", "leaderboard"):
        sys.modules.pop(name)


def test_the_bound_is_the_bayes_accuracy_where_the_neighbour_says_nothing_of_the_class(ceiling):
    # A clip's neighbour has class k with probability p_k, independent of the clip's own: it is right with Σ p².
    for shares in ([0.8, 0.1, 0.1], [0.4, 0.3, 0.3], [1, 0, 0]):
        assert ceiling.bayes_accuracy(sum(share**2 for share in shares), 3) >= max(shares) - 1e-12
    # The inequality is sharp if the other classes are equally likely.
    assert ceiling.bayes_accuracy(0.8**2 + 2 * 0.1**2, 3) == pytest.approx(0.8)
    assert ceiling.bayes_accuracy(1 / 3, 3) == pytest.approx(1 / 3)


def test_a_neighbour_is_of_another_subject_and_may_be_mirrored(ceiling):
    described = torch.tensor([[0.0], [0.1], [5.0], [-5.2]])
    labels, subjects = torch.tensor([0, 1, 2, 2]), np.array(["a", "a", "b", "c"])
    # 0 and 1 are nearest to each other, but of one subject; 2 and 3 are far apart until one is mirrored.
    assert ceiling.neighbour_accuracy(described, -described, labels, subjects) == 0.5
    assert ceiling.neighbour_accuracy(described, described, labels, subjects) == 0


def test_hard_clips_are_those_that_nobody_gets_right(ceiling, tmp_path):
    clips = composite().rename(columns={"label": "true"}).assign(selection="last", seed=0)
    answers = {"a": "positive", "b": "positive", "c": "surprise"}
    for name, answer in answers.items():
        predicted = clips["true"].copy()
        predicted[: 2 if name == "c" else 3] = answer
        oracle = clips.assign(predicted="negative", selection="oracle")
        pd.concat([clips.assign(predicted=predicted), oracle]).to_csv(tmp_path / f"{name}.csv", index=False)
    truth = composite()["label"][:3].tolist()
    hard = ceiling.hard_clips([str(tmp_path / f"{name}.csv") for name in answers])
    wrong = [k for k in range(2) if truth[k] not in answers.values()]
    assert hard["clip"].tolist() == composite()["clip"][wrong].tolist()
    assert set(hard["agreed"]) == {""}
    (agreed,) = ceiling.hard_clips([str(tmp_path / f"{name}.csv") for name in "ab"]).agg({"agreed": "unique"})
    assert list(agreed) == ["positive"]


def test_the_curve_trains_on_so_many_subjects_and_never_on_the_test_subject(ceiling, monkeypatch):
    class Model:
        def fit(self, features, labels, rows):
            trained.append(set(rows.tolist()))

        def decide(self, features):
            return torch.eye(3)[features.long()]

    trained = []
    monkeypatch.setattr(ceiling, "create_model", lambda *_: Model())
    labels, subjects = torch.arange(12) % 3, np.repeat(["a", "b", "c", "d"], 3)
    assert ceiling.curve_point(labels.float(), labels, subjects, 2, np.random.default_rng(0)) == 1
    assert [len(rows) for rows in trained] == [6] * 4
    assert all(not rows & {3 * k, 3 * k + 1, 3 * k + 2} for k, rows in enumerate(trained))
