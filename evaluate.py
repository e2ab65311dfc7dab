"""Evaluate a checkpoint on the test images: the network is built from the file alone.

Several checkpoints, ckpt=[A,B], are evaluated as an ensemble.
"""

from typing import TYPE_CHECKING

from mnist_cnn.entry import command, exit_on_interrupt
from mnist_cnn.imports import fast_imports

if TYPE_CHECKING:
    from omegaconf import DictConfig


@command("evaluate")  # conf/evaluate.yaml
def main(config: "DictConfig") -> float:
    """Evaluate `ckpt`, write its confusion matrix and per-class accuracy, and return its accuracy."""
    from mnist_cnn import commands, settings

    options = commands.to_dict(config)
    settings.check(options, settings.EvaluateSettings)
    ckpts = commands.find_checkpoints(options["ckpt"])

    with exit_on_interrupt(), fast_imports():
        from hydra.utils import instantiate

        from mnist_cnn.data import ImageData, Source
        from mnist_cnn.reporting import summary
        from mnist_cnn.training import checkpoints
        from mnist_cnn.training.distributed import shut_down_ranks
        from mnist_cnn.training.quiet import quiet_libraries
        from mnist_cnn.training.trainer import build_trainer

    quiet_libraries()
    run_dir = commands.output_dir()

    # classifier, from the files
    classifier = checkpoints.load_ensemble(ckpts, options["shifts"])
    trained = classifier.config["data"]

    # data: that of the training, or data=NAME, in the form that the network was trained on
    given = {name: value for name, value in options["data"].items() if value is not None}
    if "source" in given:
        source = instantiate(config.data.source)
    else:
        source = checkpoints.build(trained["source"], Source)  # type: ignore[type-abstract]
        given["dir"] = checkpoints.data_dir(trained, given.get("dir"))
    form = {name: trained[name] for name in checkpoints.IMAGE_FORM}
    data = checkpoints.build(trained | given | form, ImageData, source=source)
    data.image_size = getattr(classifier.network, "image_size", data.image_size)
    checkpoints.check_classes(classifier, data.classes)

    # trainer
    trained_in = classifier.config.get("trainer", {}).get("precision", "auto")
    trainer_options = options["trainer"] | {"precision": options["trainer"]["precision"] or trained_in}
    outputs = summary.LogitCollector()
    trainer = build_trainer(trainer_options, run_dir, [outputs], [], commands.evaluate_command(config))

    with shut_down_ranks(trainer):
        # test
        trainer.test(classifier, data, verbose=False)

        # report
        if trainer.is_global_zero:
            summary.report_evaluation(run_dir, classifier, data, outputs.logits)
    return classifier.history[-1]["test/acc"]


if __name__ == "__main__":
    main()
