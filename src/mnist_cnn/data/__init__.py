"""Data sets: where the files come from, and batches of images on the device."""

from mnist_cnn.data.arrays import ArrayFile
from mnist_cnn.data.cifar import CIFAR10
from mnist_cnn.data.corruptions import CorruptedMNIST
from mnist_cnn.data.datamodule import ImageData
from mnist_cnn.data.folder import ImageFolder
from mnist_cnn.data.idx import KMNIST, MNIST, FashionMNIST
from mnist_cnn.data.source import DataUnavailable, Source

__all__ = [
    "CIFAR10",
    "KMNIST",
    "MNIST",
    "ArrayFile",
    "CorruptedMNIST",
    "DataUnavailable",
    "FashionMNIST",
    "ImageData",
    "ImageFolder",
    "Source",
]
