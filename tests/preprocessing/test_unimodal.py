"""Unimodal regression against brute force with scikit-learn's isotonic regression."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.isotonic import IsotonicRegression

from merba.preprocessing.unimodal import isotonic, unimodal


def rising(y):
    return IsotonicRegression().fit_transform(np.arange(len(y)), y) if len(y) else np.empty(0)


def best_error(y):
    """The least squared error over every split into a rising front and a falling back, one fit each."""
    fits = [np.concatenate([rising(y[:k]), rising(y[k:][::-1])[::-1]]) for k in range(len(y) + 1)]
    return min(((y - fit) ** 2).sum() for fit in fits)


series = st.lists(st.floats(-10, 10, allow_nan=False, width=32), min_size=1, max_size=25).map(np.array)


@given(series)
@settings(deadline=None)
def test_isotonic_regression_equals_scikit_learn(y):
    assert isotonic(y) == pytest.approx(rising(y), abs=1e-6)


@given(series)
@settings(deadline=None)
def test_the_fit_is_unimodal_and_the_best_there_is(y):
    peak, fit = unimodal(y)
    top = int(np.argmax(fit))
    assert (np.diff(fit[: top + 1]) >= -1e-9).all()
    assert (np.diff(fit[top:]) <= 1e-9).all()
    assert ((y - fit) ** 2).sum() == pytest.approx(best_error(y), abs=1e-5)
    assert fit[peak] == fit.max()


def test_a_clean_peak_is_found_and_fitted_exactly():
    y = np.array([0.0, 1, 2, 5, 4, 1, 0])
    peak, fit = unimodal(y)
    assert peak == 3
    assert fit.tolist() == y.tolist()


def test_one_outlier_on_the_slope_is_no_peak():
    y = np.concatenate([np.linspace(0, 1, 20), np.linspace(1, 0, 30)])
    y[35] = 1.05
    assert abs(unimodal(y)[0] - 19) <= 1
    assert np.argmax(y) == 35


def test_five_hundred_frames_cost_no_quadratic_number_of_fits():
    y = np.random.default_rng(0).normal(size=20_000)
    assert len(unimodal(y)[1]) == 20_000
