"""Training one fold, readable in one sitting: data, schedule, loop, choice of the epoch.

Source of every setting: the paper's experiments section, or the "decided" lines of docs/decisions.md.
"""

from __future__ import annotations

import hashlib
import logging
import math
import time
from collections.abc import Callable, Sequence
from copy import deepcopy
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from merba.errors import MerbaError
from merba.joblog import counted
from merba.metrics import confusion, unweighted
from merba.models.heads import Outputs, class_probabilities, classification_loss, predicted_class
from merba.packs import FlowFormat
from merba.progress import Progress, Selection
from merba.protocols import Split

log = logging.getLogger(__name__)

Arrange = Callable[[Tensor, Tensor], Tensor]
"""What a model wants made of flow (n, C, H, W) and faces' five points (n, 5, 2) in its pixels; `HTNet.arrange` is one."""


@dataclass(frozen=True)
class TrainingSettings:
    """How a fold is trained; each field is described in merba/schemas/config.schema.yaml."""

    epochs: int = 70
    batch_size: int = 128
    optimizer: str = "adamw"
    rate: float = 1e-4
    min_rate: float = 1e-6
    schedule: str = "cosine"
    warmup: int = 5
    cooldown: int = 10
    weight_decay: float = 0.05
    patience: int = 20
    label_smoothing: float = 0.0
    class_weights: str = "none"
    flip: bool = True
    shift: int = 0
    weight_average: float = 0.0
    mirror_average: bool = False
    shuffle: bool = True
    normalise: bool = True


@dataclass(frozen=True)
class FoldData:
    """A fold's clips on the device: inputs and mirrored inputs, float32 (n, C, H, W), and labels int64 (n,)."""

    inputs: Tensor
    mirrored: Tensor
    labels: Tensor
    mean: list[float]
    std: list[float]


@dataclass
class FoldResult:
    """Outcome of a training: the honest choice, the leaking oracle's, every epoch's record, and the chosen weights."""

    honest: Selection
    oracle: Selection
    history: list[dict[str, float]]
    every_epoch: np.ndarray  # predicted classes of the test clips, int64 (epochs, n)
    weights: dict[str, Tensor]
    weights_sha256: str
    seconds: float = field(compare=False)


def rate_at(epoch: float, settings: TrainingSettings) -> float:
    """Learning rate after `epoch` epochs (fractions too): linear warm-up, cosine decay, cool-down at the minimum."""
    low, high = settings.min_rate, settings.rate
    if settings.schedule == "constant":
        return high
    if epoch < settings.warmup:
        return low + (high - low) * epoch / settings.warmup
    decay = max(settings.epochs - settings.warmup - settings.cooldown, 1)
    progress = min((epoch - settings.warmup) / decay, 1.0)
    return low + (high - low) * (1 + math.cos(math.pi * progress)) / 2


def prepare(
    flow: np.ndarray,
    labels: np.ndarray,
    train: np.ndarray,
    form: FlowFormat,
    *,
    shape: tuple[int, int, int],
    normalise: bool,
    device: torch.device,
    arrange: Arrange | None = None,
    points: np.ndarray | None = None,
) -> FoldData:
    """Inputs of a fold from packed flow (n, C, H, W): resized to the model's `shape` (C, H, W), and normalised.

    Mean and standard deviation come from the rows `train` alone. A model that has a function `arrange` gets what that
    makes of the flow and of the faces' `points` (n, 5, 2) in px of `flow` (see `merba.packs.ClipFlow`).
    """
    x = resized(flow, form, shape, device)
    channels = shape[0]
    mirrored = mirrored_flow(x, form)
    if arrange is not None:
        seen = resized_points(points, flow.shape[2:], shape[1:]).to(device)
        x, mirrored = arrange(x, seen), arrange(mirrored, mirrored_points(seen, shape[2]))
    mean, std = torch.zeros(channels, device=device), torch.ones(channels, device=device)
    if normalise:
        part = x[torch.from_numpy(train).to(device)]
        mean, std = part.mean((0, 2, 3)), part.std((0, 2, 3), unbiased=False).clamp_min(1e-6)
    shift, scale = mean[:, None, None], std[:, None, None]
    return FoldData(
        (x - shift) / scale,
        (mirrored - shift) / scale,
        torch.from_numpy(labels.astype(np.int64)).to(device),
        mean.tolist(),
        std.tolist(),
    )


