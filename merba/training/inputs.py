"""A model's inputs: flow that is resized, mirrored, shifted, normalised, arranged; and a fold's clips ready for training."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from merba.errors import MerbaError
from merba.models.fitted import signed
from merba.preprocessing.packs import RELEASED, FlowFormat

Arrange = Callable[[Tensor, Tensor], Tensor]
"""How a model rearranges flow (n, C, H, W) and faces' five points (n, 5, 2) in its pixels; `HTNet.arrange` is one."""

CHUNK = 64
"""Clips prepared at a time, so that little memory is used besides the inputs themselves."""


@dataclass(frozen=True)
class FoldData:
    """A fold's clips on the device: inputs float32 (n, C, H, W), normalised by `mean` and `std`, and labels int64 (n,).

    Inputs of a view have time in front, (n, T, C, H, W), or are tokens (n, T, width), which can't be mirrored.
    `factor` and `offset` (C, 1, 1) turn normalised values into those after mirroring. `mirror`, of the inputs' shape, has the
    mirrored inputs of a model that arranges them, because its regions change places; it is None for others.
    """

    inputs: Tensor
    labels: Tensor
    mean: list[float]
    std: list[float]
    factor: Tensor
    offset: Tensor
    mirror: Tensor | None = None

    def mirrored(self, index: Tensor, *, plain: bool = False) -> Tensor:
        """The inputs that the mirrored faces of the clips `index` (k,) would have, float32 (k, …).

        `plain` mirrors only the image: u keeps its sign, as if a mirrored face still moved in the same direction.
        """
        if self.mirror is not None:
            x = self.mirror[index]
            return (x - self.offset) / self.factor if plain else x
        x = self.inputs[index].flip(-1)
        return x if plain else x * self.factor + self.offset


def prepare(
    flow: np.ndarray,
    labels: np.ndarray,
    train: np.ndarray,
    form: FlowFormat,
    *,
    shape: tuple[int, int, int],
    normalise: bool,
    device: torch.device,
    decode: str = "raw",
    arrange: Arrange | None = None,
    points: np.ndarray | None = None,
) -> FoldData:
    """Inputs of a fold from packed flow (n, C, H, W): resized to the model's `shape` (C, H, W), decoded, and normalised.

    Mean and standard deviation come only from the rows `train`; the mean of u is its zero, so that normalised flow and its
    mirror image differ only in sign. If the model has a function `arrange`, it is applied to the flow and the faces' `points`
    (n, 5, 2) in px of `flow` (see `merba.preprocessing.packs.ClipFlow`).
    """
    seen_form = decoded_form(form, decode)
    factor, offset = (torch.from_numpy(part[: shape[0]]).to(device) for part in seen_form.mirror())

    def seen_flow(rows: slice) -> Tensor:
        return decoded(resized(flow[rows], form, shape, device), decode)

    if arrange is None:
        x, mirror = _collected(len(flow), seen_flow), None
    else:
        seen = face_points(points, flow.shape[2:], shape[1:]).to(device)

        def arranged(rows: slice) -> Tensor:
            return arrange(seen_flow(rows), seen[rows])

        def arranged_mirror(rows: slice) -> Tensor:
            mirrored = mirrored_flow(seen_flow(rows), seen_form)
            return arrange(mirrored, mirrored_points(seen[rows], shape[2]))

        x, mirror = _collected(len(flow), arranged), _collected(len(flow), arranged_mirror)
    mean, std = torch.zeros_like(factor), torch.ones_like(factor)
    if normalise:
        mean, std = _statistics(x, torch.from_numpy(train).to(device), centre=offset / 2, centred=factor < 0)
        for part in (x, mirror):
            if part is not None:
                part.sub_(mean).div_(std)
    return FoldData(
        x,
        torch.from_numpy(labels.astype(np.int64)).to(device),
        mean.flatten().tolist(),
        std.flatten().tolist(),
        factor,
        (factor * mean + offset - mean) / std,
        mirror,
    )


def prepare_view(
    values: np.ndarray,
    labels: np.ndarray,
    train: np.ndarray,
    form: FlowFormat,
    *,
    shape: tuple[int, ...],
    normalise: bool,
    device: torch.device,
) -> FoldData:
    """Inputs of a fold from a packed view (n, T, C, H, W) or (n, T, width): as `prepare`, but the view has the model's `shape`.

    Raises MerbaError if it has another shape.
    """
    if values.shape[1:] != tuple(shape):
        raise MerbaError(f"the model takes inputs of {tuple(shape)}, its view gives {values.shape[1:]}; change one of them")
    factor, offset = (torch.from_numpy(part).to(device) for part in form.mirror())
    x = _collected(len(values), lambda rows: torch.from_numpy(np.float32(values[rows])).to(device))
    mean, std = torch.zeros_like(factor), torch.ones_like(factor)
    if normalise:
        mean, std = _statistics(x, torch.from_numpy(train).to(device), centre=offset / 2, centred=factor < 0)
        x.sub_(mean).div_(std)
    labels = torch.from_numpy(labels.astype(np.int64)).to(device)
    return FoldData(x, labels, mean.flatten().tolist(), std.flatten().tolist(), factor, (factor * mean + offset - mean) / std)


