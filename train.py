"""Train one network on one data set: data → classifier → trainer → fit → test → report.

`python train.py --help` lists the choices.
"""

from pathlib import Path

import hydra
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig, OmegaConf

from mnist_cnn import commands, settings


@hydra.main(version_base="1.3", config_path="conf", config_name="train")
@commands.job
def main(config: DictConfig) -> float | None:
    """Run one job and return its objective, the best validation accuracy (None without validation)."""
    commands.add_overrides_to_hparams(config)
    plain = commands.plain(config)
    settings.check(plain, settings.TrainSettings)  # before the imports, which take seconds

    import lightning as L
    from hydra.utils import instantiate

    from hydra_sweeps.interface import current_trial
    from mnist_cnn.reporting import summary
    from mnist_cnn.reporting.progress import Progress
    from mnist_cnn.reporting.tensorboard import RunLogger
    from mnist_cnn.training import checkpoints, distributed, noise
    from mnist_cnn.training.classifier import Classifier, Schedule
    from mnist_cnn.training.pruning import Pruning
    from mnist_cnn.training.trainer import make_trainer

    noise.silence()
    run_dir = Path(HydraConfig.get().runtime.output_dir)
    if distributed.is_first_rank():
        commands.refuse_to_overwrite(run_dir, config.resume)
        commands.save_resolved(config, run_dir)
    resumed = checkpoints.latest(run_dir) if config.resume else None

    # data
    L.seed_everything(config.seed, verbose=False)
    network = instantiate(config.model)
    data = instantiate(config.data, image_size=network.image_size, seed=config.seed)

    # classifier
    schedule = None
    if config.scheduler:
        factory = dict(config.scheduler)
        when = {name: factory.pop(name) for name in ("interval", "monitor") if name in factory}
        when["whole_run"] = factory.get("total_steps") == "auto"
        if when["whole_run"]:
            del factory["total_steps"]
        schedule = Schedule(instantiate(factory), **when)
    loss, optimizer = instantiate(config.loss), instantiate(config.optim)
    classifier = Classifier(network, loss, data.num_classes, optimizer, schedule, plain)

    # trainer
    logger = None
    if config.logger:
        logger = instantiate(config.logger, run_dir, first_epoch=resumed.epochs + 1 if resumed else 1)
    has_validation = data.val_size > 0 and config.trainer.limit_val_batches != 0
    keep = checkpoints.checkpoint_callbacks(run_dir, has_validation)
    progress, outputs = Progress(), summary.TestOutputs()
    chosen = [callback for callback in instantiate(config.callbacks).values() if callback is not None]
    pruning = Pruning(current_trial())
    callbacks = [*chosen, progress, outputs, pruning, *keep]
    command = commands.train_command(run_dir)
    trainer = make_trainer(plain["trainer"], run_dir, callbacks, logger, command)

    with distributed.cleaned_up(trainer):
        # fit
        if isinstance(logger, RunLogger):
            logger.log_settings(plain["hparams"], OmegaConf.to_yaml(config, resolve=True))
        trainer.fit(classifier, data, ckpt_path=resumed.path if resumed else None, weights_only=True)

        # test: once, with the weights that validation chose; not what a search has given up
        best_epoch = checkpoints.restore(classifier, keep[0])
        if not pruning.pruned:
            trainer.test(classifier, data, verbose=False)

        # report
        metrics = summary.collect(trainer, classifier, progress, best_epoch, pruning.pruned)
        if trainer.is_global_zero:
            summary.report(run_dir, classifier, data, outputs.logits, metrics, logger)
    return metrics.get(config.objective.metric)


if __name__ == "__main__":
    commands.run(main)
