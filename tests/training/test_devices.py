"""Which GPU a job takes, by file locks that a fake number of devices is enough to test."""

from contextlib import ExitStack

import pytest
import torch

from merba.errors import MerbaError
from merba.training.devices import claim, training_device


def test_jobs_spread_over_the_devices_and_share_when_there_are_more(tmp_path):
    with ExitStack() as jobs:
        assert [jobs.enter_context(claim(3, tmp_path)) for _ in range(7)] == [0, 1, 2, 0, 1, 2, 0]


def test_a_finished_jobs_device_is_free_again(tmp_path):
    with claim(2, tmp_path), claim(2, tmp_path) as second:
        assert second == 1
    with claim(2, tmp_path) as first:
        assert first == 0


def test_the_cpu_needs_no_lock():
    with training_device("cpu") as device:
        assert device == torch.device("cpu")


def test_asking_for_an_absent_gpu_is_an_error():
    if torch.cuda.is_available():
        pytest.skip("there is a GPU")
    with pytest.raises(MerbaError, match="finds no CUDA GPU"), training_device("cuda"):
        pass
