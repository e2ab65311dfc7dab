"""Read digits in the user's own images with the network of a checkpoint or of an exported file."""

from mnist_cnn.app.run import Job
from mnist_cnn.app.settings import PredictSettings
from mnist_cnn.app.start import command, import_libraries


@command("predict", PredictSettings, libraries=())  # conf/predict.yaml
def main(job: Job) -> None:
    """Print what the network of `ckpt` reads in `images`, and write it as a table and as pictures."""
    from mnist_cnn.inference.files import find_images
    from mnist_cnn.inference.predictor import Predictor
    from mnist_cnn.reporting import readings

    settings = job.settings
    (ckpt,) = job.checkpoints
    files = find_images(settings.images)
    if ckpt.suffix == ".ckpt":  # an ONNX file needs neither torch nor Lightning
        import_libraries(["lightning", "matplotlib.figure"])
    predictor = Predictor.load(ckpt, settings.trust)
    results = predictor.read(files, settings.split)
    # Raises UserError if a file could not be read, after everything is written.
    readings.report(job.folder, predictor, results, settings.min_confidence, settings.draw_all)


if __name__ == "__main__":
    main()
