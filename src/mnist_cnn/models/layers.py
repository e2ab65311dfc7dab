"""The two kits of layers that a network can be built from."""

from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor, nn
from torch.nn import functional as F

from mnist_cnn.errors import UserError
from mnist_cnn.models import handmade


@dataclass(frozen=True)
class Layers:
    """What a network is made of: two kinds of layers with parameters, two operations without."""

    conv2d: type[nn.Conv2d]
    linear: type[nn.Linear]
    relu: Callable[[Tensor], Tensor]
    max_pool2d: Callable[[Tensor, int], Tensor]


KITS = {
    "torch": Layers(nn.Conv2d, nn.Linear, F.relu, F.max_pool2d),
    "handmade": Layers(handmade.Conv2d, handmade.Linear, handmade.relu, handmade.max_pool2d),
}


def choose(name: str) -> Layers:
    """Return the kit of this name; raises `UserError` where there is none."""
    if name not in KITS:
        raise UserError(f"model.layers={name} is unknown; choose one of: {', '.join(KITS)}.")
    return KITS[name]
