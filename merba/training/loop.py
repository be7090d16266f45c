"""Training one fold: the loop over its epochs, and the choice of one of them."""

from __future__ import annotations

import hashlib
import logging
import math
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from copy import deepcopy
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from merba.errors import MerbaError
from merba.evaluation.metrics import confusion, unweighted
from merba.joblog import counted
from merba.models.heads import Outputs, class_probabilities, classification_loss, predicted_class
from merba.protocols import Split
from merba.training.devices import computes_bfloat16
from merba.training.epoch import draw_epoch
from merba.training.inputs import FoldData
from merba.training.resume import Progress, Selection
from merba.training.settings import TrainingSettings, rate_at

log = logging.getLogger(__name__)

MOMENTUM = 0.9
"""Of SGD."""


@dataclass
class FoldResult:
    """Outcome of a training: the honest choice, the leaking oracle's, every epoch's record, and the chosen weights.

    A fitted method has no epochs to choose from, so it has no oracle.
    """

    honest: Selection
    oracle: Selection | None
    history: list[dict[str, float]]
    every_epoch: np.ndarray  # predicted classes of the test clips, int64 (epochs, n)
    weights: dict[str, Tensor]
    digest: Future[str]  # of the weights, computed by `weights_digest` while the next seed trains
    seconds: float
    chosen: dict[str, Any] = field(default_factory=dict)  # what a fitted method chose on its training subjects

    @property
    def weights_sha256(self) -> str:
        return self.digest.result()


def train_fold(
    build: Callable[[], nn.Module],
    data: FoldData,
    split: Split,
    classes: int,
    settings: TrainingSettings,
    *,
    seed: int,
    resume: Path | None = None,
) -> FoldResult:
    """Train the model of `build` on `split.train` and predict `split.test`.

    With a validation part, training stops when its UF1 has not risen for `patience` epochs after the warm-up, and the
    epoch with the best UF1 (ties: the lowest loss) is chosen; without one, the last epoch is. The test clips are
    predicted after every epoch for the record, and for the oracle (the epoch with the best accuracy on the test
    clips, which leaks), but nothing of these predictions reaches the weights, the choice or the stopping. Epochs in which the
    model says that it does not yet learn to classify (`classifies`) are never chosen.
    With `resume` the state is saved there at most once a minute, and a training that finds such a file continues from it, to the
    same result bit for bit on the CPU. Raises MerbaError when the loss is no longer finite.
    """
    started = time.perf_counter()
    device = data.inputs.device
    state = _begin(build, device, settings, seed, resume)
    step = _step(state.model, device)
    weights = _class_weights(data.labels[_rows(split.train, device)], classes, settings)

    validation = len(split.validation)
    judged = np.concatenate([split.validation, split.test])
    # A subject may have no usable clip, and not every scan backend takes an empty batch.
    test = np.empty(0, np.int64), np.empty((0, classes), np.float32)
    epochs = range(len(state.history) + 1, settings.epochs + 1)
    for epoch in counted(epochs, len(epochs), "epochs at most"):
        if validation and _stopped(state, settings):
            break
        train_loss = _train_epoch(step, data, split.train, state, weights, settings, epoch)
        model = _settled(state, data, split.train)
        outputs = predict(model, data, judged, mirror_average=settings.mirror_average) if len(judged) else None
        if len(split.test):
            test = classified(_part(outputs, slice(validation, None)))
        record = {"epoch": epoch, "rate": rate_at(epoch, settings), "train_loss": train_loss}
        if validation:
            loss, uf1 = _validate(_part(outputs, slice(validation)), data.labels[_rows(split.validation, device)], classes)
            record |= {"validation_loss": loss, "validation_uf1": uf1}
            better = state.honest is None or (uf1, -loss) > state.best()
        else:
            better = epoch == settings.epochs
        classifies = getattr(state.model, "classifies", True)
        if better and classifies:
            state.honest, state.chosen = Selection(epoch, *test), deepcopy(model.state_dict())
        right = int((test[0] == data.labels[_rows(split.test, device)].cpu().numpy()).sum())
        accuracy = right / len(split.test) if len(split.test) else math.nan
        if classifies and (state.oracle is None or accuracy > state.history[state.oracle.epoch - 1]["oracle_test_accuracy"]):
            state.oracle = Selection(epoch, *test)
        state.history.append(record | {"oracle_test_accuracy": accuracy})
        state.every_epoch.append(test[0])
    every_epoch, digest = np.stack(state.every_epoch), in_thread(weights_digest, state.chosen)
    seconds = time.perf_counter() - started
    return FoldResult(state.honest, state.oracle, state.history, every_epoch, state.chosen, digest, seconds)


