"""How a run ended: read from its folder, and written there for a job that could not do it."""

import io
import traceback
from collections.abc import Mapping
from contextlib import redirect_stderr
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TypeAlias

from hydra.core.utils import JobReturn, JobStatus
from hydra.errors import HydraException

from hydra_sweeps.contract import FAILED, METRICS
from hydra_sweeps.files import printable, read_or_none, write_json

Status: TypeAlias = Literal["finished", "pruned", "failed", "unfinished"]


@dataclass(frozen=True)
class Outcome:
    """How a run ended: the `metrics` of one that finished or was pruned, the `error` of one that failed."""

    status: Status
    metrics: Mapping[str, Any]
    error: str | None = None
    has_traceback: bool = False

    @property
    def is_result(self) -> bool:
        return self.status in ("finished", "pruned")


def read_outcome(folder: Path) -> Outcome:
    """Read how the run in `folder` ended; without a readable result it is unfinished.

    A run that has failed after it had written its result has failed.
    """
    if (folder / FAILED).is_file():
        failure = read_or_none(folder / FAILED)
        known = failure if isinstance(failure, dict) else {}
        return Outcome("failed", {}, printable(known.get("error") or "no message"), "traceback" in known)
    metrics = read_or_none(folder / METRICS)
    if isinstance(metrics, dict):
        return Outcome("pruned" if metrics.get("status") == "pruned" else "finished", metrics)
    return Outcome("unfinished", {})


def remove_result(folder: Path) -> None:
    """Remove what an earlier start of a run has left, or one that was interrupted."""
    for name in (FAILED, METRICS):
        (folder / name).unlink(missing_ok=True)


def record_failure(folder: Path, error: Exception | str) -> None:
    """Write the error of a run into its folder, unless there is one."""
    if (folder / FAILED).is_file():
        return
    text = str(error) if isinstance(error, str | HydraException) else f"{type(error).__name__}: {error}"
    content = {"error": " ".join(text.split())}
    if not isinstance(error, str):
        content["traceback"] = "".join(traceback.format_exception(error))
    folder.mkdir(parents=True, exist_ok=True)
    write_json(folder / FAILED, content)


def error_of(result: JobReturn) -> Exception | None:
    """Return the exception with which a job of Hydra ended, if it failed."""
    if result.status is not JobStatus.FAILED:
        return None
    try:
        with redirect_stderr(io.StringIO()):  # where Hydra prints that the job failed
            _ = result.return_value
    except Exception as error:
        return error
    return None


def describe_exit(code: object) -> str | None:
    """Return why a job failed that ended with this code, or reason, of `SystemExit`; None if it did not."""
    if code in (None, 0):
        return None
    return code if isinstance(code, str) else f"the job ended with exit code {code}"
