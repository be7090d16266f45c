"""STSTNet (Liong et al., FG 2019): three shallow streams over u, v and strain, as in its authors' PyTorch code.

Parameter names and shapes are the authors', so that their weight files load with `strict=True`.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from merba.models.arguments import check_positive
from merba.models.dropout import Dropout, for_cpu_kernels

SIZES: dict[str, dict] = {"ststnet": {}}


class STSTNet(nn.Module):
    """Three parallel 3×3 convolutions (3, 5, 8 filters), each ReLU, batch norm, max pooling, dropout; one linear layer.

    Input float (B, in_channels, 28, 28), raw 0..255 values in the authors' protocol; output logits (B, num_classes).
    The streams share their input and stay apart up to the linear layer, so they are computed as one with 16 filters.
    """

    def __init__(self, num_classes: int = 3, *, in_channels: int = 3, dropout: float = 0.5):
        super().__init__()
        check_positive(num_classes=num_classes, in_channels=in_channels)
        self.input_shape = (in_channels, 28, 28)
        self.conv1 = nn.Conv2d(in_channels, 3, 3, padding=2)
        self.conv2 = nn.Conv2d(in_channels, 5, 3, padding=2)
        self.conv3 = nn.Conv2d(in_channels, 8, 3, padding=2)
        self.bn1 = nn.BatchNorm2d(3)
        self.bn2 = nn.BatchNorm2d(5)
        self.bn3 = nn.BatchNorm2d(8)
        self.dropout = Dropout(dropout)
        self.fc = nn.Linear(5 * 5 * 16, num_classes)

    def forward(self, x: Tensor) -> Tensor:
        if x.shape[1:] != self.input_shape:
            raise ValueError(
                f"STSTNet takes (batch, {self.input_shape[0]}, 28, 28), not {tuple(x.shape)}: "
                "resize the flow to 28×28, or set in_channels"
            )
        convolutions, norms = (self.conv1, self.conv2, self.conv3), (self.bn1, self.bn2, self.bn3)
        weight = torch.cat([conv.weight for conv in convolutions])
        bias = torch.cat([conv.bias for conv in convolutions])
        gamma = torch.cat([norm.weight for norm in norms])
        beta = torch.cat([norm.bias for norm in norms])
        if not self.training:
            mean = torch.cat([norm.running_mean for norm in norms])
            variance = torch.cat([norm.running_var for norm in norms])
            x = F.relu(F.conv2d(x, weight, bias, padding=2))
            x = F.batch_norm(x, mean, variance, gamma, beta, eps=self.bn1.eps)
            x = F.max_pool2d(x, 3, stride=3, padding=1)
        else:
            x, mean, variance = _conv_norm_pool(x, weight, bias, gamma, beta, self.bn1.eps)
            self._track_statistics(mean, variance * (len(x) * 900 / (len(x) * 900 - 1)))
            x = self.dropout(x)
        # Average pooling by 2 and the linear layer are one linear map of the 10×10 maps.
        pooled_fc = self.fc.weight.view(-1, 16, 5, 1, 5, 1).expand(-1, -1, -1, 2, -1, 2) / 4
        return F.linear(x.flatten(1), pooled_fc.reshape(-1, 1600), self.fc.bias)

    @torch.no_grad()
    def _track_statistics(self, mean: Tensor, variance: Tensor) -> None:
        """The running statistics of batch norm, momentum 0.1; `variance` is the unbiased one."""
        norms = (self.bn1, self.bn2, self.bn3)
        for norm, m, v in zip(norms, mean.split([3, 5, 8]), variance.split([3, 5, 8]), strict=True):
            norm.running_mean.lerp_(m, norm.momentum)
            norm.running_var.lerp_(v, norm.momentum)
            norm.num_batches_tracked += 1


def _conv_norm_pool(
    x: Tensor, weight: Tensor, bias: Tensor, gamma: Tensor, beta: Tensor, eps: float
) -> tuple[Tensor, Tensor, Tensor]:
    """Convolution, ReLU, batch norm by batch statistics, max pooling; also the batch's mean and biased variance."""
    if for_cpu_kernels(x) and not x.requires_grad:
        from merba.models.cpu.ststnet import ConvNormPool

        return ConvNormPool.apply(x, weight, bias, gamma, beta, eps)
    x = F.relu(F.conv2d(x, weight, bias, padding=2))
    variance, mean = torch.var_mean(x.detach(), (0, 2, 3), correction=0)
    x = F.batch_norm(x, None, None, gamma, beta, training=True, eps=eps)
    return F.max_pool2d(x, 3, stride=3, padding=1), mean, variance