def in_thread(function: Callable, *arguments: object) -> Future:
    """The result of a function that runs in a thread of its own; ask for it when it is needed."""
    executor = ThreadPoolExecutor(1)
    result = executor.submit(function, *arguments)
    executor.shutdown(wait=False)
    return result


def _stopped(state: Progress, settings: TrainingSettings) -> bool:
    """Whether the validation part has not improved for the patience, counted from the end of the warm-up."""
    if state.honest is None:
        return False
    return len(state.history) - max(state.honest.epoch, settings.warmup) >= settings.patience


def train_without_test(
    build: Callable[[], nn.Module],
    data: FoldData,
    rows: np.ndarray,
    classes: int,
    settings: TrainingSettings,
    *,
    epochs: int,
    seed: int,
) -> dict[str, Tensor]:
    """The weights after `epochs` epochs on the clips `rows`, with none held out.

    The schedule is that of `settings.epochs`, so that these are the weights that `train_fold` has after so many.
    """
    device = data.inputs.device
    state = _begin(build, device, settings, seed)
    step = _step(state.model, device)
    weights = _class_weights(data.labels[_rows(rows, device)], classes, settings)
    for epoch in counted(range(1, epochs + 1), epochs, "epochs"):
        _train_epoch(step, data, rows, state, weights, settings, epoch)
    return _settled(state, data, rows).state_dict()


def _begin(
    build: Callable[[], nn.Module], device: torch.device, settings: TrainingSettings, seed: int, resume: Path | None = None
) -> Progress:
    """A training before its first step, or where it was saved in `resume`."""
    state = _untrained(build, device, settings, seed, resume)
    return state if state.load() else _untrained(build, device, settings, seed, resume)


def _untrained(
    build: Callable[[], nn.Module], device: torch.device, settings: TrainingSettings, seed: int, resume: Path | None
) -> Progress:
    torch.manual_seed(seed)
    model = build().to(device)
    if device.type == "cuda" and all(parameter.ndim < 5 for parameter in model.parameters()):
        model = model.to(memory_format=torch.channels_last)  # a format of images, not of clips
    average = None
    if settings.weight_average:
        average = AveragedModel(model, multi_avg_fn=get_ema_multi_avg_fn(settings.weight_average), use_buffers=True)
    # Orders, flips and shifts have a generator of their own, so that they don't depend on how much dropout draws.
    return Progress(model, _optimizer(model, settings), torch.Generator().manual_seed(seed), resume, average)


def _step(model: nn.Module, device: torch.device) -> nn.Module:
    """The model as an epoch runs it. Compiling pays on a GPU; on the CPU it would cost more than a fold gains."""
    return torch.compile(model) if device.type == "cuda" else model


def _train_epoch(
    model: nn.Module,
    data: FoldData,
    rows: np.ndarray,
    state: Progress,
    weights: Tensor | None,
    settings: TrainingSettings,
    epoch: int,
) -> float:
    """One epoch on the training rows, or the rest of one that was interrupted; returns the mean loss per clip.

    Raises MerbaError when that is no longer finite.
    """
    model.train()
    if hasattr(state.model, "begin_epoch"):
        state.model.begin_epoch(epoch / settings.epochs)
    device = data.inputs.device
    state.epoch_random = state.random.get_state()
    drawn = draw_epoch(state.model, data, rows, settings, state.random)
    if state.step == 0:
        state.loss = torch.zeros((), device=device)
    for step in range(state.step, drawn.steps):
        inputs, labels = drawn.batch(data, step)
        for group in state.optimizer.param_groups:
            group["lr"] = rate_at(epoch - 1 + step / drawn.steps, settings)
        # A smaller batch, the last of an epoch, would be compiled again for its size.
        forward = model if len(inputs) == settings.batch_size else state.model
        with torch.autocast(device.type, torch.bfloat16, enabled=computes_bfloat16(device)):
            outputs = forward(inputs)
        loss = _loss(state.model, outputs, labels, weights, settings, epoch)
        state.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        state.optimizer.step()
        if state.average is not None:
            state.average.update_parameters(state.model)
        state.loss += loss.detach() * len(inputs)
        state.step = step + 1
        state.save_when_due()
    state.step = 0
    mean = float(state.loss) / drawn.clips
    if not math.isfinite(mean):
        raise MerbaError(f"the loss is {mean} in epoch {epoch}: training diverged; lower `training.rate`")
    return mean


def _loss(
    model: nn.Module, outputs: Any, labels: Tensor, weights: Tensor | None, settings: TrainingSettings, epoch: int
) -> Tensor:
    """The loss of a batch in training: the model's own, where it has a function `loss`, else that of classification."""
    loss = getattr(model, "loss", classification_loss)
    return loss(
        outputs,
        labels,
        progress=epoch / settings.epochs,
        class_weights=weights,
        label_smoothing=settings.label_smoothing,
        convex=settings.convex_loss,
    )


