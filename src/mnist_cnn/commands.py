"""The Hydra side of the commands: arguments, resuming, and errors in the user's terms.

No other module of this package imports Hydra.
"""

import contextlib
import difflib
import errno
import functools
import logging
import os
import re
import shlex
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import hydra
from filelock import FileLock, Timeout
from hydra import compose, initialize_config_dir
from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException
from hydra.types import RunMode
from hydra.utils import to_absolute_path
from omegaconf import DictConfig, ListConfig, OmegaConf, open_dict
from omegaconf.errors import OmegaConfBaseException

from hydra_sweeps import interface
from hydra_sweeps.interface import FAILED, METRICS, RESOLVED, SweepError, quote
from mnist_cnn.entry import Function, interrupt_code
from mnist_cnn.errors import UserError, log_traceback
from mnist_cnn.files import atomic_write, write_json
from mnist_cnn.ranks import is_first_rank, is_restarted, name_of_start, processes_started
from mnist_cnn.trust import read_settings

ROOT = Path(__file__).parents[2]  # the folder of train.py and conf/

# Whether the user set HYDRA_FULL_ERROR; passed on to the processes that a job starts.
_SHOW_ALL = "MNIST_CNN_FULL_ERROR"

# Settings that a resumed run may change: where and how long it runs, not what it learns.
_CHANGEABLE = (
    *("resume", "data.dir", "hydra.", "trainer.max_epochs", "trainer.accelerator", "trainer.devices"),
    *("trainer.limit_val_batches", "trainer.limit_test_batches", "trainer.max_time", "trainer.rank_timeout"),
    *("trust", "checkpoint.", "compile"),
)

# Settings that are paths, relative to the folder in which the command was typed.
_PATHS = ("data.dir", "ckpt", "init_from", "images", "out")

# Options of Hydra that are followed by a value.
_OPTIONS_WITH_VALUE = {
    *("-c", "--cfg", "-p", "--package", "-cp", "--config-path", "-cn", "--config-name"),
    *("-cd", "--config-dir", "--experimental-rerun"),
}

log = logging.getLogger(__name__)

# Errors of the file system that the user can do something about.
_USER_OS_ERRORS = {
    errno.EACCES,
    errno.EPERM,
    errno.EROFS,
    errno.ENOSPC,
    errno.EDQUOT,
    errno.EIO,
    errno.ENOTDIR,
    errno.EEXIST,
    errno.ENAMETOOLONG,
}

# Messages of torch, on a GPU and on the CPU, and of C++; and of the loader of shared libraries.
_OUT_OF_MEMORY = ("out of memory", "allocate memory", "bad_alloc")
_NO_ROOM_FOR_LIBRARY = ("failed to map segment", "allocate memory")


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
        sys.argv[1:] = _arguments(sys.argv[1:])
        if config_name == "train":
            sys.argv += _of_this_rank(sys.argv[1:])
        main(_locked(_job(function)))()
    except Exception as error:
        message = _message(error)
        if message is None or full_error:
            raise
        sys.exit(f"{Path(sys.argv[0]).name}: {message}")


def register_resolvers() -> None:
    """Register what the YAML files use beside Hydra's own resolvers."""
    OmegaConf.register_new_resolver("folder_name", _folder_name, replace=True)
    OmegaConf.register_new_resolver("start_of_run", name_of_start, replace=True, use_cache=True)


def _folder_name(overrides: str) -> str:
    """Return the overrides of a job as a name that every file system accepts."""
    return overrides.replace("/", "-")[:200]


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
            _make_paths_absolute(config)
            return function(config)
        except (KeyboardInterrupt, SystemExit) as stop:
            # Lightning ends the process with SystemExit(1) when it is interrupted.
            if HydraConfig.get().mode is RunMode.MULTIRUN:
                raise  # the sweep ends
            if not interface.in_sweep() and is_first_rank() and (folder / RESOLVED).is_file():
                resume = shlex.quote(f"resume={os.path.relpath(folder)}")
                if config.get("trust"):
                    resume += " " + shlex.quote(f"trust=[{','.join(config.trust)}]")
                log.info(f"interrupted; resume with: python train.py {resume}")
            raise SystemExit(interrupt_code()) from stop
        except Exception as error:
            message = _message(error)
            if is_first_rank():
                with contextlib.suppress(OSError):  # a full disk may be what failed
                    log_traceback(log, error)
                    short = _one_line(message or f"{type(error).__name__}: {error}")
                    write_json(folder / FAILED, {"error": short})
            if HydraConfig.get().mode is RunMode.MULTIRUN:
                raise  # the sweep reports the error
            if interface.in_sweep() and not _show_everything():
                sys.exit(1)  # the sweep reads failed.json
            if message is None or _show_everything():
                raise
            sys.exit(f"{Path(sys.argv[0]).name}: {message}")

    return job


