"""The mean squared error against one-hot targets; cross-entropy is torch.nn.CrossEntropyLoss itself."""

from torch import Tensor, nn
from torch.nn import functional as F


class OneHotMSELoss(nn.Module):
    """Mean squared error of the raw outputs against the one-hot targets (tutorial, section 3.4).

    Takes outputs (B, K) and int64 targets (B,); returns the mean over batch and classes, a scalar.
    """

    def forward(self, outputs: Tensor, targets: Tensor) -> Tensor:
        one_hot = F.one_hot(targets, num_classes=outputs.shape[1])
        return F.mse_loss(outputs, one_hot.to(outputs.dtype))
