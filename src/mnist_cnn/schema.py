"""The types that settings are declared with, and the messages for wrong settings."""

from collections.abc import Mapping
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from mnist_cnn.errors import UserError

Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]
NotNegative = Annotated[float, Field(ge=0, allow_inf_nan=False)]
Finite = Annotated[float, Field(allow_inf_nan=False)]
Fraction = Annotated[float, Field(ge=0, le=1)]
Count = Annotated[int, Field(ge=1)]
ImageSize = Annotated[int, Field(ge=1, le=2048)]
CountOrZero = Annotated[int, Field(ge=0)]


class Section(BaseModel):
    """Settings below one key. Those that are not declared are checked by the objects that take them."""

    model_config = ConfigDict(strict=True, extra="allow")  # strict: "3" is not a number


def check(settings: Mapping[str, Any], schema: type[Section]) -> None:
    """Raise `UserError` that names each setting of `settings` with a wrong type or out of bounds."""
    try:
        schema.model_validate(settings)
    except ValidationError as error:
        raise UserError(_message(error, settings)) from None


def _message(error: ValidationError, settings: Mapping[str, Any]) -> str:
    missing: list[str] = []
    wrong: dict[str, list[str]] = {}  # a value that may have one of several types has one error for each
    for problem in error.errors(include_url=False):
        if not problem["loc"]:  # about several settings together; the message is complete
            return problem["msg"]
        key, value = _setting(settings, problem["loc"])
        if problem["type"] == "missing":
            missing.append(f"{key} is missing: set {key}=VALUE.")
            continue
        message = problem["msg"].removeprefix("Input ")
        wrong.setdefault(f"{key}={value}", []).append(message)
    lines = [f"{setting}: it {' or '.join(dict.fromkeys(messages))}" for setting, messages in wrong.items()]
    return "\n".join(missing + lines)


def _setting(settings: Any, location: tuple[int | str, ...]) -> tuple[str, Any]:
    """Return the dotted key of `location` and its value, without the type names pydantic ends it with."""
    keys: list[str] = []
    for part in location:
        if not isinstance(settings, Mapping):
            break
        keys.append(str(part))
        settings = settings.get(part)
    return ".".join(keys), settings