def resized(flow: np.ndarray, form: FlowFormat, shape: tuple[int, int, int], device: torch.device) -> Tensor:
    """The first channels of flow (n, C, H, W), float32, resized to `shape` (C, H, W); their unit stays.

    Shrinking averages areas, enlarging is bilinear. Raises MerbaError where the flow has too few channels.
    """
    channels, *size = shape
    if flow.shape[1] < channels:
        raise MerbaError(
            f"the model wants {channels} input channels, the flow has {flow.shape[1]} "
            f"({', '.join(form.channels)}); change `flow.channels` or the model's `in_channels`"
        )
    x = torch.from_numpy(np.ascontiguousarray(flow[:, :channels], dtype=np.float32)).to(device)
    if size != list(x.shape[2:]):
        shrinks = size[0] <= x.shape[2] and size[1] <= x.shape[3]
        x = F.interpolate(x, size, mode="area") if shrinks else F.interpolate(x, size, mode="bilinear")
    return x


def mirrored_flow(x: Tensor, form: FlowFormat) -> Tensor:
    """The first channels of flow (n, C, H, W), as the mirrored faces would have had them: u changes its sign."""
    factor, offset = (torch.from_numpy(part[: x.shape[1]]).to(x.device) for part in form.mirror())
    return x.flip(-1) * factor + offset


def resized_points(points: np.ndarray, old: Sequence[int], new: Sequence[int]) -> Tensor:
    """Points (…, x and y), float32, in px of a map of size `old` (H, W), as they lie in one resized to `new`."""
    factor = torch.tensor([new[1] / old[1], new[0] / old[0]])
    return (torch.from_numpy(np.float32(points)) + 0.5) * factor - 0.5  # pixel centres lie at whole numbers


def mirrored_points(points: Tensor, width: int) -> Tensor:
    """The five points (n, 5, 2) of faces in mirrored maps: eyes and mouth corners change sides."""
    x, y = points[:, [1, 0, 2, 4, 3]].unbind(-1)
    return torch.stack([width - 1 - x, y], -1)


