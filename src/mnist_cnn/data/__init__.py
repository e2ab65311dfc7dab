"""MNIST, from its sources to batches on the device."""

from mnist_cnn.data.datamodule import ImageData

__all__ = ["ImageData"]
