"""Evaluate a checkpoint on the test images: the network is built from the file alone."""

import logging
from pathlib import Path

import hydra
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig

from mnist_cnn import commands, settings

log = logging.getLogger("evaluate")


@hydra.main(version_base="1.3", config_path="conf", config_name="evaluate")
@commands.job
def main(config: DictConfig) -> float:
    """Evaluate `ckpt`, write its confusion matrix and per-class accuracy, and return its accuracy."""
    plain = commands.plain(config)
    settings.check(plain, settings.EvaluateSettings)
    ckpt = commands.checkpoint_file(plain["ckpt"])

    from mnist_cnn.data import ImageData
    from mnist_cnn.reporting import summary
    from mnist_cnn.training import checkpoints, noise
    from mnist_cnn.training.trainer import make_trainer

    noise.silence()
    run_dir = Path(HydraConfig.get().runtime.output_dir)

    # classifier and data, as in training but for what is given here
    classifier = checkpoints.load_classifier(ckpt)
    trained = classifier.config
    data_settings = trained["data"] | {k: v for k, v in plain["data"].items() if v is not None}
    data = checkpoints.build(data_settings, ImageData, image_size=classifier.network.image_size)
    options = plain["trainer"] | {"devices": 1}
    options["precision"] = options["precision"] or trained["trainer"]["precision"]

    # test
    outputs = summary.LogitCollector()
    trainer = make_trainer(options, run_dir, [outputs], [], [])
    trainer.test(classifier, data, verbose=False)
    metrics = classifier.history[-1]

    summary.report_evaluation(run_dir, data, outputs.logits, metrics)
    return metrics["test/acc"]


if __name__ == "__main__":
    commands.run(main)
