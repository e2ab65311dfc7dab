"""The Hydra side of the commands: their start, their folders, and how they end."""

import contextlib
import functools
import logging
import os
import shlex
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NoReturn

import hydra
from filelock import FileLock, Timeout
from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from hydra.utils import to_absolute_path
from omegaconf import DictConfig, ListConfig, OmegaConf, open_dict

from hydra_sweeps import FAILED, RESOLVED, in_sweep
from mnist_cnn.command_line import (
    PATHS,
    ROOT,
    for_hydra,
    hydra_section,
    message_with_latest,
    of_this_rank,
    options_of,
    run_dir_override,
)
from mnist_cnn.entry import Function, interrupt_code, interrupt_raised, interrupted
from mnist_cnn.errors import UserError, log_traceback, one_line
from mnist_cnn.files import atomic_write, write_json
from mnist_cnn.messages import message_for_user
from mnist_cnn.ranks import is_first_rank, is_restarted, name_of_start

log = logging.getLogger(__name__)

# Whether the user set HYDRA_FULL_ERROR; passed on to the processes that a job starts.
_SHOW_ALL = "MNIST_CNN_FULL_ERROR"


def run(function: Function, config_name: str) -> None:
    """Run `function` with the config that Hydra composes; see `entry.command`."""
    full_error = _show_everything()
    # With this set Hydra raises errors instead of printing them in its own way.
    os.environ["HYDRA_FULL_ERROR"] = "1"
    os.environ[_SHOW_ALL] = "1" if full_error else ""
    # Where the log cannot be written, as on a full disk, logging would print a traceback for each line.
    logging.raiseExceptions = False
    register_resolvers()
    main = hydra.main(version_base="1.3", config_path=str(ROOT / "conf"), config_name=config_name)
    try:
        sys.argv[1:] = for_hydra(sys.argv[1:])
        if config_name == "train":
            sys.argv += of_this_rank(sys.argv[1:])
        main(_locked(_job(function)))()
    except Exception as error:
        if interrupt_raised():
            raise KeyboardInterrupt from error
        message = message_for_user(error)
        if message is None or full_error:
            raise
        sys.exit(f"{Path(sys.argv[0]).name}: {message}")


def register_resolvers() -> None:
    """Register what the YAML files use in addition to Hydra's own resolvers."""
    OmegaConf.register_new_resolver("folder_name", _folder_name, replace=True)
    OmegaConf.register_new_resolver("start_of_run", name_of_start, replace=True, use_cache=True)


def _folder_name(overrides: str) -> str:
    """Return the overrides of a job as a name that every file system accepts."""
    return overrides.replace("/", "-").encode()[:200].decode(errors="ignore")


def _locked(job: Callable[[DictConfig], object]) -> Callable[[DictConfig], object]:
    """Refuse a job of train.py in a folder in which another process runs one; nothing in it is changed.

    The system releases the lock when the process ends, also when it is killed.
    """

    @functools.wraps(job)
    def locked(config: DictConfig) -> object:
        if "resume" not in config or not is_first_rank():
            return job(config)
        folder = output_dir()
        lock = FileLock(folder / ".lock")
        try:
            lock.acquire(timeout=0)
        except Timeout:
            message = f"{folder} is the folder of a run that is still running; stop it first."
            if HydraConfig.get().mode is RunMode.MULTIRUN:
                raise UserError(message) from None  # the sweep reports the error
            sys.exit(f"{Path(sys.argv[0]).name}: {message}")
        try:
            return job(config)
        finally:
            lock.release()

    return locked


def _job(function: Function) -> Callable[[DictConfig], object]:
    """Report the errors of one job: `failed.json` in its folder, the traceback in its log.

    A single run ends with the message alone where the user can correct the error. A job of a sweep raises,
    so that the sweep reports the error and continues with the next job.
    """

    @functools.wraps(function)
    def job(config: DictConfig) -> object:
        folder = Path(HydraConfig.get().runtime.output_dir)
        if is_first_rank():
            (folder / FAILED).unlink(missing_ok=True)
        try:
            if interrupted():
                raise KeyboardInterrupt
            _make_paths_absolute(config)
            return function(config)
        except (KeyboardInterrupt, SystemExit) as stop:
            # Lightning ends the process with SystemExit(1) when it is interrupted.
            _stop(config, folder, stop)
        except Exception as error:
            if interrupt_raised():
                _stop(config, folder, KeyboardInterrupt())
            message = message_for_user(error)
            if is_first_rank():
                with contextlib.suppress(OSError):  # a full disk may be what failed
                    log_traceback(log, error)
                    short = one_line(message or f"{type(error).__name__}: {error}")
                    write_json(folder / FAILED, {"error": short})
            if HydraConfig.get().mode is RunMode.MULTIRUN:
                raise  # the sweep reports the error
            if in_sweep() and not _show_everything():
                sys.exit(1)  # the sweep reads failed.json
            if message is None or _show_everything():
                raise
            sys.exit(f"{Path(sys.argv[0]).name}: {message}")

    return job


def _stop(config: DictConfig, folder: Path, stop: BaseException) -> NoReturn:
    """End an interrupted job; a run that can be resumed says how."""
    if HydraConfig.get().mode is RunMode.MULTIRUN:
        raise stop  # the sweep ends
    if not in_sweep() and is_first_rank() and (folder / RESOLVED).is_file():
        resume = shlex.quote(f"resume={os.path.relpath(folder)}")
        if config.get("trust"):
            resume += " " + shlex.quote(f"trust=[{','.join(config.trust)}]")
        log.info(f"interrupted; resume with: python train.py {resume}")
    raise SystemExit(interrupt_code()) from stop


