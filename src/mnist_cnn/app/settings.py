"""Types and bounds of the settings, checked before anything slow is imported or started."""

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import Field, model_validator
from pydantic_core import PydanticCustomError
from typing_extensions import Self

from mnist_cnn.schema import Count, CountOrZero, Fraction, ImageSize, NotNegative, Positive, Section

Momentum = Annotated[float, Field(ge=0, lt=1)]
Limit = CountOrZero | Fraction  # a number of batches, or a fraction of them
TrainLimit = Count | Annotated[float, Field(gt=0, le=1)]

Devices = int | str | list[int]

Mode = Literal["min", "max"]

# Of every split, whatever conf/metrics adds, and which of their values is the best.
BASIC_METRICS: Mapping[str, Mode] = {"loss": "min", "acc": "max"}

# Lightning's callbacks that would have no effect on the result, a wrong one or none at all, and what has.
REFUSED_CALLBACKS = {
    "BackboneFinetuning": "start from trained weights with init_from=PATH; a class of your own that inherits "
    "BaseFinetuning can freeze layers",
    "BaseFinetuning": "name a class of your own that inherits it",
    "BasePredictionWriter": "predict.py writes predictions",
    "BatchSizeFinder": "try batch sizes in a sweep, -m data.batch_size=64,128,256",
    "Callback": "name a class of your own that inherits it",
    "Checkpoint": "name a class of your own that inherits it",
    "EMAWeightAveraging": "callbacks=ema averages the weights from the first step",
    "GradientAccumulationScheduler": "set trainer.accumulate_grad_batches, which schedules take into account",
    "LearningRateFinder": "try learning rates in a sweep, -m optim.lr=0.1,0.03,0.01",
    "LearningRateMonitor": "train/lr is logged without it",
    "ModelPruning": "a resumed run would lose its masks; prune a trained network with torch.nn.utils.prune",
    "OnExceptionCheckpoint": "checkpoint.every_n_steps and checkpoint.every_n_minutes save within an epoch",
    "ProgressBar": "name TQDMProgressBar or RichProgressBar",
    "SpikeDetection": "a run ends if its loss is not finite; trainer.gradient_clip_val=1 limits its steps",
    "StochasticWeightAveraging": "callbacks=ema averages the weights, and so does WeightAveraging",
    "ThroughputMonitor": "images per second are measured without it",
}


class _Objective(Section):
    metric: str
    mode: Mode | None


class _Data(Section):
    dir: str
    batch_size: Count
    val_size: Limit
    num_classes: Count | None
    std: Positive | list[Positive]
    image_size: ImageSize = 28


class _Optim(Section):
    lr: Positive
    momentum: Momentum | None = None
    betas: list[Momentum] | None = None
    alpha: Momentum | None = None
    weight_decay: NotNegative | None = None
    fused: bool | None = None


class _Scheduler(Section):
    monitor: str | None = None
    mode: Mode | None = "min"
    max_lr: Positive | None = None
    pct_start: Fraction | None = None
    T_max: Count | Literal["auto"] | None = None
    step_size: Count | None = None
    gamma: Positive | None = None
    patience: CountOrZero | None = None


class _Trainer(Section):
    max_epochs: Count
    accelerator: str
    devices: Devices
    precision: str | int
    num_nodes: Count | None = None
    rank_timeout: Positive | None = None
    max_steps: Count | None = None
    min_epochs: CountOrZero | None = None
    min_steps: CountOrZero | None = None
    max_time: str | dict[str, int] | None = None
    fast_dev_run: bool | Count | None = None
    overfit_batches: TrainLimit | None = None
    limit_train_batches: TrainLimit | None = None
    limit_val_batches: Limit | None = None
    limit_test_batches: Limit | None = None
    accumulate_grad_batches: Count | None = None
    gradient_clip_val: NotNegative | None = None
    gradient_clip_algorithm: Literal["norm", "value"] | None = None
    val_check_interval: TrainLimit | None = None
    check_val_every_n_epoch: Count | None = None
    deterministic: bool | Literal["warn"] | None = None
    benchmark: bool | None = None
    sync_batchnorm: bool | None = None
    detect_anomaly: bool | None = None
    profiler: str | None = None


class _Checkpoint(Section):
    every_n_steps: Count | None = None
    every_n_minutes: Positive | None = None


class _Sweep(Section):
    resume: str | None
    fail_fast: bool


