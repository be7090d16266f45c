"""UF1, UAR and ACC against scikit-learn and cases worked out by hand."""

import numpy as np
import pytest
from sklearn.metrics import accuracy_score, f1_score, recall_score

from merba.evaluation import metrics
from merba.evaluation.metrics import bootstrap_interval, confusion, paired_bootstrap, scores, subject_counts, unweighted


def test_scores_worked_out_by_hand():
    # Three classes; class 0: TP 2, FN 1, FP 1; class 1: TP 1, FN 1, FP 1; class 2: TP 1, FN 0, FP 0.
    counts = confusion([0, 0, 0, 1, 1, 2], [0, 0, 1, 1, 0, 2], 3)
    found = scores(counts)
    assert found.uf1 == pytest.approx((4 / 6 + 2 / 4 + 1) / 3)
    assert found.uar == pytest.approx((2 / 3 + 1 / 2 + 1) / 3)
    assert found.acc == pytest.approx(4 / 6)
    assert found.n == 6


@pytest.mark.parametrize("classes", [3, 7])
def test_scores_equal_scikit_learn(classes):
    random = np.random.default_rng(classes)
    true, predicted = random.integers(0, classes, (2, 500))
    found = scores(confusion(true, predicted, classes))
    assert found.uf1 == pytest.approx(f1_score(true, predicted, average="macro"))
    assert found.uar == pytest.approx(recall_score(true, predicted, average="macro"))
    assert found.acc == pytest.approx(accuracy_score(true, predicted))


def test_a_class_absent_from_the_truth_is_left_out_of_the_means():
    # Class 2 is never true but predicted once: class 0 loses recall, and F1 is the mean of two classes.
    found = scores(confusion([0, 0, 1, 1], [0, 2, 1, 1], 3))
    assert found.uar == pytest.approx((1 / 2 + 1) / 2)
    assert found.uf1 == pytest.approx((2 / 3 + 1) / 2)


def test_no_clips_give_nan_not_a_number():
    assert np.isnan(scores(np.zeros((3, 3))).uf1)


def test_counts_of_subjects_add_up_to_the_whole():
    random = np.random.default_rng(0)
    true, predicted, owner = random.integers(0, 3, (3, 60))
    counts = subject_counts(true, predicted, owner.astype(str), 3)
    assert counts.shape == (3, 3, 3)
    assert (counts.sum(0) == confusion(true, predicted, 3)).all()
    assert (counts[1] == confusion(true[owner == 1], predicted[owner == 1], 3)).all()


def test_the_bootstrap_draws_subjects_not_clips():
    # Two kinds of subjects, always right or always wrong: the spread is that of 20 coins, whatever the clips are.
    right, wrong = np.diag([50, 50, 50]), np.roll(np.diag([50, 50, 50]), 1, axis=1)
    counts = np.stack([right] * 10 + [wrong] * 10)
    (low, high), _ = bootstrap_interval(counts)
    expected = 1.96 * np.sqrt(0.25 / 20)
    assert low == pytest.approx(0.5 - expected, abs=0.04)
    assert high == pytest.approx(0.5 + expected, abs=0.04)


def test_a_bootstrap_of_equal_subjects_has_no_width():
    uf1, uar = bootstrap_interval(np.stack([np.array([[3, 1, 0], [0, 2, 0], [1, 0, 2]])] * 5))
    assert uf1[0] == pytest.approx(uf1[1])
    assert uar == pytest.approx([unweighted(np.array([[3, 1, 0], [0, 2, 0], [1, 0, 2]]))[1]] * 2)