def _collected(count: int, part: Callable[[slice], Tensor]) -> Tensor:
    """The parts of `count` clips in one tensor, a few clips at a time, so that there are never two copies of it."""
    whole = None
    for start in range(0, count, CHUNK):
        rows = slice(start, start + CHUNK)
        piece = part(rows)
        if whole is None:
            whole = piece.new_empty(count, *piece.shape[1:])
        whole[rows] = piece
    return whole


def _statistics(x: Tensor, rows: Tensor, *, centre: Tensor, centred: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation (C, 1, 1) of x (n, …, C, H, W) over `rows`; the mean of `centred` channels is `centre`."""
    values = len(rows) * x[0].numel() // x.shape[-3]
    others = [axis for axis in range(x.ndim) if axis != x.ndim - 3]

    def mean_over_rows(of: Callable[[Tensor], Tensor]) -> Tensor:
        total = sum(of(x[part]).sum(others, dtype=torch.float64) for part in rows.split(CHUNK))
        return (total / values).float()[:, None, None]

    mean = torch.where(centred, centre, mean_over_rows(lambda part: part))
    variance = mean_over_rows(lambda part: (part - mean).square())
    return mean, variance.sqrt().clamp_min(1e-6)


def blank(data: FoldData) -> FoldData:
    """The data with all inputs and their mirror images 0: shows what a model learns from the labels only."""
    mirror = None if data.mirror is None else torch.zeros_like(data.mirror)
    return replace(data, inputs=torch.zeros_like(data.inputs), offset=torch.zeros_like(data.offset), mirror=mirror)


def resized(flow: np.ndarray, form: FlowFormat, shape: tuple[int, int, int], device: torch.device) -> Tensor:
    """The first channels of flow (n, C, H, W), float32, resized to `shape` (C, H, W); their unit stays.

    Shrinking averages areas, enlarging is bilinear. Raises MerbaError if the flow has too few channels.
    """
    channels, *size = shape
    if flow.shape[1] < channels:
        raise MerbaError(
            f"the model needs {channels} input channels, the flow has {flow.shape[1]} "
            f"({', '.join(form.channels)}); change `flow.channels` or the model's `in_channels`"
        )
    x = torch.from_numpy(np.ascontiguousarray(flow[:, :channels], dtype=np.float32)).to(device)
    if size != list(x.shape[2:]):
        shrinks = size[0] <= x.shape[2] and size[1] <= x.shape[3]
        x = F.interpolate(x, size, mode="area") if shrinks else F.interpolate(x, size, mode="bilinear")
    return x


def decoded_form(form: FlowFormat, decode: str) -> FlowFormat:
    """The format of flow after `decoded`. Raises MerbaError if u and v are not the first channels, which `signed` needs."""
    if decode == "raw":
        return form
    if form.channels[:2] != ("u", "v"):
        raise MerbaError(
            f"`decode: signed` needs u and v as the first channels of the flow; here they are {', '.join(form.channels)}: "
            "change `flow.channels`"
        )
    return replace(form, unit="size")


def decoded(x: Tensor, decode: str) -> Tensor:
    """Flow x (n, C, H, W) as an experiment's `decode` makes it: `raw` as it is, or `merba.models.fitted.signed`."""
    return signed(x) if decode == "signed" else x


def mirrored_flow(x: Tensor, form: FlowFormat) -> Tensor:
    """The first channels of flow (n, C, H, W) that the mirrored faces would have: u changes its sign."""
    factor, offset = (torch.from_numpy(part[: x.shape[1]]).to(x.device) for part in form.mirror())
    return x.flip(-1) * factor + offset


def face_points(points: np.ndarray, old: Sequence[int], new: Sequence[int]) -> Tensor:
    """Faces' five points (n, 5, 2), px of maps of size `old` (H, W), moved to maps resized to `new`; float32.

    Points that are NaN, because ready-made flow comes without landmarks, become those of its crop, RELEASED.
    """
    sizes = torch.tensor([[new[1], new[0]], [old[1], old[0]]], dtype=torch.float32)
    moved = (torch.from_numpy(np.float32(points)) + 0.5) * (sizes[0] / sizes[1]) - 0.5  # pixel centres are whole numbers
    return torch.where(moved.isfinite().all(-1, keepdim=True), moved, torch.tensor(RELEASED.template) * sizes[0] - 0.5)


def mirrored_points(points: Tensor, width: int) -> Tensor:
    """The five points (n, 5, 2) of faces in mirrored maps: eyes and mouth corners change sides."""
    x, y = points[:, [1, 0, 2, 4, 3]].unbind(-1)
    return torch.stack([width - 1 - x, y], -1)


def shifted(x: Tensor, by: Tensor) -> Tensor:
    """Inputs x (n, C, H, W), each moved up and left by its row of `by`, int64 (n, 2); edge pixels are repeated."""
    n, _, height, width = x.shape
    rows = (torch.arange(height, device=x.device) + by[:, :1]).clamp(0, height - 1)
    columns = (torch.arange(width, device=x.device) + by[:, 1:]).clamp(0, width - 1)
    clips = torch.arange(n, device=x.device)
    # Indices on both sides of the channels move the channels last.
    return x[clips[:, None, None], :, rows[:, :, None], columns[:, None, :]].permute(0, 3, 1, 2)