class TrainSettings(Section):
    """The settings of train.py that are checked before it starts."""

    seed: Annotated[int, Field(ge=0, lt=2**32)]
    objective: _Objective
    trust: list[str] = Field(default_factory=list)
    sweep: _Sweep
    data: _Data
    augment: dict[str, Any]
    model: dict[str, Any]
    loss: dict[str, Any]
    optim: _Optim
    scheduler: _Scheduler
    decay_biases: bool = True
    compile: Literal["default", "reduce-overhead", "max-autotune"] | None = None
    checkpoint: _Checkpoint = _Checkpoint()
    metrics: dict[str, dict[str, Any]]
    callbacks: dict[str, dict[str, Any] | None]
    logger: dict[str, Any] | None
    trainer: _Trainer

    @model_validator(mode="after")
    def _settings_have_an_effect(self) -> Self:
        size = self.model.get("image_size", self.data.image_size)
        if self.data.image_size not in (size, _Data.model_fields["image_size"].default):
            raise PydanticCustomError(
                "two_sizes",
                f"data.image_size={self.data.image_size} has no effect, since model.image_size={size}: set "
                f"model.image_size={self.data.image_size}.",
            )
        if self.loss.get("reduction", "mean") != "mean":
            raise PydanticCustomError(
                "no_mean",
                f"loss.reduction={self.loss['reduction']}: the loss should be the mean over a batch. Leave "
                "it out, and set optim.lr.",
            )
        return self

    @model_validator(mode="after")
    def _callbacks_have_an_effect(self) -> Self:
        for name, callback in self.callbacks.items():
            package, _, kind = str((callback or {}).get("_target_")).rpartition(".")
            if package.startswith("lightning.pytorch.callbacks") and kind in REFUSED_CALLBACKS:
                raise PydanticCustomError(
                    "refused_callback",
                    f"callbacks.{name}: {kind} cannot be used in train.py: {REFUSED_CALLBACKS[kind]}.",
                )
        return self

    @model_validator(mode="after")
    def _monitored_metrics_exist(self) -> Self:
        self._check_monitored("objective", "metric", self.objective.metric, self.objective.mode)
        if self.scheduler.monitor is not None:
            self._check_monitored("scheduler", "monitor", self.scheduler.monitor, self.scheduler.mode)
        for name, callback in self.callbacks.items():
            metric = callback and callback.get("monitor")
            if callback and isinstance(metric, str):
                # The default of Lightning's callbacks; one of another package may have no mode.
                is_lightning = str(callback.get("_target_")).startswith("lightning.")
                mode = callback.get("mode", "min" if is_lightning else direction(metric, self.metrics))
                self._check_end_of_epoch(name, callback, metric)
                self._check_monitored(f"callbacks.{name}", "monitor", metric, mode)
        return self

    def _check_end_of_epoch(self, name: str, callback: Mapping[str, Any], metric: str) -> None:
        """Raise an error if early stopping would look at a training metric before the epoch has ended."""
        interval, every = self.trainer.val_check_interval, self.trainer.check_val_every_n_epoch
        looks_at_the_end = callback.get("check_on_train_epoch_end") or (
            interval in (None, 1.0) and every in (None, 1)
        )
        is_early_stopping = str(callback.get("_target_")).endswith(".EarlyStopping")
        if is_early_stopping and metric.startswith("train/") and not looks_at_the_end:
            raise PydanticCustomError(
                "check_too_early",
                f"callbacks.{name}.monitor={metric} is measured at the end of an epoch, but would be "
                f"looked at after a validation: add +callbacks.{name}.check_on_train_epoch_end=true.",
            )

    def _check_monitored(self, owner: str, key: str, metric: str, mode: object) -> None:
        """Raise an error unless a run measures `metric`, and it is best if it is what `mode` says."""
        split, _, name = metric.partition("/")
        known = [*BASIC_METRICS, *self.metrics]
        is_own = owner != "objective" and split not in ("train", "val", "test")  # logged by a callback
        if not is_own and (split not in ("train", "val") or name not in known):
            raise PydanticCustomError(
                "unknown_metric",
                f"{owner}.{key}={metric}: it should be val/ or train/ and one of {', '.join(known)}. The "
                "test images are for the final result alone.",
            )
        limits = {
            "data.val_size": self.data.val_size,
            "trainer.limit_val_batches": self.trainer.limit_val_batches,
        }
        for setting, value in limits.items():
            if split == "val" and value == 0 and owner != "objective":  # then the last epoch is the result
                raise PydanticCustomError(
                    "no_validation",
                    f"{setting}=0 leaves no validation images, but {owner}.{key}={metric} needs them: "
                    f"keep some, or set {owner}.{key}=train/{name}.",
                )
        best = direction(metric, self.metrics)
        if mode is None and best is None:
            raise PydanticCustomError(
                "no_mode",
                f"{owner}.{key}={metric}: the metric does not say whether more is better. Add "
                f"{owner}.mode=max or {owner}.mode=min.",
            )
        if best is not None and mode != best:
            raise PydanticCustomError(
                "wrong_mode",
                f"{owner}.{key}={metric} with {owner}.mode={mode} would prefer the worst epoch: set "
                f"{owner}.mode={best}.",
            )

    @model_validator(mode="after")
    def _metrics_have_names_of_their_own(self) -> Self:
        for name in BASIC_METRICS.keys() & self.metrics.keys():
            raise PydanticCustomError(
                "two_metrics", f"metrics.{name}: {name} is measured in any case. Choose another name."
            )
        return self

    @model_validator(mode="after")
    def _limits_do_not_contradict(self) -> Self:
        for name in ("min_epochs", "min_steps"):
            if self.trainer.max_steps is not None and getattr(self.trainer, name) is not None:
                raise PydanticCustomError(
                    "two_ends",
                    f"trainer.max_steps={self.trainer.max_steps} and trainer.{name} contradict each other: "
                    "leave one of them out.",
                )
        if self.trainer.overfit_batches is not None:
            for name in ("limit_train_batches", "limit_val_batches"):
                if getattr(self.trainer, name) is not None:
                    raise PydanticCustomError(
                        "two_limits",
                        f"trainer.overfit_batches={self.trainer.overfit_batches} also limits the batches of "
                        f"training and validation: leave out trainer.{name}.",
                    )
        return self

    @model_validator(mode="after")
    def _settings_have_a_class(self) -> Self:
        options = {"augment": self.augment, "scheduler": self.scheduler.model_dump(exclude_unset=True)}
        for group, option in options.items():
            if option and "_target_" not in option:
                raise PydanticCustomError(
                    "no_target", f"{group} has settings but no _target_: choose an option, {group}=NAME."
                )
        lists: dict[str, dict[str, Any]]
        lists = {"callbacks": self.callbacks, "metrics": self.metrics, "logger": self.logger or {}}
        for group, parts in lists.items():
            chosen = [name for name, part in parts.items() if part and "_target_" in part]
            for name, part in parts.items():
                if part and "_target_" not in part:
                    raise PydanticCustomError(
                        "no_target",
                        f"{group}.{name} has settings but no _target_: choose it, too, as in "
                        f"{group}=[{','.join([*chosen, name])}].",
                    )
        optim = self.optim.model_dump()
        if "_target_" in optim and not optim.get("_partial_"):
            raise PydanticCustomError(
                "no_partial", "optim: add the line _partial_: true to the YAML file of the optimizer."
            )
        return self


