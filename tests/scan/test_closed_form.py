"""The scan without a loop, against the slow loop in NumPy."""

import numpy as np
import pytest
import torch
from scan_oracle import problem, slow_scan

from merba.scan import closed_form, window_conv, window_paths, window_scan
from merba.scan.ops import CONV, SCAN


@pytest.mark.parametrize("softplus", [True, False])
@pytest.mark.parametrize(("height", "width", "window"), [(7, 7, 7), (5, 3, 2), (10, 9, 7), (1, 1, 1), (9, 11, None)])
def test_it_is_the_loop(height, width, window, softplus):
    inputs, paths = problem(2, ("hr", "vz", "hz_mirror"), height, width, window, 4, 3, softplus=softplus)
    y = closed_form.scan(*inputs, paths, softplus)
    assert np.allclose(y, slow_scan(*(x.double().numpy() for x in inputs), paths.numpy(), softplus), rtol=1e-4, atol=1e-5)


def test_decays_too_strong_to_be_divided_by_do_no_harm():
    inputs, paths = problem(1, ("hr",), 7, 7, 7, 4, 3)
    inputs = (inputs[0], inputs[1] + 50, *inputs[2:])
    y = closed_form.scan(*inputs, paths, True)
    assert np.allclose(y, slow_scan(*(x.double().numpy() for x in inputs), paths.numpy(), True), rtol=1e-4, atol=1e-3)


@pytest.mark.parametrize("shape", [(2, 90, 4), (2, 3, 90, 4)], ids=["shared", "per direction"])
def test_the_convolution_is_the_references(shape):
    paths = torch.from_numpy(window_paths(("hr", "vz", "vr_reverse"), 10, 9, 7))
    x, weight = torch.randn(shape), torch.randn(3, 4, 3)
    expected = window_conv(x, weight, paths=paths, backend="reference")
    with closed_form.instead_of_kernels():
        assert torch.allclose(window_conv(x, weight, paths=paths), expected, atol=1e-6)


def test_kernels_come_back_even_after_an_error():
    before = dict(SCAN), dict(CONV)
    with pytest.raises(KeyError), closed_form.instead_of_kernels():
        assert {*SCAN.values(), *CONV.values()} == {closed_form.scan, closed_form.conv}
        raise KeyError
    assert before == (SCAN, CONV)


def test_the_public_scan_is_the_same_within_the_block():
    inputs, paths = problem(2, ("hr", "vz"), 10, 9, 7, 4, 3)

    def public():
        return window_scan(*inputs[:6], paths=paths, delta_bias=inputs[6], delta_softplus=True)

    expected = public()
    with closed_form.instead_of_kernels(), torch.no_grad():
        y = public()
    assert torch.allclose(y, expected, rtol=1e-4, atol=1e-5)
