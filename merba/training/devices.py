"""Where training runs: the CPU, or the GPU that the fewest other jobs of this machine use."""

from __future__ import annotations

import ctypes
import fcntl
import hashlib
import logging
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TextIO

import torch

from merba.errors import MerbaError

log = logging.getLogger(__name__)

_M_TRIM_THRESHOLD, _M_MMAP_MAX = -1, -4  # <malloc.h>
ELSEWHERE = "delete it, or set TMPDIR to a folder of your own"


@contextmanager
def training_device(setting: str, *, deterministic: bool = False) -> Iterator[torch.device]:
    """The device for `auto`, `cpu` or `cuda` (configuration key `device`), reserved during the block.

    On a machine with several GPUs, jobs spread over them; if there are more jobs than GPUs, they share. With
    `deterministic`, CUDA uses only algorithms that give the same bits every time. Raises MerbaError if CUDA is asked for
    and absent.
    """
    if setting == "cuda" and not torch.cuda.is_available():
        raise MerbaError("device: cuda, but PyTorch finds no CUDA GPU; set `device: auto` or see `merba doctor`")
    if setting == "cpu" or not torch.cuda.is_available():
        keep_freed_memory()
        yield torch.device("cpu")
        return
    if deterministic:
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # cuBLAS needs it
        torch.use_deterministic_algorithms(True)
        torch.utils.deterministic.fill_uninitialized_memory = False  # it would fill all new memory with NaN, to find faults
        torch.backends.cudnn.benchmark = False
    with claim(torch.cuda.device_count()) as number:
        torch.cuda.set_device(number)
        device = torch.device("cuda", number)
        if not computes_bfloat16(device):
            log.info("%s does not compute in bfloat16: float32 is used", torch.cuda.get_device_name(device))
        yield device


def computes_bfloat16(device: torch.device) -> bool:
    """Whether models run in bfloat16 on the device: only on GPUs that have it in hardware."""
    return device.type == "cuda" and torch.cuda.is_bf16_supported(including_emulation=False)


def keep_compiled(folder: Path) -> None:
    """Have PyTorch and Triton keep compiled kernels in `folder`, for the other jobs of a run and for the next run.

    Folders that the user has set by TORCHINDUCTOR_CACHE_DIR and TRITON_CACHE_DIR are used instead.
    """
    os.environ.setdefault("TORCHINDUCTOR_CACHE_DIR", str(folder.resolve() / "inductor"))
    os.environ.setdefault("TRITON_CACHE_DIR", str(folder.resolve() / "triton"))


def keep_freed_memory() -> None:
    """Ask glibc not to return freed memory to the system; other C libraries are left as they are.

    Every training step frees the large arrays that the next one needs again. As fresh pages they would be zeroed by the
    system first: 70,000 page faults per step of MERba-nano.
    """
    libc = ctypes.CDLL(None)
    if hasattr(libc, "mallopt"):
        libc.mallopt(_M_MMAP_MAX, 0)
        libc.mallopt(_M_TRIM_THRESHOLD, 2**31 - 1)


@contextmanager
def claim(devices: int, folder: Path | None = None) -> Iterator[int]:
    """The number of the least used of `devices` devices, counted by file locks in `folder`, which end with the process.

    Lock k of a device is held by its k-th job, so that every device gets its first job before any gets a second. Raises
    MerbaError if the folder is another user's, or a link.
    """
    # Devices are numbered among the visible ones: jobs that see different ones must not share locks.
    visible = hashlib.sha256(os.environ.get("CUDA_VISIBLE_DEVICES", "all").encode()).hexdigest()[:8]
    folder = folder or Path(tempfile.gettempdir()) / f"merba-gpus-{os.getuid()}-{visible}"
    private = _private(folder)
    round_ = 0
    while True:
        for number in range(devices):
            lock = _opened(folder, f"{number}.{round_}", private)
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                lock.close()
                continue
            os.close(private)
            log.info("GPU %d of %d, shared with %d other jobs", number, devices, round_)
            with lock:
                yield number
            return
        round_ += 1


def _opened(folder: Path, name: str, private: int) -> TextIO:
    try:
        return os.fdopen(os.open(name, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o600, dir_fd=private), "r+")
    except OSError as error:
        raise MerbaError(f"{folder / name}, a lock of a GPU, can't be used: {error.strerror}; {ELSEWHERE}") from error


def _private(folder: Path) -> int:
    """A descriptor of a folder that only this user can write to, created if it is missing.

    All users share the folder for temporary files: someone else may have made one of this name, or a link to our files.
    """
    with suppress(FileExistsError):
        folder.mkdir(mode=0o700, parents=True)
    try:
        descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    except OSError as error:
        raise MerbaError(f"{folder}, for the locks of GPUs, can't be used: {error.strerror}; {ELSEWHERE}") from error
    if (owner := os.fstat(descriptor).st_uid) != os.getuid():
        os.close(descriptor)
        raise MerbaError(f"{folder}, for the locks of GPUs, belongs to another user ({owner}); {ELSEWHERE}")
    os.fchmod(descriptor, 0o700)
    return descriptor