def shifted(x: Tensor, by: Tensor) -> Tensor:
    """Inputs x (n, C, H, W), each moved up and left by its row of `by`, int64 (n, 2); edge pixels fill what comes in."""
    n, _, height, width = x.shape
    rows = (torch.arange(height, device=x.device) + by[:, :1]).clamp(0, height - 1)
    columns = (torch.arange(width, device=x.device) + by[:, 1:]).clamp(0, width - 1)
    clips = torch.arange(n, device=x.device)
    # Indices on both sides of the channels put these last.
    return x[clips[:, None, None], :, rows[:, :, None], columns[:, None, :]].permute(0, 3, 1, 2)


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
    clips, which leaks), but nothing that they say reaches the weights, the choice or the stopping.
    With `resume` the state is saved there about once a minute, and a training that finds such a file goes on from it, to
    the same result bit for bit on the CPU. Raises MerbaError when the loss is no longer finite.
    """
    started = time.perf_counter()
    device = data.inputs.device
    state = _begin(build, device, settings, seed, resume)
    step = _step(state.model, device)
    weights = _class_weights(data.labels[_rows(split.train, device)], classes, settings)

    # A subject may have no usable clip, and not every scan backend takes an empty batch.
    nothing = np.empty(0, np.int64), np.empty((0, classes), np.float32)
    epochs = range(len(state.history) + 1, settings.epochs + 1)
    for epoch in counted(epochs, len(epochs), "epochs at most"):
        if state.stopped(settings, validates=len(split.validation) > 0):
            break
        train_loss = _train_epoch(step, data, split.train, state, weights, settings, epoch)
        model = state.judged()
        test = predict(model, data, split.test, settings) if len(split.test) else nothing
        record = {"epoch": epoch, "rate": rate_at(epoch, settings), "train_loss": train_loss}
        if len(split.validation):
            loss, uf1 = _validate(model, data, split.validation, classes, settings)
            record |= {"validation_loss": loss, "validation_uf1": uf1}
            better = state.honest is None or (uf1, -loss) > state.best()
        else:
            better = epoch == settings.epochs
        if better:
            state.honest, state.chosen = Selection(epoch, *test), deepcopy(model.state_dict())
        right = int((test[0] == data.labels[_rows(split.test, device)].cpu().numpy()).sum())
        accuracy = right / len(split.test) if len(split.test) else math.nan
        if state.oracle is None or accuracy > max(row["oracle_test_accuracy"] for row in state.history):
            state.oracle = Selection(epoch, *test)
        state.history.append(record | {"oracle_test_accuracy": accuracy})
        state.every_epoch.append(test[0])
    return FoldResult(
        state.honest,
        state.oracle,
        state.history,
        np.stack(state.every_epoch),
        state.chosen,
        digest(state.chosen),
        time.perf_counter() - started,
    )


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
    return state.judged().state_dict()


def _begin(
    build: Callable[[], nn.Module], device: torch.device, settings: TrainingSettings, seed: int, resume: Path | None = None
) -> Progress:
    """A training before its first step, or where it was saved in `resume`."""
    torch.manual_seed(seed)
    model = build().to(device)
    if device.type == "cuda":
        model = model.to(memory_format=torch.channels_last)
    average = None
    if settings.weight_average:
        average = AveragedModel(model, multi_avg_fn=get_ema_multi_avg_fn(settings.weight_average), use_buffers=True)
    # Orders, flips and shifts have a generator of their own, so that they don't depend on how much dropout draws.
    state = Progress(model, _optimizer(model, settings), torch.Generator().manual_seed(seed), resume, average)
    state.load()
    return state


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
    """One pass over the training rows, or what an interruption left of it; the mean loss a clip.

    Raises MerbaError when that is no longer finite.
    """
    model.train()
    device = data.inputs.device
    state.epoch_random = state.random.get_state()
    order = torch.from_numpy(rows)
    if settings.shuffle:
        order = order[torch.randperm(len(order), generator=state.random)]
    flips = torch.rand(len(order), generator=state.random) < (0.5 if settings.flip else 0.0)
    order, flips = order.to(device), flips.to(device)
    if settings.shift:
        shifts = torch.randint(-settings.shift, settings.shift + 1, (len(order), 2), generator=state.random).to(device)
    steps = math.ceil(len(order) / settings.batch_size)
    if state.step == 0:
        state.loss = torch.zeros((), device=device)
    for step in range(state.step, steps):
        batch = slice(step * settings.batch_size, (step + 1) * settings.batch_size)
        index, flip = order[batch], flips[batch, None, None, None]
        inputs = torch.where(flip, data.mirrored[index], data.inputs[index]) if settings.flip else data.inputs[index]
        if settings.shift:
            inputs = shifted(inputs, shifts[batch])
        for group in state.optimizer.param_groups:
            group["lr"] = rate_at(epoch - 1 + step / steps, settings)
        with torch.autocast(device.type, torch.bfloat16, enabled=device.type == "cuda"):
            outputs = model(inputs)
        loss = classification_loss(
            outputs,
            data.labels[index],
            progress=epoch / settings.epochs,
            class_weights=weights,
            label_smoothing=settings.label_smoothing,
        )
        state.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        state.optimizer.step()
        if state.average is not None:
            state.average.update_parameters(state.model)
        state.loss += loss.detach() * len(index)
        state.step = step + 1
        state.save_when_due()
    state.step = 0
    mean = float(state.loss) / len(order)
    if not math.isfinite(mean):
        raise MerbaError(f"the loss is {mean} in epoch {epoch}: training diverged; lower `training.rate`")
    return mean


@torch.no_grad()
def predict(model: nn.Module, data: FoldData, rows: np.ndarray, settings: TrainingSettings) -> tuple[np.ndarray, np.ndarray]:
    """Predicted classes int64 (n,) and class probabilities float32 (n, k) of `rows`; the model must be in eval mode."""
    outputs = _outputs(model, data, _rows(rows, data.inputs.device), settings)
    return predicted_class(outputs).cpu().numpy(), class_probabilities(outputs).float().cpu().numpy()


@torch.no_grad()
def _validate(
    model: nn.Module, data: FoldData, rows: np.ndarray, classes: int, settings: TrainingSettings
) -> tuple[float, float]:
    index = _rows(rows, data.inputs.device)
    outputs, labels = _outputs(model, data, index, settings), data.labels[index]
    counts = confusion(labels.cpu().numpy(), predicted_class(outputs).cpu().numpy(), classes)
    return float(classification_loss(outputs, labels, progress=1.0)), float(unweighted(counts)[0])


def _outputs(model: nn.Module, data: FoldData, index: Tensor, settings: TrainingSettings) -> Outputs:
    views = [data.inputs, data.mirrored] if settings.mirror_average else [data.inputs]
    return mean_outputs([model_outputs(model, view[index]) for view in views])


def model_outputs(model: nn.Module, inputs: Tensor) -> Outputs:
    """What the model says of inputs (n, C, H, W), float32: logits, or DGCM's pair."""
    with torch.autocast(inputs.device.type, torch.bfloat16, enabled=inputs.device.type == "cuda"):
        parts = [model(part) for part in inputs.split(256)]
    if isinstance(parts[0], tuple):
        return tuple(torch.cat(head).float() for head in zip(*parts, strict=True))
    return torch.cat(parts).float()


