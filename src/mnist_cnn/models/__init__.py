"""Networks that map images to logits."""

from mnist_cnn.models.cnn_net import CnnNet
from mnist_cnn.models.simple_cnn import SimpleCNN

__all__ = ["CnnNet", "SimpleCNN"]
