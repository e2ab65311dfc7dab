"""What the networks share: their layers, torch's own or handmade, and a check of the image size."""

from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor, nn
from torch.nn import functional as F

from mnist_cnn.errors import UserError
from mnist_cnn.models import handmade


@dataclass(frozen=True)
class LayerSet:
    """One implementation of the layers: two classes with parameters and two functions without."""

    conv2d: type[nn.Conv2d]
    linear: type[nn.Linear]
    relu: Callable[[Tensor], Tensor]
    max_pool2d: Callable[[Tensor, int], Tensor]


LAYER_SETS = {
    "torch": LayerSet(nn.Conv2d, nn.Linear, F.relu, F.max_pool2d),
    "handmade": LayerSet(handmade.Conv2d, handmade.Linear, handmade.relu, handmade.max_pool2d),
}


def get_layers(name: str) -> LayerSet:
    """Return the layer set with this name; raises `UserError` if there is none."""
    if name not in LAYER_SETS:
        raise UserError(f"model.layers={name} is unknown; choose one of: {', '.join(LAYER_SETS)}.")
    return LAYER_SETS[name]


def check_image_size(size: int, smallest: int, name: str) -> None:
    """Raise `UserError` if images of `size` x `size` pixels are too small for the network."""
    if size < smallest:
        raise UserError(
            f"model.image_size={size} is too small: the convolutions and poolings of {name} need at least "
            f"{smallest}x{smallest} pixels. Set model.image_size to {smallest} or more."
        )
