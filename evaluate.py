"""Evaluate a checkpoint on the test images: the network is built from the file alone."""

from typing import TYPE_CHECKING

from mnist_cnn.entry import command, exit_on_interrupt

if TYPE_CHECKING:
    from omegaconf import DictConfig


@command("evaluate")  # conf/evaluate.yaml
def main(config: "DictConfig") -> float:
    """Evaluate `ckpt`, write its confusion matrix and per-class accuracy, and return its accuracy."""
    from mnist_cnn import commands, settings

    options = commands.to_dict(config)
    settings.check(options, settings.EvaluateSettings)
    ckpt = commands.find_checkpoint(options["ckpt"])

    with exit_on_interrupt():
        from mnist_cnn.data import ImageData
        from mnist_cnn.reporting import summary
        from mnist_cnn.training import checkpoints
        from mnist_cnn.training.quiet import quiet_libraries
        from mnist_cnn.training.trainer import build_trainer

    quiet_libraries()
    run_dir = commands.output_dir()

    # classifier and data, as in training but for what is given here
    classifier = checkpoints.load_classifier(ckpt)
    trained = classifier.config
    data_settings = trained["data"] | {k: v for k, v in options["data"].items() if v is not None}
    data = checkpoints.build(data_settings, ImageData, image_size=classifier.network.image_size)
    trainer_options = options["trainer"] | {"devices": 1}
    trainer_options["precision"] = trainer_options["precision"] or trained["trainer"]["precision"]

    # test
    outputs = summary.TestOutputs()
    trainer = build_trainer(trainer_options, run_dir, [outputs], [], [])
    trainer.test(classifier, data, verbose=False)
    metrics = classifier.history[-1]

    summary.report_evaluation(run_dir, data, outputs.logits, metrics)
    return metrics["test/acc"]


if __name__ == "__main__":
    main()
