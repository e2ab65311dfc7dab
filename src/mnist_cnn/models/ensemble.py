"""Several networks, or several views of an image, as one network."""

from collections.abc import Iterable

import torch
from torch import Tensor, nn
from torch.nn import functional as F

# Shifts of the image in pixels (right, down) at which test-time augmentation looks in addition to the centre.
SHIFTS = ((0, 0), (1, 0), (-1, 0), (0, 1), (0, -1))


class Ensemble(nn.Module):
    """The mean prediction of `networks`, which take the same images and give logits of the same classes.

    Maps images (B, C, H, W) to the logarithms (B, K) of the mean of the networks' probabilities, whose
    softmax is that mean. Without `probabilities` the outputs themselves are averaged, as those of a
    regression. With `shifts` each network also sees the image moved by a pixel to each side, and all
    its predictions count equally; what comes in repeats the border.
    """

    def __init__(
        self, networks: Iterable[nn.Module], probabilities: bool = True, shifts: bool = False
    ) -> None:
        super().__init__()
        self.networks = nn.ModuleList(networks)
        self.probabilities = probabilities
        self.shifts = SHIFTS if shifts else SHIFTS[:1]

    def forward(self, images: Tensor) -> Tensor:
        outputs = torch.stack(
            [network(view).float() for view in self._views(images) for network in self.networks]
        )  # (N, B, K)
        if not self.probabilities:
            return outputs.mean(0)
        return outputs.log_softmax(2).logsumexp(0) - torch.tensor(float(len(outputs))).log()

    def _views(self, images: Tensor) -> Iterable[Tensor]:
        height, width = images.shape[-2:]
        padded = F.pad(images, (1, 1, 1, 1), mode="replicate")
        for right, down in self.shifts:
            yield padded[..., 1 - down : 1 - down + height, 1 - right : 1 - right + width].contiguous(
                memory_format=torch.channels_last
            )
