"""Several networks, or several views of an image, as one network."""

from collections.abc import Iterable

import torch
from torch import Tensor, nn
from torch.nn import functional as F

SHIFTS = ((0, 0), (1, 0), (-1, 0), (0, 1), (0, -1))  # of the views of an image, in pixels right and down


class Ensemble(nn.Module):
    """The mean prediction of several networks that take the same images and know the same classes.

    Maps images (B, C, H, W) to the logarithms (B, K) of the mean probabilities; their softmax is the mean
    itself. With `probabilities=False`, as for a regression, the outputs are averaged. With `shifts=True`
    each network also sees the image shifted by one pixel to each side, with the border repeated. All
    predictions count equally.
    """

    def __init__(
        self, networks: Iterable[nn.Module], probabilities: bool = True, shifts: bool = False
    ) -> None:
        super().__init__()
        self.networks = nn.ModuleList(networks)
        self.probabilities = probabilities
        self.shifts = SHIFTS if shifts else SHIFTS[:1]

    def forward(self, images: Tensor) -> Tensor:
        predictions = []
        for right, down in self.shifts:
            view = shift(images, right, down)
            predictions += [network(view).float() for network in self.networks]
        outputs = torch.stack(predictions)  # (N, B, K)
        if not self.probabilities:
            return outputs.mean(0)
        count = torch.tensor(float(len(outputs)))
        return outputs.log_softmax(2).logsumexp(0) - count.log()


def shift(images: Tensor, right: int, down: int) -> Tensor:
    """Shift images (B, C, H, W) by at most one pixel in each direction; the border is repeated."""
    height, width = images.shape[-2:]
    padded = F.pad(images, (1, 1, 1, 1), mode="replicate")
    shifted = padded[..., 1 - down : 1 - down + height, 1 - right : 1 - right + width]
    return shifted.contiguous(memory_format=torch.channels_last)