def _make_paths_absolute(config: DictConfig) -> None:
    """Keep paths relative to the folder in which the command was typed, also with hydra.job.chdir=true."""
    if HydraConfig.get().job.chdir:
        for key in _PATHS:
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
    resolved["hydra"] = _hydra_section(name)
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


def _hydra_section(name: str) -> dict[str, Any]:
    """Return the settings of Hydra with which a job is started again: those of this repository."""
    section: dict[str, Any] = {"output_subdir": None, "job": {"name": name, "chdir": False}}
    for group in ("job_logging", "hydra_logging"):
        settings = OmegaConf.load(ROOT / "conf/hydra" / group / "mnist_cnn.yaml")
        section[group] = OmegaConf.to_container(settings)
    return section


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
    options = [*_options_of(folder, settings), _run_dir_override(folder)]
    return [sys.executable, str(ROOT / script), *options]


def _options_of(folder: Path, settings: Path = RESOLVED) -> list[str]:
    file = folder.absolute() / settings
    return ["--config-path", str(file.parent), "--config-name", file.stem]


def _run_dir_override(run_dir: Path) -> str:
    return f"hydra.run.dir={quote(str(run_dir.absolute()))}"


def find_checkpoint(path: str | None, setting: str = "ckpt") -> Path:
    """Return the path of a checkpoint; raises `UserError` that lists existing ones where it is no file."""
    if path is not None and Path(path).is_file():
        return Path(path)
    problem = f"{setting}=PATH is missing" if path is None else f"{setting}={path} is not a file"
    latest = _latest("checkpoints", "best.ckpt", "last.ckpt")
    raise UserError(f"{problem}. {latest or 'There is no checkpoint under logs/ yet: run train.py.'}")


def find_checkpoints(paths: str | list[str] | None) -> list[Path]:
    """Return the paths of one checkpoint or several; raises `UserError` as `find_checkpoint` does."""
    return [find_checkpoint(path) for path in (paths if isinstance(paths, list) else [paths])]


def _arguments(arguments: list[str]) -> list[str]:
    """Return the command line in the form that Hydra accepts.

    Options come first, where argparse needs them; paths as a shell completes them are quoted; and a run or
    sweep that is resumed brings its own settings.
    """
    options, overrides = _split(arguments)
    multirun = any(option in ("-m", "--multirun") for option in options)
    paths = {}
    for index, override in enumerate(overrides):
        key, _, value = override.partition("=")
        group = key.lstrip("+~").partition("@")[0]
        if group and (ROOT / "conf" / group).is_dir():
            _check_choice(group, override)
        if key in ("resume", "ckpt", "init_from", "images", "out", "sweep.resume") and value not in (
            "",
            "null",
        ):
            paths[key] = value.strip("'\"")
            overrides[index] = f"{key}={_quoted_paths(value) or quote(paths[key])}"
    if "sweep.resume" in paths:
        return interface.resume_arguments([*options, *overrides])
    if "resume" not in paths:
        return [*options, *overrides]
    if multirun:
        raise UserError("resume=RUN resumes one run; leave out -m.")
    run_dir = Path(paths["resume"])
    resolved = run_dir / RESOLVED
    if not resolved.is_file():
        latest = _latest(*RESOLVED.parts)
        raise UserError(
            f"resume={run_dir} is not the folder of a run. {latest or 'There is none under logs/ yet.'}"
        )
    trusted = _trusted(overrides)
    settings = read_settings(resolved, trusted, _hydra_section("train"))
    overrides += _changes(settings, overrides)
    if not options:  # of Hydra: to show the settings, for example
        _stop_if_finished(run_dir, overrides)
    # those of the command line alone: the folder does not say whom to trust
    overrides = [one for one in overrides if not one.startswith("trust=")]
    overrides.append(f"++trust=[{','.join(map(quote, trusted))}]")
    return [*_options_of(run_dir), *options, _run_dir_override(run_dir), *overrides]