def _make_paths_absolute(config: DictConfig) -> None:
    """Keep paths relative to the folder in which the command was typed, also with hydra.job.chdir=true."""
    if HydraConfig.get().job.chdir:
        for key in PATHS:
            path = OmegaConf.select(config, key)
            if isinstance(path, ListConfig):
                OmegaConf.update(config, key, [to_absolute_path(one) for one in path])
            elif path is not None:
                OmegaConf.update(config, key, to_absolute_path(path))


def _show_everything() -> bool:
    return bool(os.environ.get(_SHOW_ALL, os.environ.get("HYDRA_FULL_ERROR")))


def to_dict(config: DictConfig) -> dict[str, Any]:
    """Return the settings as plain dicts, lists and values, with all interpolations resolved."""
    settings = OmegaConf.to_container(config, resolve=True, throw_on_missing=True)
    assert isinstance(settings, dict)
    return {str(key): value for key, value in settings.items()}


def output_dir() -> Path:
    """Return the folder of the job that is running."""
    return Path(HydraConfig.get().runtime.output_dir)


def add_overrides_to_hparams(config: DictConfig) -> None:
    """Add the other settings of the command line to `config.hparams`, so that it shows what was swept."""
    if config.resume and HydraConfig.get().mode is RunMode.RUN:
        return  # they were added when the run was started
    hparams = OmegaConf.to_container(config.hparams, resolve=False)
    assert isinstance(hparams, dict)
    known = {str(value).strip("${}") for value in hparams.values()} | {
        *hparams,
        "data.dir",
        "seed",
        "resume",
        "trust",
    }
    for override in HydraConfig.get().overrides.task:
        key, _, text = override.partition("=")
        key = key.lstrip("+~")
        is_group = (ROOT / "conf" / key).is_dir()  # whose choice may be a list, which Hydra does not keep
        value = text if is_group else OmegaConf.select(config, key)
        if key not in known and not key.startswith("sweep.") and value is not None:
            with open_dict(config.hparams):
                config.hparams[key] = value if isinstance(value, int | float) else str(value)


def lr_source(settings: Mapping[str, Any]) -> str | None:
    """Return the file in conf/loss_optim/ that set the learning rate of a run, None if no such file did."""
    path = Path("conf", "loss_optim", "{loss}_{optim}.yaml".format(**settings["hparams"]))
    if not (ROOT / path).is_file() or OmegaConf.load(ROOT / path).lr != settings["optim"]["lr"]:
        return None
    return str(path)


def prepare_run_folder(config: DictConfig) -> Path:
    """Write `.hydra/resolved.yaml` into the folder of the run that is starting, and return the folder.

    A job that torchrun or Slurm has started again resumes its run. Raises `UserError` where the folder holds
    another run, and in the other processes of a job that do not see the file.
    """
    run_dir = output_dir()
    holds_run = not config.resume and any((run_dir / "checkpoints").glob("*.ckpt"))
    if holds_run and is_restarted():
        config.resume = str(run_dir)
    if not is_first_rank():
        _wait_for(run_dir / RESOLVED)
        return run_dir
    if holds_run and not config.resume:
        raise UserError(
            f"{run_dir} already holds a run. Resume it with resume={run_dir}, or choose another folder "
            "with hydra.run.dir."
        )
    _write_resolved(config, run_dir / RESOLVED, "train")
    return run_dir


def _write_resolved(config: DictConfig, path: Path, name: str) -> None:
    """Write the settings of the job to `path`, with which `_command` starts the same job again.

    `name` is that of the command. Hydra's own .hydra/config.yaml keeps interpolations, of which ${now:} and
    ${hydra:job.num} differ in another process.
    """
    resolved = OmegaConf.create(to_dict(config))
    resolved["hydra"] = hydra_section(name)
    path.parent.mkdir(parents=True, exist_ok=True)
    with atomic_write(path) as aside:
        OmegaConf.save(resolved, aside)


def _wait_for(file: Path, seconds: float = 120.0) -> None:
    """Wait until the first rank has written `file`."""
    end = time.monotonic() + seconds
    while not file.is_file():
        if time.monotonic() > end:
            raise UserError(
                f"The first process of this run has not written {file}. All must see the same files."
            )
        time.sleep(0.05)


def train_command(run_dir: Path) -> list[str]:
    """Return the command that runs train.py with the settings, and in the folder, of a run."""
    return _command("train.py", run_dir, RESOLVED)


def evaluate_command(config: DictConfig) -> list[str]:
    """Write the settings of an evaluation into its folder; return the command that runs it there again."""
    folder = output_dir()
    settings = RESOLVED.with_stem("evaluate")  # not that of a run, which could be resumed
    if is_first_rank():
        _write_resolved(config, folder / settings, "evaluate")
    return _command("evaluate.py", folder, settings)


def _command(script: str, folder: Path, settings: Path) -> list[str]:
    options = [*options_of(folder, settings), run_dir_override(folder)]
    return [sys.executable, str(ROOT / script), *options]


def find_checkpoint(path: str | None, setting: str = "ckpt") -> Path:
    """Return the path of a checkpoint; raises `UserError` that lists existing ones where it is not a file."""
    if path is not None and Path(path).is_file():
        return Path(path)
    problem = f"{setting}=PATH is missing" if path is None else f"{setting}={path} is not a file"
    latest = message_with_latest("checkpoints", "best.ckpt", "last.ckpt")
    raise UserError(f"{problem}. {latest or 'There is no checkpoint under logs/ yet: run train.py.'}")


def find_checkpoints(paths: str | list[str] | None) -> list[Path]:
    """Return the paths of one checkpoint or several; raises `UserError` as `find_checkpoint` does."""
    return [find_checkpoint(path) for path in (paths if isinstance(paths, list) else [paths])]
