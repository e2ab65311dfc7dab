"""Objects built from settings: those that the user has chosen, and those in files, which are not trusted."""

import inspect
from collections.abc import Mapping, Sequence
from functools import partial
from pkgutil import resolve_name
from types import NoneType
from typing import Any, TypeVar, get_args

import torch
import torchvision.models
from torch import Tensor, nn
from torchmetrics import Metric

from mnist_cnn.data import Source
from mnist_cnn.errors import UserError, one_line
from mnist_cnn.training.trust import check_target, is_trusted

PARTS = (nn.Module, Tensor, Source)  # what may be built as an argument
HYDRA_KEYS = ("_target_", "_args_", "_partial_", "_convert_", "_recursive_")  # that are no arguments

Kind = TypeVar("Kind")


def build(
    settings: Mapping[str, Any],
    kind: type[Kind],
    trusted: Sequence[str] = (),
    setting: str | None = None,
    **more: Any,
) -> Kind:
    """Build the object that `settings` names in `_target_`, with its other items and `more` as arguments.

    Networks, layers and tensors among the arguments are built from their own `_target_`. Numbers in a list
    become a float32 tensor where a tensor is wanted, as for the weights of a loss.
    Raises `UserError` unless `_target_` is a class of kind `kind` of this project, its libraries or a package
    in `trusted`, a function of such a package, or a network of torchvision, that takes these arguments.
    Settings that the user has chosen, as `setting`, may name any class.
    """
    built: Kind = _Builder(trusted, setting).build(settings, kind, more)
    return built


def build_metrics(settings: Mapping[str, Mapping[str, Any]], trusted: Sequence[str]) -> dict[str, Metric]:
    """Build the metrics that the user has chosen, by their names; raises `UserError` as `build` does."""
    return {
        name: build(metric, Metric, trusted, f"metrics.{name}")  # type: ignore[type-abstract]
        for name, metric in settings.items()
    }


class _Builder:
    """Builds an object and those among its arguments."""

    def __init__(self, trusted: Sequence[str], setting: str | None = None) -> None:
        self.trusted = trusted
        self.setting = setting
        self.source = setting or "The checkpoint"

    def build(self, settings: Mapping[str, Any], kind: Any, more: Mapping[str, Any]) -> Any:
        target = str(settings.get("_target_", ""))
        if self.setting is None:
            check_target(target, self.source, self.trusted)
        try:
            found = self._find(target, kind)
            given = {key: one for key, one in settings.items() if key not in (*HYDRA_KEYS, *more)}
            if self.setting is None and _is_network(target):
                given.pop("weights", None)  # they would be downloaded; the checkpoint holds the weights
            named = {key: self._argument(value, _wants_tensor(found, key)) for key, value in given.items()}
            unnamed = [self._argument(value) for value in settings.get("_args_", ())]
            if settings.get("_partial_"):
                return partial(found, *unnamed, **named, **more)
            built = found(*unnamed, **named, **more)
        except UserError:
            raise
        except Exception as error:  # whatever a class raises of arguments that it was not made for
            name = target.rpartition(".")[2]
            raise UserError(f"{self.source}: wrong settings of {name}: {one_line(error)}") from error
        if not isinstance(built, kind):
            raise UserError(f"{self.source} names {target!r}, but a {_name(kind)} is needed.")
        return built

    def _find(self, target: str, kind: Any) -> Any:
        found = resolve_name(target)
        if isinstance(found, type):
            if issubclass(found, kind):
                return found
        elif found is torch.tensor or _is_network(target) or is_trusted(target, self.trusted):
            return found
        raise UserError(
            f"{self.source} names {target!r}, but a {_name(kind)} is needed: a class, or a function of a "
            "package in trust=[PACKAGE]."
        )

    def _argument(self, value: Any, is_tensor: bool = False) -> Any:
        if isinstance(value, Mapping):
            if "_target_" in value:
                return self.build(value, PARTS, {})
            return {key: self._argument(one) for key, one in value.items()}
        if isinstance(value, list):
            return torch.tensor(value, dtype=torch.float32) if is_tensor else list(map(self._argument, value))
        return value


def _is_network(target: str) -> bool:
    module, _, name = target.rpartition(".")
    return module == "torchvision.models" and name in torchvision.models.list_models(torchvision.models)


def _wants_tensor(found: Any, name: str) -> bool:
    """Return whether a class or function declares an argument as a tensor, and not also as a sequence."""
    if not isinstance(found, type):
        return False
    parameter = inspect.signature(found).parameters.get(name)
    declared = parameter and parameter.annotation
    return declared is Tensor or set(get_args(declared)) == {Tensor, NoneType}


def _name(kind: Any) -> str:
    return "Module" if kind is PARTS else str(kind.__name__)
