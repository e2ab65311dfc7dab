"""Train one network on one data set: data → classifier → trainer → fit → test → report.

`python train.py --help` lists the choices.
"""

from mnist_cnn.app.run import Run
from mnist_cnn.app.settings import TrainSettings, has_validation
from mnist_cnn.app.start import command


@command("train", TrainSettings, Run)  # conf/train.yaml
def main(run: Run) -> float | None:
    """Run one job and return the value of its objective (None if the metric was not measured)."""
    import lightning as L
    from hydra.utils import instantiate
    from lightning.pytorch.callbacks import LambdaCallback
    from omegaconf import OmegaConf

    from hydra_sweeps import current_trial
    from mnist_cnn.app.paths import find_checkpoint
    from mnist_cnn.reporting import loggers, summary
    from mnist_cnn.reporting.curves import Curves
    from mnist_cnn.reporting.epochs import Progress
    from mnist_cnn.training import checkpoints, loading
    from mnist_cnn.training.classifier import Classifier
    from mnist_cnn.training.pruning import Pruning
    from mnist_cnn.training.resume import ExactResume, StopAfterSteps
    from mnist_cnn.training.trainer import build_trainer

    settings = run.settings
    resumed = checkpoints.find_resume_point(run.folder) if run.resumes else None
    L.seed_everything(settings.seed, verbose=False)

    # data
    data = instantiate(settings.data, seed=settings.seed, augment=instantiate(settings.augment) or None)

    # classifier
    network = instantiate(settings.model)
    data.image_size = getattr(network, "image_size", data.image_size)
    if settings.init_from and resumed is None:
        loading.initialize_from(network, find_checkpoint(settings.init_from, "init_from"), data.prepare)
    metrics = {name: instantiate(metric) for name, metric in settings.metrics.items()}
    classifier = Classifier(
        network,
        loss=instantiate(settings.loss),
        num_classes=data.num_classes,
        optimizer=instantiate(settings.optim),
        schedule=instantiate(settings.scheduler) or None,
        metrics=metrics,
        decay_biases=settings.decay_biases,
        compile=settings.compile,
        config=run.plain,
    )

    # trainer
    run_loggers = [instantiate(logger) for logger in settings.logger.values() if logger]
    last = best = checkpoints.save_last(run.folder)  # without validation the last epoch is the result
    if has_validation(settings) or settings.objective.metric.startswith("train/"):
        best = checkpoints.save_best(run.folder, settings.objective.metric, settings.objective.mode)
    progress, pruning = Progress(run.folder, run.lr_source), Pruning(current_trial())
    outputs = summary.LogitCollector()
    callbacks = [
        LambdaCallback(on_train_start=lambda trainer, module: run.begin()),
        *(instantiate(callback) for callback in settings.callbacks.values() if callback),
        Curves(),
        pruning,  # stops a job that its search prunes
        progress,
        outputs,
        *dict.fromkeys([best, last]),
        ExactResume(run.checkpoints / "last.ckpt", settings.seed, run.signals, **settings.checkpoint),
    ]
    if settings.trainer.max_steps is not None:
        callbacks.insert(0, StopAfterSteps(settings.trainer.max_steps))
    trainer = build_trainer(run.plain["trainer"], run.folder, callbacks, run_loggers)

    # fit
    step = resumed.global_step if resumed else 0
    loggers.begin(run_loggers, run.plain["hparams"], OmegaConf.to_yaml(settings), step)
    trainer.fit(classifier, data, ckpt_path=resumed.path if resumed else None, weights_only=True)

    # test: once, with the weights that validation chose, and not for a pruned trial
    best_epoch = checkpoints.load_best_weights(classifier, best)
    if not pruning.pruned:
        trainer.test(classifier, data, verbose=False)

    # report
    tested = len(outputs.logits)
    results = summary.collect(trainer, classifier, progress, tested, best_epoch, pruning.pruned)
    if trainer.is_global_zero:
        summary.report(run.folder, classifier, data, outputs.logits, results, run_loggers)
    return results.get(settings.objective.metric)


if __name__ == "__main__":
    main()
