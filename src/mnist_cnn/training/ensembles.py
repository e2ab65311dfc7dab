"""Checkpoints that predict together."""

from collections.abc import Sequence
from pathlib import Path

from mnist_cnn.errors import UserError
from mnist_cnn.models.ensemble import Ensemble
from mnist_cnn.training.classifier import Classifier
from mnist_cnn.training.loading import IMAGE_FORM


def load_ensemble(paths: Sequence[Path], shifts: bool, trusted: Sequence[str] = ()) -> Classifier:
    """Build the classifier of a checkpoint, or one that averages the predictions of several.

    With `shifts` predictions on images shifted by a pixel to each side are averaged, too. The settings
    are those of the first. Raises `UserError` unless all were trained on images of the same
    form and on the same classes.
    """
    classifiers = [Classifier.load_from_checkpoint(path, trusted) for path in paths]
    first = classifiers[0]
    for path, other in zip(paths, classifiers, strict=True):
        for key in ("classes", *IMAGE_FORM):
            wanted, found = first.config["data"][key], other.config["data"][key]
            if wanted != found or _image_size(first) != _image_size(other):
                raise UserError(
                    f"{path} cannot be averaged with {paths[0]}: it was trained with other data.{key}. "
                    "The checkpoints of an ensemble take the same images and know the same classes."
                )
        if first.gives_probabilities != other.gives_probabilities:
            raise UserError(
                f"{path} cannot be averaged with {paths[0]}: of the outputs of one of them the softmax was "
                "trained, as by loss=ce, and of the other the outputs themselves, as by loss=mse."
            )
    if len(classifiers) > 1 or shifts:
        networks = [classifier.network for classifier in classifiers]
        ensemble = Ensemble(networks, first.gives_probabilities, shifts)
        ensemble.image_size = getattr(first.network, "image_size", first.config["data"]["image_size"])
        first.network = ensemble
    return first.eval()


def _image_size(classifier: Classifier) -> object:
    return getattr(classifier.network, "image_size", None)
