"""Train one network on one data set: data → classifier → trainer → fit → test → report.

`python train.py --help` lists the choices.
"""

from typing import TYPE_CHECKING

from mnist_cnn.entry import command, exit_on_interrupt
from mnist_cnn.imports import fast_imports

if TYPE_CHECKING:
    from omegaconf import DictConfig


@command("train")  # conf/train.yaml
def main(config: "DictConfig") -> float | None:
    """Run one job and return the value of its objective (None if the metric was not measured)."""
    from mnist_cnn import commands, settings

    commands.add_overrides_to_hparams(config)
    settings.check(commands.to_dict(config), settings.TrainSettings)  # before the imports, which take seconds

    with exit_on_interrupt(), fast_imports():
        import lightning as L
        from hydra.utils import instantiate
        from omegaconf import OmegaConf

        from hydra_sweeps.interface import current_trial
        from mnist_cnn.reporting import loggers, summary
        from mnist_cnn.reporting.curves import Curves
        from mnist_cnn.reporting.epochs import Progress
        from mnist_cnn.training import checkpoints
        from mnist_cnn.training.classifier import Classifier
        from mnist_cnn.training.distributed import shut_down_ranks
        from mnist_cnn.training.pruning import Pruning
        from mnist_cnn.training.quiet import quiet_libraries
        from mnist_cnn.training.seeding import ReseedEachEpoch
        from mnist_cnn.training.trainer import build_trainer
        from mnist_cnn.training.within_epoch import SaveWithinEpoch

    quiet_libraries()
    L.seed_everything(config.seed, verbose=False)

    # data
    data = instantiate(config.data, seed=config.seed, augment=instantiate(config.augment) or None)
    config.data.classes, config.data.num_classes = data.classes, data.num_classes  # data=folder finds them

    run_dir = commands.prepare_run_folder(config)
    options = commands.to_dict(config)
    resumed = checkpoints.find_resume_point(run_dir) if config.resume else None

    # classifier
    network = instantiate(config.model)
    data.image_size = getattr(network, "image_size", data.image_size)
    if config.init_from and resumed is None:
        checkpoints.initialize_from(network, commands.find_checkpoint(config.init_from, "init_from"))
    classifier = Classifier(
        network,
        loss=instantiate(config.loss),
        num_classes=data.num_classes,
        optimizer=instantiate(config.optim),
        schedule=instantiate(config.scheduler) if "_target_" in config.scheduler else None,
        metrics={name: instantiate(metric) for name, metric in config.metrics.items()},
        decay_biases=options.get("decay_biases", True),  # .get: resumed runs of older versions
        compile=options.get("compile"),
        config=options,
    )

    # trainer
    run_loggers = [instantiate(logger) for logger in (config.logger or {}).values() if logger]
    last = best = checkpoints.save_last(run_dir)  # without validation the last epoch is the result
    if settings.has_validation(options) or config.objective.metric.startswith("train/"):
        best = checkpoints.save_best(run_dir, config.objective.metric, config.objective.mode)
    progress = Progress(run_dir, commands.lr_source(options))
    outputs = summary.LogitCollector()
    pruning = Pruning(current_trial())  # stops a job that its search prunes
    callbacks = [
        ReseedEachEpoch(config.seed),
        *(instantiate(callback) for callback in (config.callbacks or {}).values() if callback),
        Curves(),
        pruning,
        progress,
        outputs,
        *dict.fromkeys([best, last]),
        SaveWithinEpoch(
            run_dir / "checkpoints" / "last.ckpt",
            parts={"metrics": classifier.train_metrics},
            **options.get("checkpoint", {}),
        ),
    ]
    rank_command = commands.train_command(run_dir)
    trainer = build_trainer(options["trainer"], run_dir, callbacks, run_loggers, rank_command)

    with shut_down_ranks(trainer):
        # fit
        config_yaml = OmegaConf.to_yaml(config, resolve=True)
        loggers.begin(run_loggers, options["hparams"], config_yaml, resumed.step if resumed else 0)
        trainer.fit(classifier, data, ckpt_path=resumed.path if resumed else None, weights_only=True)

        # test: once, with the weights that validation chose, and not for a pruned trial
        best_epoch = checkpoints.load_best_weights(classifier, best)
        if not pruning.pruned:
            trainer.test(classifier, data, verbose=False)

        # report
        tested = len(outputs.logits)
        metrics = summary.collect(trainer, classifier, progress, tested, best_epoch, pruning.pruned)
        if trainer.is_global_zero:
            summary.report(run_dir, classifier, data, outputs.logits, metrics, run_loggers)
    return metrics.get(config.objective.metric)


if __name__ == "__main__":
    main()