def mean_outputs(views: Sequence[Outputs]) -> Outputs:
    """The mean, head by head, of what a model says of several views of the same clips."""
    if isinstance(views[0], tuple):
        return tuple(torch.stack(head).mean(0) for head in zip(*views, strict=True))
    return torch.stack(views).mean(0)


def _optimizer(model: nn.Module, settings: TrainingSettings) -> torch.optim.Optimizer:
    """AdamW or Adam; AdamW's decay spares norms, biases and the scan's A and D, as is usual for such networks."""
    if settings.optimizer == "adam":
        return torch.optim.Adam(model.parameters(), lr=settings.rate, weight_decay=settings.weight_decay, fused=True)
    named = [(name, p) for name, p in model.named_parameters() if p.requires_grad]
    spared = {name for name, p in named if p.ndim < 2 or name.rpartition(".")[2] in ("A_log", "D", "dt_bias")}
    groups = [
        {"params": [p for name, p in named if name not in spared], "weight_decay": settings.weight_decay},
        {"params": [p for name, p in named if name in spared], "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(groups, lr=settings.rate, fused=True)


def _class_weights(labels: Tensor, classes: int, settings: TrainingSettings) -> Tensor | None:
    """Weights float32 (classes,), inverse to frequency with mean 1 over clips; 0 for a class without clips."""
    counts = torch.bincount(labels, minlength=classes).float()
    if missing := int((counts == 0).sum()):
        log.warning("%d of %d classes have no training clip in this fold and will hardly be predicted", missing, classes)
    if settings.class_weights == "none":
        return None
    return torch.where(counts > 0, counts.sum() / ((counts > 0).sum() * counts.clamp_min(1)), 0.0)


def _rows(rows: np.ndarray, device: torch.device) -> Tensor:
    return torch.from_numpy(rows).to(device)


def digest(weights: dict[str, Tensor]) -> str:
    """SHA-256 over names and bytes of a state dict; equal weights, bit for bit, have equal digests."""
    total = hashlib.sha256()
    for name, tensor in sorted(weights.items()):
        total.update(name.encode())
        total.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().tobytes())
    return total.hexdigest()
