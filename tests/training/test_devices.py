"""Which GPU a job takes, by file locks, which can be tested with a fake number of devices."""

import os
import stat
from contextlib import ExitStack

import pytest
import torch

from merba.errors import MerbaError
from merba.training.devices import claim, computes_bfloat16, keep_compiled, training_device


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


@pytest.fixture
def older_gpu(monkeypatch, tmp_path):
    """PyTorch believes that there is a GPU without bfloat16 in hardware; its settings are undone afterwards."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    monkeypatch.setattr(torch.cuda, "set_device", lambda number: None)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: "Tesla T4")
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation: including_emulation)
    monkeypatch.setattr("tempfile.gettempdir", lambda: str(tmp_path))
    monkeypatch.setattr(torch.utils.deterministic, "fill_uninitialized_memory", True)
    monkeypatch.setattr(torch.backends.cudnn, "benchmark", False)
    monkeypatch.setenv("CUBLAS_WORKSPACE_CONFIG", "")
    yield
    torch.use_deterministic_algorithms(False)


def test_a_gpu_without_bfloat16_computes_in_float32_and_the_log_says_so(older_gpu, caplog):
    with caplog.at_level("INFO"), training_device("auto") as device:
        assert device.type == "cuda" and not computes_bfloat16(device)
    assert "Tesla T4 does not compute in bfloat16" in caplog.text
    assert not computes_bfloat16(torch.device("cpu"))


def test_deterministic_algorithms_do_not_fill_all_new_memory(older_gpu):
    with training_device("cuda", deterministic=True):
        assert torch.are_deterministic_algorithms_enabled()
        assert not torch.utils.deterministic.fill_uninitialized_memory


def test_compiled_kernels_are_kept_with_the_run_unless_the_user_has_a_place_for_them(monkeypatch, tmp_path):
    monkeypatch.setattr(os, "environ", {"TRITON_CACHE_DIR": "/mine"})
    keep_compiled(tmp_path)
    assert os.environ == {"TORCHINDUCTOR_CACHE_DIR": str(tmp_path / "inductor"), "TRITON_CACHE_DIR": "/mine"}


def test_the_folder_of_locks_is_private(tmp_path):
    (tmp_path / "locks").mkdir(mode=0o777)
    with claim(1, tmp_path / "locks"):
        assert stat.S_IMODE((tmp_path / "locks").stat().st_mode) == 0o700


def test_a_planted_link_is_not_followed(tmp_path):
    victim = tmp_path / "victim"
    victim.write_text("precious")
    (tmp_path / "link").symlink_to(tmp_path, target_is_directory=True)
    with pytest.raises(MerbaError, match="link, for the locks of GPUs, can't be used"), claim(1, tmp_path / "link"):
        pass
    (tmp_path / "locks").mkdir()
    (tmp_path / "locks" / "0.0").symlink_to(victim)
    planted = pytest.raises(MerbaError, match="0.0, a lock of a GPU, can't be used: Too many levels of symbolic links")
    with planted, claim(1, tmp_path / "locks"):
        pass
    assert victim.read_text() == "precious"


def test_another_users_folder_is_refused(tmp_path, monkeypatch):
    owner = os.getuid()
    monkeypatch.setattr(os, "getuid", lambda: owner + 1)
    with pytest.raises(MerbaError, match=f"belongs to another user \\({owner}\\); delete it, or set TMPDIR"), claim(1, tmp_path):
        pass
