"""Read digits in the user's own images with the network of a checkpoint or of an exported file."""

from typing import TYPE_CHECKING

from mnist_cnn.entry import command, exit_on_interrupt
from mnist_cnn.imports import fast_imports

if TYPE_CHECKING:
    from omegaconf import DictConfig


@command("predict")  # conf/predict.yaml
def main(config: "DictConfig") -> None:
    """Print what the network of `ckpt` reads in `images`, and write it as a table and as pictures."""
    from mnist_cnn import commands, settings
    from mnist_cnn.inference.files import find_images

    options = commands.to_dict(config)
    settings.check(options, settings.PredictSettings)
    ckpt = commands.find_checkpoint(options["ckpt"])
    files = find_images(options["images"])

    with exit_on_interrupt(), fast_imports():
        from mnist_cnn.inference.predictor import Predictor
        from mnist_cnn.reporting import readings

        predictor = Predictor.load(ckpt)  # imports torch and Lightning, but not for a file of ONNX
    results = predictor.read(files, options["split"])
    # Raises UserError where a file could not be read, after everything is written.
    readings.report(commands.output_dir(), predictor, results, options["min_confidence"])


if __name__ == "__main__":
    main()
