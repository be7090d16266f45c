"""Classification heads and their losses: one linear layer, or DGCM for the seven-class task (paper, Section III-D).

What a model returns says which: logits (B, classes), or DGCM's pair of logits (coarse (B, 4), fine (B, 4)). The seven
classes are in the package's order: anger, contempt, disgust, fear, happiness, sadness, surprise.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from merba.models.arguments import check_positive

Outputs = Tensor | tuple[Tensor, Tensor]

COARSE = ("negative", "positive", "surprise", "others")
FINE = ("anger", "disgust", "fear", "sadness")
_NEGATIVE = COARSE.index("negative")
# Of each of the seven classes: its place among the coarse ones, and among the fine ones (0 where it has none).
_COARSE_OF_CLASS = (0, 3, 0, 0, 1, 0, 2)
_FINE_OF_CLASS = (0, 0, 1, 2, 0, 3, 0)
# And back: the class of each fine and of each coarse place ("negative" has no class of its own).
_CLASS_OF_FINE = (0, 2, 3, 5)
_CLASS_OF_COARSE = (-1, 4, 6, 1)


class DGCM(nn.Module):
    """Dual-granularity classification: two parallel linear layers on the pooled features (B, features)."""

    def __init__(self, features: int):
        super().__init__()
        self.coarse = nn.Linear(features, len(COARSE))
        self.fine = nn.Linear(features, len(FINE))

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        return self.coarse(x), self.fine(x)


def make_head(kind: str, features: int, num_classes: int) -> nn.Module:
    """`linear`: logits of num_classes classes. `dgcm`: DGCM, for the seven-class task only."""
    check_positive(num_classes=num_classes)
    if kind == "linear":
        return nn.Linear(features, num_classes)
    if kind != "dgcm":
        raise ValueError(f"unknown head {kind!r}; known: linear, dgcm")
    if num_classes != len(_COARSE_OF_CLASS):
        raise ValueError(f"head dgcm is made for 7 classes, not {num_classes}; use head linear")
    return DGCM(features)


def classification_loss(
    outputs: Outputs,
    labels: Tensor,
    *,
    progress: float = 0.0,
    class_weights: Tensor | None = None,
    label_smoothing: float = 0.0,
    convex: bool = False,
) -> Tensor:
    """Scalar training loss of logits, or of DGCM's pair, against labels (B,) int64.

    DGCM: L_coarse + λ L_fine with λ = progress, the part of the training that is over (0 to 1); `convex` gives
    (1 − λ) L_coarse + λ L_fine. L_fine is the mean over the samples whose true class is a negative one, 0 if there are
    none. class_weights (classes,) weigh each sample by its true class; means are weighted means.
    """
    if isinstance(outputs, Tensor):
        return F.cross_entropy(outputs.float(), labels, class_weights, label_smoothing=label_smoothing)
    coarse, fine = outputs
    weights = torch.ones_like(labels, dtype=torch.float32) if class_weights is None else class_weights[labels]
    coarse_labels = labels.new_tensor(_COARSE_OF_CLASS)[labels]
    fine_labels = labels.new_tensor(_FINE_OF_CLASS)[labels]

    def mean_loss(logits: Tensor, targets: Tensor, weights: Tensor) -> Tensor:
        losses = F.cross_entropy(logits.float(), targets, reduction="none", label_smoothing=label_smoothing)
        return (losses * weights).sum() / weights.sum().clamp(min=torch.finfo(weights.dtype).tiny)

    coarse_loss = mean_loss(coarse, coarse_labels, weights)
    fine_loss = mean_loss(fine, fine_labels, weights * (coarse_labels == _NEGATIVE))
    return coarse_loss * (1 - progress if convex else 1) + progress * fine_loss


def focal_loss(
    logits: Tensor,
    labels: Tensor,
    *,
    gamma: float = 2.0,
    class_weights: Tensor | None = None,
    label_smoothing: float = 0.0,
) -> Tensor:
    """Focal loss (Lin et al., ICCV 2017, Section 3.2) of logits (B, classes) against labels (B,) int64; scalar.

    Every term −q log p of the cross-entropy is multiplied by (1 − p)^γ, so that clips already classified well count less.
    class_weights (classes,) and label_smoothing are those of `F.cross_entropy`, which it equals for γ = 0.
    """
    classes = logits.shape[1]
    log_p = logits.float().log_softmax(1)
    targets = F.one_hot(labels, classes) * (1 - label_smoothing) + label_smoothing / classes
    weights = log_p.new_ones(classes) if class_weights is None else class_weights
    doubt = (-log_p.expm1()).clamp_min(torch.finfo(log_p.dtype).eps)  # not 0, where the power's slope may be infinite
    return -(weights * targets * doubt**gamma * log_p).sum() / weights[labels].sum()


def class_probabilities(outputs: Outputs) -> Tensor:
    """Probability of every class, float32 (B, classes). DGCM: the coarse ones, the negative split by the fine head."""
    if isinstance(outputs, Tensor):
        return outputs.float().softmax(1)
    coarse, fine = (logits.float().softmax(1) for logits in outputs)
    probabilities = coarse.new_zeros(len(coarse), len(_COARSE_OF_CLASS))
    probabilities[:, list(_CLASS_OF_FINE)] = coarse[:, _NEGATIVE, None] * fine
    probabilities[:, list(_CLASS_OF_COARSE[1:])] = coarse[:, 1:]
    return probabilities


def predicted_class(outputs: Outputs) -> Tensor:
    """Predicted class, int64 (B,). DGCM: the coarse class if it is not negative, else the fine one.

    For DGCM that need not be the class of the largest probability: four negative classes share one probability.
    """
    if isinstance(outputs, Tensor):
        return outputs.argmax(1)
    coarse, fine = (logits.argmax(1) for logits in outputs)
    coarse_class = coarse.new_tensor(_CLASS_OF_COARSE)[coarse]
    return torch.where(coarse == _NEGATIVE, fine.new_tensor(_CLASS_OF_FINE)[fine], coarse_class)