def _stop_if_finished(run_dir: Path, overrides: list[str]) -> None:
    """End the command where the run has its results, unless a setting of the trainer changes."""
    if not (run_dir / METRICS).is_file() or any(one.startswith("trainer.") for one in overrides):
        return
    if is_first_rank():
        sys.stdout.write(
            f"{run_dir} has finished; its results are in {run_dir / METRICS}.\n"
            "To train longer, raise trainer.max_epochs; to measure it again, run evaluate.py.\n"
        )
    sys.exit()


def _check_choice(group: str, override: str) -> None:
    """Raise `UserError` where the choice from a group is a number, null or a dict, and not a name.

    Hydra fails without a message for the user.
    """
    try:
        parsed = OverridesParser.create().parse_override(override)
    except HydraException:
        return  # Hydra shows where the error is
    value = parsed.value()
    if parsed.is_sweep_override() or (parsed.is_delete() and value is None):
        return
    names = value if isinstance(value, list) and not parsed.is_delete() else [value]
    if not all(isinstance(name, str) for name in names):
        choices = sorted(path.stem for path in (ROOT / "conf" / group).glob("*.yaml"))
        raise UserError(f"{override}: choose one of {', '.join(choices)}, or leave it out.")


def _of_this_rank(arguments: list[str]) -> list[str]:
    """Return the overrides for a process that torchrun or srun has started."""
    added = [] if is_first_rank() else ["hydra.output_subdir=null"]  # written by the first
    started = processes_started()
    if started is None:
        return added
    options, overrides = _split(arguments)
    if any(option in ("-m", "--multirun") for option in options):
        raise UserError(
            "torchrun and srun start the processes of one run; start a sweep with python train.py -m."
        )
    for name, count in zip(("trainer.devices", "trainer.num_nodes"), started, strict=True):
        if not any(override.startswith(f"{name}=") for override in overrides):
            added.append(f"{name}={count}")
    return added


def _trusted(overrides: list[str]) -> list[str]:
    """Return the modules in trust=[…]; raises `UserError` for names that are none."""
    given = [override.partition("=")[2] for override in overrides if override.startswith("trust=")]
    names = [name.strip(" '\"") for value in given[-1:] for name in value.strip(" []").split(",")]
    names = [name for name in names if name]
    for name in names:
        if not all(part.isidentifier() for part in name.split(".")):
            raise UserError(f"trust={given[-1]}: {name!r} is no name of a module. Write trust=[my_package].")
    return names


def _quoted_paths(value: str) -> str | None:
    """Return a list of paths, `[a,b]`, with each of them quoted; None where `value` is no list."""
    if not (value.startswith("[") and value.endswith("]")) or Path(value).exists():
        return None
    paths = [path.strip(" '\"") for path in value[1:-1].split(",")]
    return f"[{','.join(map(quote, paths))}]"


def _split(arguments: list[str]) -> tuple[list[str], list[str]]:
    """Return the options, with their values, and the overrides of a command line."""
    options: list[str] = []
    overrides: list[str] = []
    previous = ""
    for argument in arguments:
        is_option = argument.startswith("-") or previous in _OPTIONS_WITH_VALUE
        (options if is_option else overrides).append(argument)
        previous = argument
    return options, overrides


def _changes(saved: Mapping[str, Any], overrides: list[str]) -> list[str]:
    """Check which settings of a run are changed when it is resumed; return the overrides that follow."""
    if "objective" not in saved:
        raise UserError(
            "This run was started by an earlier version of this repository and cannot be resumed. "
            "evaluate.py and sweep reports can read it."
        )
    changed = {key: value for key, _, value in (override.partition("=") for override in overrides)}
    fixed = [
        f"{key} cannot be changed{_from(saved, key.lstrip('+~'))} to {value or 'nothing'}"
        for key, value in changed.items()
        if not key.lstrip("+~").startswith(_CHANGEABLE)
    ]
    if fixed:
        raise UserError(
            f"A resumed run keeps its settings: {'; '.join(fixed)}. What can be changed: "
            f"{', '.join(key.rstrip('.') for key in _CHANGEABLE[1:])}. Start a new run for other settings."
        )
    if "trainer.max_epochs" not in changed:
        return []
    scheduler = saved.get("scheduler") or {}
    if "T_max" in scheduler or "total_steps" in scheduler:
        raise UserError(
            f"The learning rate schedule of this run ({scheduler['scheduler']}) spans the whole run: "
            "trainer.max_epochs cannot be changed."
        )
    return [f"hparams.max_epochs={changed['trainer.max_epochs']}"]


