"""Train one network on one data set: data → classifier → trainer → fit → test → report."""

from mnist_cnn.app.run import Run
from mnist_cnn.app.settings import TrainSettings
from mnist_cnn.app.start import command


@command("train", TrainSettings, Run)  # conf/train.yaml
def main(run: Run) -> float | None:
    """Run one job and return the value of its objective (None if the metric was not measured)."""
    import lightning as L
    from hydra.utils import instantiate
    from omegaconf import OmegaConf
    from torch import nn

    from hydra_sweeps import current_trial
    from mnist_cnn.app import signals
    from mnist_cnn.reporting import curves, epochs, loggers, summary
    from mnist_cnn.training import building, checkpoints, loading, pruning
    from mnist_cnn.training.classifier import Classifier
    from mnist_cnn.training.resume import ExactResume, StopAfterSteps
    from mnist_cnn.training.trainer import build_trainer

    settings, plain, trust = run.settings, run.plain, run.settings.trust
    L.seed_everything(settings.seed, verbose=False)
    steps_done, checkpoint = checkpoints.find_resume_point(run.folder)

    # data
    data = instantiate(settings.data, seed=settings.seed, augment=instantiate(settings.augment) or None)
    plain["data"] |= {"classes": data.classes, "num_classes": data.num_classes}  # which it may have found out

    # classifier
    network = building.build(plain["model"], nn.Module, trust, "model")
    data.image_size = getattr(network, "image_size", data.image_size)
    if run.init_from:
        loading.initialize_from(network, run.init_from, plain["data"])
    loss = building.build(plain["loss"], nn.Module, trust, "loss")
    optimizer, schedule = instantiate(settings.optim), instantiate(settings.scheduler) or None
    metrics = building.build_metrics(plain["metrics"], trust)
    how = {"decay_biases": settings.decay_biases, "compile": settings.compile}
    classifier = Classifier(network, loss, data.num_classes, optimizer, schedule, metrics, plain, **how)

    # trainer
    run_loggers = [instantiate(logger) for logger in settings.logger.values() if logger]
    pruner, progress = pruning.Pruning(current_trial()), epochs.Progress(run.folder, run.lr_source)
    outputs, saving = summary.LogitCollector(), checkpoints.save_epochs(run.folder, run.selects_by)
    begin = L.pytorch.callbacks.LambdaCallback(on_train_start=lambda trainer, module: run.begin())
    stop = StopAfterSteps(settings.trainer.max_steps)
    chosen = [instantiate(callback) for callback in settings.callbacks.values() if callback]
    reports = [curves.Curves(), pruner, progress, outputs]
    resume = ExactResume(run.folder, settings.seed, signals.handled(), **settings.checkpoint)
    callbacks = [begin, stop, *chosen, *reports, *saving, resume]
    trainer = build_trainer(plain["trainer"], run.folder, callbacks, run_loggers)

    # fit
    loggers.begin(run_loggers, plain["hparams"], OmegaConf.to_yaml(settings), steps_done)
    trainer.fit(classifier, data, ckpt_path=checkpoint, weights_only=True)

    # test: once, with the weights that validation chose, and not for a pruned trial
    best_epoch = checkpoints.load_best_weights(classifier, saving[0])
    if not pruner.pruned:
        trainer.test(classifier, data, verbose=False)

    # report
    results = summary.collect(trainer, classifier, progress, len(outputs.logits), best_epoch, pruner.pruned)
    summary.report(run.folder, classifier, data, outputs.logits, results, run_loggers)
    return results.get(run.objective)


if __name__ == "__main__":
    main()
