"""Types and bounds of the settings, looked at before anything slow is imported or started."""

from collections.abc import Mapping
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator
from pydantic_core import PydanticCustomError
from typing_extensions import Self

from mnist_cnn.errors import UserError

Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]
NotNegative = Annotated[float, Field(ge=0, allow_inf_nan=False)]
Fraction = Annotated[float, Field(ge=0, le=1)]
Momentum = Annotated[float, Field(ge=0, lt=1)]
Count = Annotated[int, Field(ge=1)]
CountOrZero = Annotated[int, Field(ge=0)]
Limit = Annotated[int, Field(ge=0)] | Fraction  # so many batches, or that share of them

Devices = int | str | list[int]


class _Section(BaseModel):
    # Strict: "3" is not a number. What is not named here is the business of whoever takes it.
    model_config = ConfigDict(strict=True, extra="allow")


class _Data(_Section):
    dir: str
    batch_size: Count
    val_size: CountOrZero
    std: Positive


class _Optim(_Section):
    lr: Positive
    momentum: Momentum | None = None
    betas: list[Momentum] | None = None
    alpha: Momentum | None = None
    weight_decay: NotNegative | None = None


class _Scheduler(_Section):
    monitor: str | None = None
    max_lr: Positive | None = None
    pct_start: Fraction | None = None
    T_max: Count | None = None
    step_size: Count | None = None
    gamma: Positive | None = None
    patience: CountOrZero | None = None


class _Trainer(_Section):
    max_epochs: Count
    accelerator: str
    devices: Devices
    precision: str | int
    num_nodes: Count | None = None
    max_steps: int | None = None
    min_epochs: CountOrZero | None = None
    min_steps: CountOrZero | None = None
    overfit_batches: Limit | None = None
    limit_train_batches: Limit | None = None
    limit_val_batches: Limit | None = None
    limit_test_batches: Limit | None = None
    accumulate_grad_batches: Count | None = None
    gradient_clip_val: NotNegative | None = None
    check_val_every_n_epoch: Count | None = None


class _Sweep(_Section):
    resume: str | None
    fail_fast: bool


class TrainSettings(_Section):
    """What train.py needs to know of its settings before it starts."""

    seed: Annotated[int, Field(ge=0, lt=2**32)]
    sweep: _Sweep
    data: _Data
    optim: _Optim
    scheduler: _Scheduler
    callbacks: dict[str, Any]
    trainer: _Trainer

    @model_validator(mode="after")
    def _has_what_it_watches(self) -> Self:
        watched = {"scheduler": self.scheduler.monitor}
        for name, callback in self.callbacks.items():
            watched[f"callbacks.{name}"] = callback.get("monitor") if callback else None
        for who, metric in watched.items():
            if self.data.val_size == 0 and metric and metric.startswith("val/"):
                raise PydanticCustomError(
                    "no_validation",
                    f"data.val_size=0 leaves no validation images, but {who}.monitor={metric} needs them: "
                    f"keep some, or watch {metric.replace('val/', 'train/')} with {who}.monitor.",
                )
        return self


class _EvaluateData(_Section):
    dir: str | None


class _EvaluateTrainer(_Section):
    accelerator: str
    precision: str | int | None


class EvaluateSettings(_Section):
    """What evaluate.py needs to know of its settings before it starts."""

    ckpt: str | None
    data: _EvaluateData
    trainer: _EvaluateTrainer


def check(settings: Mapping[str, Any], schema: type[_Section]) -> None:
    """Raise `UserError` that names each setting of `settings` with a wrong type or out of bounds."""
    try:
        schema.model_validate(settings)
    except ValidationError as error:
        # A value that may be of several types gives one problem for each of them.
        wrong: dict[str, list[str]] = {}
        for problem in error.errors(include_url=False):
            if not problem["loc"]:  # about several settings together, in full
                raise UserError(problem["msg"]) from None
            key, value = _setting(settings, problem["loc"])
            said = problem["msg"].removeprefix("Input ")
            wrong.setdefault(f"{key}={value}", []).append(said)
        lines = [f"{setting}: it {' or '.join(dict.fromkeys(said))}" for setting, said in wrong.items()]
        raise UserError("\n".join(lines)) from None


def _setting(settings: Any, location: tuple[int | str, ...]) -> tuple[str, Any]:
    """Return the dotted key of `location` and its value, without the type names pydantic ends it with."""
    keys: list[str] = []
    for part in location:
        if not isinstance(settings, Mapping):
            break
        keys.append(str(part))
        settings = settings.get(part, "???")
    return ".".join(keys), settings