def _from(saved: Mapping[str, Any], key: str) -> str:
    """Return a phrase with the value of a setting, or choice of a group, in the settings of a run."""
    value: Any = saved
    for part in re.split(r"[./]", key):
        value = value.get(part) if isinstance(value, Mapping) else None
    if isinstance(value, Mapping):
        value = saved["hparams"].get(key) if isinstance(saved.get("hparams"), Mapping) else None
    return "" if value is None else f" from {_one_line(value)[:100]}"


def _latest(folder: str, *names: str) -> str:
    """Return a sentence with the latest runs under logs/ that have one of the files `names` in `folder`."""
    found = {
        path if folder == "checkpoints" else path.parents[1]
        for name in names
        for path in Path("logs").glob(f"*/**/{folder}/{name}")
    }
    latest = sorted(found, key=lambda path: path.stat().st_mtime)[-3:]
    return "The latest: " + ", ".join(map(str, latest)) + "." if latest else ""


def _message(error: BaseException) -> str | None:
    """Return the message for the user, or None where the error is not one that a user can correct."""
    if isinstance(error, UserError | SweepError):
        return str(error)
    for cause in (error, error.__cause__):  # Hydra wraps errors of the objects that it instantiates
        if isinstance(cause, ImportError) and any(text in str(cause) for text in _NO_ROOM_FOR_LIBRARY):
            return f"out of memory: {_one_line(cause)}. Raise the limit of this process (ulimit -v)."
        if cause is not None and _is_out_of_memory(cause):
            return f"out of memory: {_one_line(cause) or 'none is left'}. Try a smaller data.batch_size."
    if isinstance(error, HydraException | OmegaConfBaseException):
        return _hydra_message(error)
    if isinstance(error, OSError) and error.errno in _USER_OS_ERRORS:
        return f"cannot write {error.filename or _files_of_the_run()}: {error.strerror}."
    return None


def _is_out_of_memory(error: BaseException) -> bool:
    if isinstance(error, MemoryError) or (isinstance(error, OSError) and error.errno == errno.ENOMEM):
        return True
    return isinstance(error, RuntimeError) and any(text in str(error) for text in _OUT_OF_MEMORY)


def _files_of_the_run() -> str:
    folder = f" in {output_dir()}" if HydraConfig.initialized() else ""
    return f"the files of the run{folder}"


def _one_line(text: object) -> str:
    return " ".join(str(text).split())[:500]


def _hydra_message(error: Exception) -> str:
    cause: BaseException | None = error
    while cause is not None:  # of an object or an interpolation
        if isinstance(cause, UserError | SweepError):
            return str(cause)
        cause = cause.__cause__ or cause.__context__
    message = str(error).split("\nConfig search path:")[0]
    if isinstance(error.__cause__, OmegaConfBaseException):
        message += f"\n{error.__cause__}"
    key = re.search(r"Could not override '([\w.]+)'", message)
    return (key and _unknown_setting(key[1])) or message


def _unknown_setting(key: str) -> str | None:
    """Return a message with the settings beside the unknown setting `key`; None if there are none."""
    # The settings depend on the options chosen, so that these are composed without the values.
    conf = ROOT / "conf"
    groups = {str(path.relative_to(conf)) for path in conf.rglob("*") if path.is_dir()}
    chosen = [a for a in sys.argv[1:] if a.split("=")[0] in groups and "," not in a]
    with initialize_config_dir(str(conf), version_base="1.3"):
        config = compose(Path(sys.argv[0]).stem, overrides=chosen)
    node: Any = config
    parents: list[str] = []
    rest = key.split(".")
    while rest and isinstance(node, DictConfig) and rest[0] in node:
        parents.append(rest.pop(0))
        node = node[parents[-1]]
    if not rest or not isinstance(node, DictConfig):
        return None
    known = sorted(str(name) for name in node if not str(name).startswith("_"))
    near = difflib.get_close_matches(rest[0], known, n=1)
    hint = f" Did you mean {'.'.join([*parents, near[0], *rest[1:]])}?" if near else ""
    where = f"settings of {'.'.join(parents)}" if parents else "settings"
    return f"there is no setting {key}.{hint}\n{where}: {', '.join(known)}"
