"""What a checkpoint predicts from flow: the class, every class's probability, and which part of the flow decided it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from merba.joblog import counted
from merba.models.heads import Outputs, class_probabilities, predicted_class
from merba.preprocessing.flow_images import flow_images
from merba.preprocessing.packs import FlowFormat
from merba.training.checkpoint import Checkpoint, Member
from merba.training.inputs import decoded, decoded_form, face_points, mirrored_flow, mirrored_points, resized
from merba.training.loop import mean_outputs, model_outputs

WINDOW = 1 / 7
"""Side of the occluded squares as a share of the face: about an eye, or half a mouth. They overlap by half."""

Heads = tuple[Tensor, ...]


@dataclass(frozen=True, eq=False)
class Classified:
    """Of n clips: predicted classes int64 (n,), probabilities float32 (n, classes), saliency float32 (n, H, W) or None.

    Saliency is the occlusion saliency of the predicted class, see `classify`.
    """

    predicted: np.ndarray
    probabilities: np.ndarray
    saliency: np.ndarray | None


@torch.no_grad()
def classify(
    checkpoint: Checkpoint, flow: np.ndarray, points: np.ndarray, device: torch.device, *, saliency: bool = False
) -> Classified:
    """Classes of flow (n, C, H, W) with the faces' points (n, 5, 2), made with the checkpoint's faces, apex and flow.

    If training read images, the flow (u and v in px) is turned into images here, and the saliency is that of their pixels.

    An ensemble's probabilities are the means of its members', for DGCM head by head; the class follows from them by the
    model's kind of head. Members are built one at a time.

    With `saliency`, one square of the flow after the other is set to no motion. A pixel's saliency is the mean loss of the
    predicted class's log-odds over the squares that cover it: positive where the motion speaks for the class, negative
    where it speaks against it (occlusion, Zeiler & Fergus, ECCV 2014; log-odds, because a probability near 1 hardly
    changes).
    """
    if checkpoint.image:
        flow, points = flow_images(flow, points, checkpoint.image), np.full_like(points, np.nan)  # images come without points
    x = decoded(resized(flow, checkpoint.form, checkpoint.input_shape, device), checkpoint.decode)
    rest = _rest(x, decoded_form(checkpoint.form, checkpoint.decode))
    seen = face_points(points, flow.shape[2:], x.shape[2:]).to(device)
    whole: list[Heads] = []
    occluded: list[list[Heads]] = [[] for _ in x]
    squares = list(_squares(*x.shape[2:])) if saliency else []
    for member in counted(checkpoint.members, len(checkpoint.members), "members"):
        model = checkpoint.build(member).to(device)
        whole.append(_heads(checkpoint, model, member, x, seen))
        if saliency:
            for clip, still, face, heads in counted(zip(x, rest, seen, occluded, strict=True), len(x), "saliency maps"):
                copies, faces = _without(clip, still, squares), face.expand(len(squares), -1, -1)
                heads.append(_heads(checkpoint, model, member, copies, faces))
    outputs = _mean(whole)
    predicted, probabilities = predicted_class(outputs), class_probabilities(outputs)
    maps = None
    if saliency:
        chosen = zip(predicted, probabilities, occluded, strict=True)
        losses = [_log_odds(p, code) - _log_odds(class_probabilities(_mean(heads)), code) for code, p, heads in chosen]
        maps = np.stack([_covering_mean(loss, squares, *x.shape[2:]) for loss in losses])
    return Classified(predicted.cpu().numpy(), probabilities.cpu().numpy(), maps)


def _heads(checkpoint: Checkpoint, model: nn.Module, member: Member, x: Tensor, points: Tensor) -> Heads:
    """Probabilities (n, outputs) of each of the model's heads: one, or DGCM's two."""
    views = [(x, points)]
    if checkpoint.mirror_average:
        views.append((mirrored_flow(x, decoded_form(checkpoint.form, checkpoint.decode)), mirrored_points(points, x.shape[3])))
    mean, std = (x.new_tensor(values)[:, None, None] for values in (member.mean, member.std))
    arrange = getattr(model, "arrange", lambda flow, _: flow)
    outputs = mean_outputs([model_outputs(model, (arrange(*view) - mean) / std) for view in views])
    return tuple(head.softmax(1) for head in ((outputs,) if isinstance(outputs, Tensor) else outputs))


def _mean(members: Iterable[Heads]) -> Outputs:
    """The members' mean probabilities, as a model's outputs: their logarithms are logits of the same probabilities."""
    means = tuple(torch.stack(head).mean(0).log() for head in zip(*members, strict=True))
    return means[0] if len(means) == 1 else means


def _squares(height: int, width: int) -> Iterator[tuple[slice, slice]]:
    """Squares of side WINDOW that cover a map, half a side apart."""
    side = max(round(min(height, width) * WINDOW), 1)
    for top in range(0, height - side + 1, max(side // 2, 1)):
        for left in range(0, width - side + 1, max(side // 2, 1)):
            yield slice(top, top + side), slice(left, left + side)


def _rest(x: Tensor, form: FlowFormat) -> Tensor:
    """The value of no motion in flow x (n, C, H, W), as (n, C, 1, 1): 0, or in images the median of each u and v."""
    rest = torch.zeros_like(x[:, :, :1, :1])
    if form.unit == "image":
        for channel, name in enumerate(form.channels[: x.shape[1]]):
            if name in ("u", "v"):
                rest[:, channel, 0, 0] = x[:, channel].flatten(1).median(1).values
    return rest


def _without(clip: Tensor, rest: Tensor, squares: list[tuple[slice, slice]]) -> Tensor:
    """Copies (squares, C, H, W) of a clip's flow (C, H, W), each without motion, `rest` (C, 1, 1), in one square."""
    copies = clip.repeat(len(squares), 1, 1, 1)
    for copy, (rows, columns) in zip(copies, squares, strict=True):
        copy[:, rows, columns] = rest
    return copies


def _log_odds(probabilities: Tensor, code: Tensor) -> Tensor:
    """Log-odds of the class `code` from probabilities (…, classes); finite even if one of them is 0."""
    p = probabilities[..., code]
    # The others' sum, not 1 − p, which rounding would make 0.
    others = probabilities.index_fill(-1, code, 0).sum(-1)
    tiny = torch.finfo(p.dtype).tiny
    return p.clamp_min(tiny).log() - others.clamp_min(tiny).log()


def _covering_mean(losses: Tensor, squares: list[tuple[slice, slice]], height: int, width: int) -> np.ndarray:
    """The mean loss (H, W) of the squares that cover each pixel."""
    total, count = np.zeros((2, height, width), np.float32)
    for loss, square in zip(losses.cpu().numpy(), squares, strict=True):
        total[square] += loss
        count[square] += 1
    return total / np.maximum(count, 1)
