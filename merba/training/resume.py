"""The state of a training between two steps, from which an interrupted fold continues."""

from __future__ import annotations

import logging
import pickle
import time
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel

from merba.files import atomic

log = logging.getLogger(__name__)

SAVE_SECONDS = 45.0
"""Between two saves of a training's progress, a little under the minute that an interruption may cost."""
SAVE_SHARE = 0.02
"""At most this share of the time goes into saving; large models are saved less often for it."""


UNUSABLE = (OSError, EOFError, RuntimeError, ValueError, KeyError, TypeError, AttributeError, pickle.UnpicklingError)
"""Errors that mean: a file is not a complete state, or is one with other parts."""


@dataclass
class Selection:
    """The choice of one selection rule: the epoch (from 1), the test clips' predicted classes (n,) and probabilities (n, k)."""

    epoch: int
    predicted: np.ndarray
    probabilities: np.ndarray


@dataclass
class Progress:
    """Everything that the next step depends on, and the results of the epochs so far."""

    model: nn.Module
    optimizer: torch.optim.Optimizer
    random: torch.Generator
    file: Path | None = None  # where it is saved; None: nowhere
    average: AveragedModel | None = None  # of the weights after every step, if they are averaged
    step: int = 0  # steps done of the current epoch
    loss: Tensor | None = None  # their summed loss
    epoch_random: Tensor | None = None  # the generator's state before that epoch drew its order and flips
    saved: float = field(default_factory=time.monotonic)
    save_cost: float = 0.0  # seconds that the last save took
    honest: Selection | None = None
    oracle: Selection | None = None
    chosen: dict[str, Tensor] = field(default_factory=dict)
    history: list[dict[str, float]] = field(default_factory=list)
    every_epoch: list[np.ndarray] = field(default_factory=list)

    def judged(self) -> nn.Module:
        """The model that predicts, in eval mode; if weights are averaged, the model with the averaged ones."""
        return (self.model if self.average is None else self.average.module).eval()

    def best(self) -> tuple[float, float]:
        """Validation UF1 and negated validation loss of the chosen epoch; larger is better."""
        row = self.history[self.honest.epoch - 1]
        return row["validation_uf1"], -row["validation_loss"]

    def save_when_due(self) -> None:
        """Write the state to its file if the last save is long enough ago; a failed write changes nothing."""
        due = self.saved + max(SAVE_SECONDS, self.save_cost / SAVE_SHARE)
        if self.file is None or (started := time.monotonic()) < due:
            return
        state = {
            "model": self.model.state_dict(),
            "average": None if self.average is None else self.average.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "step": self.step,
            "loss": self.loss,
            "random": self.epoch_random,
            "torch_random": torch.get_rng_state(),
            "cuda_random": torch.cuda.get_rng_state() if torch.cuda.is_available() else None,
            "honest": _plain(self.honest),
            "oracle": _plain(self.oracle),
            "chosen": self.chosen,
            "history": self.history,
            "every_epoch": [torch.from_numpy(row) for row in self.every_epoch],
        }
        with atomic(self.file) as draft:
            torch.save(state, draft)
        self.saved = time.monotonic()
        self.save_cost = self.saved - started

    def load(self) -> bool:
        """Load the state from the file, if there is one. Returns whether this object can be trained further.

        It is False if the file is damaged or of another version: the file is then deleted, and training must start again with
        another `Progress`, because this one may hold half of the old state.
        """
        if self.file is None or not self.file.exists():
            return True
        try:
            self._take(torch.load(self.file, map_location="cpu", weights_only=True))
        except UNUSABLE as error:
            log.warning("%s: the saved training is damaged or of another version (%r); starting again", self.file, error)
            self.file.unlink()
            return False
        log.info("continuing after epoch %d and %d steps, saved in %s", len(self.history), self.step, self.file)
        return True

    def _take(self, state: dict[str, Any]) -> None:
        device = next(self.model.parameters()).device
        self.model.load_state_dict(state["model"])
        if self.average is not None:
            self.average.load_state_dict(state["average"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.step = state["step"]
        self.loss = state["loss"].to(device)
        self.random.set_state(state["random"])
        torch.set_rng_state(state["torch_random"])
        if state["cuda_random"] is not None and device.type == "cuda":
            torch.cuda.set_rng_state(state["cuda_random"])
        self.honest, self.oracle = _selection(state["honest"]), _selection(state["oracle"])
        self.chosen = {name: tensor.to(device) for name, tensor in state["chosen"].items()}
        self.history = state["history"]
        self.every_epoch = [row.numpy() for row in state["every_epoch"]]


def _plain(selection: Selection | None) -> dict | None:
    if selection is None:
        return None
    return {key: torch.from_numpy(v) if isinstance(v, np.ndarray) else v for key, v in asdict(selection).items()}


def _selection(plain: dict | None) -> Selection | None:
    if plain is None:
        return None
    return Selection(plain["epoch"], plain["predicted"].numpy(), plain["probabilities"].numpy())