def test_a_paired_bootstrap_draws_the_same_subjects_of_both(monkeypatch):
    monkeypatch.setattr(metrics, "DRAWS", 50)
    random = np.random.default_rng(0)
    true, mine, theirs = random.integers(0, 3, (3, 120))
    owner = np.sort(random.integers(0, 8, 120)).astype(str)
    counts = [subject_counts(true, predicted, owner, 3) for predicted in (mine, theirs)]
    differences_of_uf1, _ = paired_bootstrap(*counts)
    # The same by hand: clips of the drawn subjects, scored by scikit-learn.
    drawn = np.random.default_rng(0).multinomial(8, np.full(8, 1 / 8), size=50)
    differences = []
    for times in drawn:
        rows = np.repeat(np.arange(120), times[np.unique(owner, return_inverse=True)[1]])
        a, b = (f1_score(true[rows], predicted[rows], average="macro") for predicted in (mine, theirs))
        differences.append(a - b)
    assert differences_of_uf1 == pytest.approx(np.quantile(differences, [0.025, 0.975]))


def test_a_method_against_itself_differs_by_nothing():
    counts = subject_counts(np.arange(30) % 3, np.arange(30) % 2, (np.arange(30) % 5).astype(str), 3)
    assert paired_bootstrap(counts, counts) == ((0, 0), (0, 0))


def test_one_subject_says_nothing_of_the_width():
    assert np.isnan(bootstrap_interval(np.diag([3, 3, 3])[None])).all()


def test_intervals_over_seeds_are_of_their_mean(monkeypatch):
    monkeypatch.setattr(metrics, "DRAWS", 50)
    random = np.random.default_rng(0)
    true = random.integers(0, 3, 90)
    owner = np.sort(random.integers(0, 6, 90)).astype(str)
    guesses = [np.where(random.random(90) < p, true, random.integers(0, 3, 90)) for p in (0.2, 0.9)]
    counts = np.stack([subject_counts(true, guess, owner, 3) for guess in guesses])
    drawn = np.random.default_rng(0).multinomial(6, np.full(6, 1 / 6), size=50)
    means = []
    for times in drawn:
        rows = np.repeat(np.arange(90), times[np.unique(owner, return_inverse=True)[1]])
        means.append(np.mean([f1_score(true[rows], guess[rows], average="macro") for guess in guesses]))
    assert bootstrap_interval(counts)[0] == pytest.approx(np.quantile(means, [0.025, 0.975]))
    against_one = paired_bootstrap(counts, counts[0])[0]
    assert against_one == pytest.approx(paired_bootstrap(counts, counts[:1])[0])
    assert against_one[0] > 0


def test_a_stratified_bootstrap_draws_as_many_subjects_of_each_dataset_as_it_has():
    # Within a dataset all subjects are equal, easy or hard: the score is the same, whoever is drawn.
    right, wrong = np.diag([5, 5, 5]), np.roll(np.diag([5, 5, 5]), 1, axis=1)
    counts, datasets = np.stack([right, wrong, wrong, right, wrong]), ["easy", "hard", "hard", "easy", "hard"]
    (low, high), _ = bootstrap_interval(counts, datasets)
    assert low == high == pytest.approx(2 / 5)
    assert np.ptp(bootstrap_interval(counts)[0]) > 0.3
    assert np.ptp(paired_bootstrap(counts, np.stack([wrong] * 5), datasets)[0]) == 0


def test_strata_are_drawn_one_by_one_and_put_back_in_their_places(monkeypatch):
    monkeypatch.setattr(metrics, "DRAWS", 50)
    random = np.random.default_rng(1)
    counts, datasets = random.integers(1, 9, (7, 3, 3)), np.array(["b", "a", "b", "a", "b", "b", "a"])
    draws = np.random.default_rng(0)
    times = {name: draws.multinomial(size, np.full(size, 1 / size), size=50) for name, size in (("a", 3), ("b", 4))}
    drawn = [sum((counts[datasets == name] * row[k][:, None, None]).sum(0) for name, row in times.items()) for k in range(50)]
    expected = np.quantile([scores(part).uf1 for part in drawn], [0.025, 0.975])
    assert bootstrap_interval(counts, datasets)[0] == pytest.approx(expected)


def test_datasets_of_one_subject_each_say_nothing_of_the_width():
    assert np.isnan(bootstrap_interval(np.stack([np.eye(3), np.eye(3)]), ["a", "b"])).all()
