"""Evaluate a checkpoint on the test images: the network is built from the file alone.

Several checkpoints, ckpt=[A,B], are evaluated as an ensemble.
"""

from mnist_cnn.app.run import Job
from mnist_cnn.app.settings import EvaluateSettings
from mnist_cnn.app.start import command


@command("evaluate", EvaluateSettings)  # conf/evaluate.yaml
def main(job: Job) -> float:
    """Evaluate `ckpt`, write its confusion matrix and per-class accuracy, and return its accuracy."""
    from hydra.utils import instantiate

    from mnist_cnn.data import ImageData, Source
    from mnist_cnn.reporting import summary
    from mnist_cnn.training import building, ensembles, loading
    from mnist_cnn.training.trainer import build_trainer

    settings = job.plain

    # classifier, from the files
    classifier = ensembles.load_ensemble(job.checkpoints, settings["shifts"], settings["trust"])
    trained = classifier.config["data"]

    # data: that of the training, or data=NAME, in the form that the network was trained on
    given = {name: value for name, value in settings["data"].items() if value is not None}
    if "source" in given:
        source = instantiate(given["source"])
    else:
        source = building.build(trained["source"], Source, settings["trust"])  # type: ignore[type-abstract]
        given["dir"] = loading.data_dir(trained, given.get("dir"))
    form = loading.image_form(trained, given, settings["other_classes"])
    needed = trained | given | form | {"val_size": 0}
    data = building.build(needed, ImageData, settings["trust"], source=source, extra=None)
    data.image_size = getattr(classifier.network, "image_size", data.image_size)

    # trainer
    trained_in = classifier.config.get("trainer", {}).get("precision", "auto")
    trainer_options = settings["trainer"] | {"precision": settings["trainer"]["precision"] or trained_in}
    outputs = summary.LogitCollector()
    trainer = build_trainer(trainer_options, job.folder, [outputs], [])

    # test
    trainer.test(classifier, data, verbose=False)

    # report
    if trainer.is_global_zero:
        summary.report_evaluation(job.folder, classifier, data, outputs.logits)
    return classifier.history[-1]["test/acc"]


if __name__ == "__main__":
    main()
