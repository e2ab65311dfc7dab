"""The start and the end of the commands: Hydra, slow imports, exit codes."""

import functools
import gc
import importlib
import io
import logging
import os
import re
import signal
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import hydra
from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf

from hydra_sweeps import in_sweep
from mnist_cnn.app import folders, overrides, signals, view
from mnist_cnn.app.messages import message_for_user
from mnist_cnn.app.paths import CONF
from mnist_cnn.app.run import Job
from mnist_cnn.app.settings import BASIC_METRICS, direction
from mnist_cnn.errors import Interrupted, UserError, log_traceback
from mnist_cnn.files import data_folder
from mnist_cnn.schema import Section, check
from mnist_cnn.training.ranks import RANK_TIMEOUT, end_with_parent, is_rank_of_a_job, processes_started

log = logging.getLogger(__name__)

# Whether the user set HYDRA_FULL_ERROR; passed on to the processes that a job starts.
_SHOW_ALL = "MNIST_CNN_FULL_ERROR"

# What takes seconds to import; without the garbage collector less by half.
SLOW_LIBRARIES = ("lightning", "torchvision", "torch.utils.tensorboard", "matplotlib.figure")

Main = Callable[[Any], object]


def command(
    name: str, schema: type[Section], kind: type[Job] = Job, libraries: Sequence[str] = SLOW_LIBRARIES
) -> Callable[[Main], Callable[[], None]]:
    """Make a function of a job the entry point of a command line that Hydra parses.

    Hydra composes `conf/<name>.yaml` and the arguments of the command line. The settings are checked by
    `schema` before the `libraries` are imported, which takes seconds. A job on several devices is done by
    ranks, processes that run the command again.
    Errors that a user can correct end the command with their message and exit code 1; with
    `HYDRA_FULL_ERROR=1` in the environment every error is shown with its traceback.
    """

    def decorate(main: Main) -> Callable[[], None]:
        @functools.wraps(main)
        def start() -> None:
            signals.end_at_once()
            if is_rank_of_a_job():
                end_with_parent()

            def task(config: DictConfig) -> object:
                return _do(main, config, name, schema, kind, libraries)

            try:
                _run_hydra(name, task)
            except Interrupted as stop:
                sys.exit(stop.exit_code)

        return start

    return decorate


def _run_hydra(name: str, task: Callable[[DictConfig], object]) -> None:
    show_all = _shows_all()
    # With this set Hydra raises errors instead of printing them in its own way.
    os.environ["HYDRA_FULL_ERROR"] = "1"
    os.environ[_SHOW_ALL] = "1" if show_all else ""
    # Figures go into files. That of a notebook that has started this command may not be installed here.
    os.environ["MPLBACKEND"] = "agg"
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # a line with other characters than its own would be lost
            stream.reconfigure(errors="backslashreplace")
    # If the log cannot be written, as on a full disk, logging would print a traceback for each line.
    logging.raiseExceptions = False
    register_resolvers()
    try:
        if not CONF.is_dir():
            raise UserError(f"there is no {CONF}: install this folder itself, with pip install -e .")
        sys.argv[1:] = overrides.prepare(sys.argv[1:])
        hydra.main(version_base="1.3", config_path=str(CONF), config_name=name)(task)()
        sys.stdout.flush()
    except Exception as error:
        if isinstance(error, BrokenPipeError) and not _has_job():  # as of --help | head
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # what Python flushes at its end
            sys.exit(128 + signal.SIGPIPE)
        message = message_for_user(error)
        if message is None or show_all:
            raise
        sys.exit(f"{Path(sys.argv[0]).name}: {message}")
    finally:
        view.log_view()
        folders.remove_unused()


def _has_job() -> bool:
    """Return whether a job has been started, and not only settings or a help text shown."""
    return HydraConfig.initialized() and not OmegaConf.is_missing(HydraConfig.get().runtime, "output_dir")


def register_resolvers() -> None:
    """Register what the YAML files use in addition to Hydra's own resolvers."""
    resolvers: dict[str, Callable[..., object]] = {
        "data_folder": data_folder,
        "length": len,
        "class_folders": _class_folders,
        "grey_values": _grey_values,
        "direction": _direction,
    }
    for name, resolver in resolvers.items():
        OmegaConf.register_new_resolver(name, resolver, replace=True)
    for name, resolver in folders.RESOLVERS.items():  # each makes a folder, once
        OmegaConf.register_new_resolver(name, resolver, replace=True, use_cache=True)


def _class_folders(directory: str) -> list[str]:
    from mnist_cnn.data import ImageFolder  # imports torch

    return ImageFolder(test_size=0).classes(Path(directory))


def _grey_values(directory: str) -> list[float] | None:
    from mnist_cnn.data import ImageFolder

    found = ImageFolder(test_size=0).grey_values(Path(directory))
    return None if found is None else list(found)