def _settled(state: Progress, data: FoldData, rows: np.ndarray) -> nn.Module:
    """The model that predicts. If it has a function `settle`, that gets the training clips `rows` first, in eval mode."""
    model, device = state.judged(), data.inputs.device
    if hasattr(model, "settle"):
        index = _rows(rows, device)
        with torch.no_grad(), torch.autocast(device.type, torch.bfloat16, enabled=computes_bfloat16(device)):
            model.settle(data.inputs[index], data.labels[index])
    return model


@torch.no_grad()
def predict(model: nn.Module, data: FoldData, rows: np.ndarray, *, mirror_average: bool) -> Outputs:
    """The outputs of a model, in eval mode, for the clips `rows`; with `mirror_average` their mean with the mirrored clips'."""
    index = _rows(rows, data.inputs.device)
    views = [data.inputs[index], *([data.mirrored(index)] if mirror_average else [])]
    return mean_outputs([model_outputs(model, view) for view in views])


def classified(outputs: Outputs) -> tuple[np.ndarray, np.ndarray]:
    """Predicted classes int64 (n,) and class probabilities float32 (n, k) of a model's outputs."""
    return predicted_class(outputs).cpu().numpy(), class_probabilities(outputs).float().cpu().numpy()


def _part(outputs: Outputs, rows: slice) -> Outputs:
    return outputs[rows] if isinstance(outputs, Tensor) else tuple(head[rows] for head in outputs)


def _validate(outputs: Outputs, labels: Tensor, classes: int) -> tuple[float, float]:
    """Loss and UF1 of the validation clips."""
    counts = confusion(labels.cpu().numpy(), predicted_class(outputs).cpu().numpy(), classes)
    return float(classification_loss(outputs, labels, progress=1.0)), float(unweighted(counts)[0])


def model_outputs(model: nn.Module, inputs: Tensor) -> Outputs:
    """The model's outputs for inputs (n, …), float32: logits, or DGCM's pair."""
    with torch.autocast(inputs.device.type, torch.bfloat16, enabled=computes_bfloat16(inputs.device)):
        parts = [model(part) for part in inputs.split(256)]
    if isinstance(parts[0], tuple):
        return tuple(torch.cat(head).float() for head in zip(*parts, strict=True))
    return torch.cat(parts).float()


def mean_outputs(views: Sequence[Outputs]) -> Outputs:
    """The mean, head by head, of a model's outputs for several views of the same clips."""
    if isinstance(views[0], tuple):
        return tuple(torch.stack(head).mean(0) for head in zip(*views, strict=True))
    return torch.stack(views).mean(0)


def _optimizer(model: nn.Module, settings: TrainingSettings) -> torch.optim.Optimizer:
    """AdamW, Adam, or SGD with momentum; AdamW's decay spares norms, biases, and A and D of the scan, as is usual."""
    if settings.optimizer == "adam":
        return torch.optim.Adam(model.parameters(), lr=settings.rate, weight_decay=settings.weight_decay, fused=True)
    if settings.optimizer == "sgd":
        return torch.optim.SGD(model.parameters(), lr=settings.rate, momentum=MOMENTUM, weight_decay=settings.weight_decay)
    named = list(model.named_parameters())  # frozen ones too, which get no gradients: `begin_epoch` may release them
    spared = {name for name, p in named if p.ndim < 2 or name.rpartition(".")[2] in ("A_log", "D", "dt_bias")}
    groups = [
        {"params": [p for name, p in named if name not in spared], "weight_decay": settings.weight_decay},
        {"params": [p for name, p in named if name in spared], "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(groups, lr=settings.rate, fused=True)


def _class_weights(labels: Tensor, classes: int, settings: TrainingSettings) -> Tensor | None:
    """Weights float32 (classes,), inverse to frequency with mean 1 over clips; 0 for a class without clips."""
    counts = class_counts(labels, classes)
    if settings.class_weights == "none":
        return None
    return torch.where(counts > 0, counts.sum() / ((counts > 0).sum() * counts.clamp_min(1)), 0.0)


def class_counts(labels: Tensor, classes: int) -> Tensor:
    """Clips of each class, float32 (classes,); logs a warning about classes without any."""
    counts = torch.bincount(labels, minlength=classes).float()
    if missing := int((counts == 0).sum()):
        log.warning("%d of %d classes have no training clip in this fold and will hardly be predicted", missing, classes)
    return counts


def _rows(rows: np.ndarray, device: torch.device) -> Tensor:
    return torch.from_numpy(rows).to(device)


def weights_digest(weights: dict[str, Tensor]) -> str:
    """SHA-256 over names and bytes of a state dict; equal weights, bit for bit, have equal digests."""
    total = hashlib.sha256()
    for name, tensor in sorted(weights.items()):
        total.update(name.encode())
        total.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy())
    return total.hexdigest()