class _DataFolder(Section):
    dir: str | None


class _EvaluateTrainer(Section):
    accelerator: str
    devices: Devices
    precision: str | int | None
    rank_timeout: Positive | None = None
    limit_test_batches: TrainLimit | None = None


class EvaluateSettings(Section):
    """The settings of evaluate.py that are checked before it starts."""

    ckpt: str | Annotated[list[str], Field(min_length=1)] | None
    shifts: bool
    other_classes: bool
    data: _DataFolder
    trainer: _EvaluateTrainer


class PredictSettings(Section):
    """The settings of predict.py that are checked before it starts."""

    ckpt: str | None
    images: str | None
    split: bool
    min_confidence: Fraction
    draw_all: bool


class ExportSettings(Section):
    """The settings of export.py that are checked before it starts."""

    ckpt: str | Annotated[list[str], Field(min_length=1)] | None
    format: Literal["onnx", "torch_export", "safetensors", "html"]
    out: str | None
    data: _DataFolder

    @model_validator(mode="after")
    def _only_a_page_holds_several_networks(self) -> Self:
        if isinstance(self.ckpt, list) and self.format != "html":
            raise PydanticCustomError(
                "several_networks",
                f"ckpt=[{','.join(self.ckpt)}]: format={self.format} takes one checkpoint; format=html takes "
                "several.",
            )
        return self


def direction(metric: str, metrics: Mapping[str, Any]) -> Mode | None:
    """Return which value of a metric, such as val/loss, is the best; None if the metric does not say.

    `metrics` are the settings of those in addition to loss and accuracy, which are built to ask them.
    """
    name = metric.partition("/")[2]
    if name in BASIC_METRICS or not metrics.get(name):
        return BASIC_METRICS.get(name)
    from torchmetrics import Metric

    from mnist_cnn.training.building import build

    metric_object = build(metrics[name], Metric, (), f"metrics.{name}")  # type: ignore[type-abstract]
    higher = metric_object.higher_is_better
    return None if higher is None else "max" if higher else "min"


def has_validation(settings: Mapping[str, Any]) -> bool:
    """Return whether a run with these settings measures its metrics on validation images."""
    return bool(settings["data"]["val_size"] > 0) and settings["trainer"]["limit_val_batches"] != 0