def _direction(metric: str, *, _root_: DictConfig) -> str | None:
    """Return min or max, whichever value of a metric is the best; None if it does not say."""
    if metric.partition("/")[2] not in BASIC_METRICS:
        import_libraries(SLOW_LIBRARIES)
    metrics: Any = OmegaConf.to_container(_root_.metrics, resolve=True)
    return direction(metric, metrics)


def _do(
    main: Main,
    config: DictConfig,
    name: str,
    schema: type[Section],
    kind: type[Job],
    libraries: Sequence[str],
) -> object:
    """Do one job: a single run, or a job of a sweep in this process."""
    job: Job | None = None
    try:
        job = kind(name, config)
        check(job.plain, schema)
        job.find_files()
        with job.open():
            count = _count_ranks(job)
            if count > 1:
                return _do_in_ranks(job, count)
            if libraries:
                import_libraries(libraries)
                signals.raise_interrupted()
            result = main(job)
            if processes_started() is not None:  # this is a rank
                from mnist_cnn.training.launch import leave_process_group

                leave_process_group()
            return result
    except Interrupted:
        if job is not None and HydraConfig.get().mode is RunMode.RUN:
            job.interrupted()
        raise
    except SystemExit as stop:
        if stop.code and job is not None:
            job.record_failure(f"The job has ended with sys.exit({stop.code!r}).")
        raise
    except Exception as error:
        _fail(job, error)
        raise


def import_libraries(names: Sequence[str]) -> None:
    """Import libraries without the garbage collector, which would look at a million objects many times.

    The collector leaves out these objects later, too, but only if they are new: what has run since then may
    have left garbage.
    """
    are_new = not sys.modules.keys() >= set(names)
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        for name in names:
            importlib.import_module(name)
        from mnist_cnn.training.quiet import quiet_libraries
    finally:
        if are_new:
            gc.freeze()
        if was_enabled:
            gc.enable()
    quiet_libraries()


def _count_ranks(job: Job) -> int:
    """Return how many processes this one has to start for the job; 1 if it does the job itself."""
    trainer = job.plain.get("trainer", {})
    devices = trainer.get("devices", 1)
    if processes_started() is not None or devices == 1:
        return 1
    if isinstance(devices, int) and trainer["accelerator"] == "cpu":  # a process each, without a look at them
        return max(devices, 1)
    import_libraries(SLOW_LIBRARIES)
    from mnist_cnn.training.trainer import count_devices

    return count_devices(trainer)


def _do_in_ranks(job: Job, count: int) -> float | None:
    from mnist_cnn.training.launch import RankFailed, run_ranks

    try:
        run_ranks(job.rank_command(), count, _rank_timeout(job), signals.SIGNALS)
    except RankFailed as failed:
        if failed.was_killed or (reason := job.recorded_failure()) is None:
            raise
        raise UserError(reason) from failed
    return job.value()


def _fail(job: Job | None, error: Exception) -> None:
    """Record the error of a job, and end the command if it need not be shown with its traceback.

    A job of a sweep in this process returns: the sweep reports the error and goes on with the next job.
    """
    message = message_for_user(error)
    if is_rank_of_a_job() and message is None:
        message = _lost_connection(error, job)
    is_recorded = job is not None and job.record_failure(message or f"{type(error).__name__}: {error}")
    if is_recorded:
        log_traceback(log, error)
    elif message is not None:
        folders.refused(Path(HydraConfig.get().runtime.output_dir))
    if HydraConfig.get().mode is RunMode.MULTIRUN or _shows_all():
        return
    if is_recorded and message is not None and (in_sweep() or is_rank_of_a_job()):
        sys.exit(1)  # the sweep, or the process that has started the ranks, shows what is recorded
    if message is not None:
        sys.exit(f"{Path(sys.argv[0]).name}: {message}")


def _lost_connection(error: Exception, job: Job | None) -> str | None:
    """Return a message if a rank has lost another one; the process that has started them says more."""
    from mnist_cnn.training.launch import is_of_connection

    if job is None or not is_of_connection(error):
        return None
    if not re.search("timed out|timeout", str(error), re.IGNORECASE):  # the other has ended
        sys.exit(1)
    return (
        f"A rank has waited {_rank_timeout(job):g} s for another one. If that was not enough, set "
        "trainer.rank_timeout to more seconds."
    )


def _rank_timeout(job: Job) -> float:
    """Return the seconds that a rank of the job waits for another."""
    return float(job.settings.trainer.rank_timeout or RANK_TIMEOUT)


def _shows_all() -> bool:
    return bool(os.environ.get(_SHOW_ALL, os.environ.get("HYDRA_FULL_ERROR")))
