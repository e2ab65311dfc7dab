"""What the commands share on Hydra's side: resuming, and errors in the user's terms."""

import contextlib
import difflib
import errno
import functools
import logging
import os
import re
import shlex
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

from hydra import compose, initialize_config_dir
from hydra.core.hydra_config import HydraConfig
from hydra.errors import HydraException
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf, open_dict
from omegaconf.errors import OmegaConfBaseException

from hydra_sweeps import interface
from hydra_sweeps.interface import FAILED, SweepError, quote
from mnist_cnn.errors import UserError
from mnist_cnn.files import atomic_write, write_json

ROOT = Path(__file__).parents[2]  # the folder of train.py and conf/
RESOLVED = "resolved"  # .hydra/resolved.yaml: a run's settings with nothing left to interpolate

# Whether HYDRA_FULL_ERROR was the user's; handed to the processes that a job starts.
_SHOW_ALL = "MNIST_CNN_FULL_ERROR"

_MULTIRUN = ("-m", "--multirun")

Result = TypeVar("Result")

# What a resumed run may be told anew: where and how long it runs, not what it learns.
_CHANGEABLE = (
    *("resume", "data.dir", "hydra.", "trainer.max_epochs", "trainer.accelerator", "trainer.devices"),
    *("trainer.limit_val_batches", "trainer.limit_test_batches", "trainer.max_time"),
)

log = logging.getLogger(__name__)

# What the file system may refuse for reasons that the user can see to.
_USERS_OS_ERRORS = {
    errno.EACCES,
    errno.EPERM,
    errno.EROFS,
    errno.ENOSPC,
    errno.EDQUOT,
    errno.ENOTDIR,
    errno.EEXIST,
    errno.ENAMETOOLONG,
}


# How torch says it, on a GPU and on the CPU.
_OUT_OF_MEMORY = ("out of memory", "can't allocate memory")


def _folder_name(overrides: str) -> str:
    """Return the overrides of a sweep's job as a name that every file system takes."""
    return overrides.replace("/", "-")[:200]


# Hydra asks for it in conf/train.yaml, before there is a job.
OmegaConf.register_new_resolver("folder_name", _folder_name, replace=True)


def job(function: Callable[[DictConfig], Result]) -> Callable[[DictConfig], Result]:
    """Make a job that is run on its own end at a user's mistake with the message alone.

    A job of a sweep says so and raises it, so that the sweep goes on with the next. Either leaves
    `failed.json` in its folder, and the traceback in its log.
    """

    @functools.wraps(function)
    def with_message(config: DictConfig) -> Result:
        folder = Path(HydraConfig.get().runtime.output_dir)
        if _writes():
            (folder / FAILED).unlink(missing_ok=True)
        try:
            return function(config)
        except (KeyboardInterrupt, SystemExit):
            # Lightning ends the process with SystemExit when it is interrupted.
            resolved = (folder / ".hydra" / f"{RESOLVED}.yaml").is_file()
            if resolved and _writes() and not interface.in_sweep():
                resume = shlex.quote(f"resume={os.path.relpath(folder)}")
                log.info(f"interrupted; go on with: python train.py {resume}")
            raise
        except Exception as error:
            message = _message(error)
            said = _one_line(message or f"{type(error).__name__}: {error}")
            if _writes():
                with contextlib.suppress(OSError):  # a full disk may be what failed
                    _log_traceback(error)
                    write_json(folder / FAILED, {"error": said})
            if interface.in_sweep():
                raise  # the sweep reports it
            if message is None or _show_everything():
                raise
            sys.exit(f"{Path(sys.argv[0]).name}: {message}")

    return with_message


def _writes() -> bool:
    """Whether this is the first process of a job; the others share its folder."""
    ranks = (os.environ.get(name, "0") for name in ("RANK", "LOCAL_RANK", "SLURM_PROCID"))
    return all(rank in ("", "0") for rank in ranks)


def _log_traceback(error: Exception) -> None:
    """Write the traceback of `error` to the log file alone; the console gets one line."""
    what = (type(error), error, error.__traceback__)
    record = log.makeRecord(log.name, logging.ERROR, __file__, 0, "failed", (), what)
    for handler in logging.getLogger().handlers:
        if isinstance(handler, logging.FileHandler):
            handler.handle(record)


def run(main: Callable[[], object]) -> None:
    """Run a Hydra entry point, with a user's mistakes told in one message and exit code 1.

    `HYDRA_FULL_ERROR=1` in the environment shows every error with its traceback.
    """
    everything = _show_everything()
    # With this set Hydra raises what went wrong instead of printing it in its own way.
    os.environ["HYDRA_FULL_ERROR"] = "1"
    os.environ[_SHOW_ALL] = "1" if everything else ""
    try:
        sys.argv[1:] = _arguments(sys.argv[1:])
        main()
    except Exception as error:
        message = _message(error)
        if message is None or everything:
            raise
        sys.exit(f"{Path(sys.argv[0]).name}: {message}")


def _show_everything() -> bool:
    return bool(os.environ.get(_SHOW_ALL, os.environ.get("HYDRA_FULL_ERROR")))


def plain(config: DictConfig) -> dict[str, Any]:
    """Return the settings as plain dicts, lists and values, with nothing left to interpolate."""
    settings = OmegaConf.to_container(config, resolve=True, throw_on_missing=True)
    assert isinstance(settings, dict)
    return {str(key): value for key, value in settings.items()}


def add_overrides_to_hparams(config: DictConfig) -> None:
    """Add to `config.hparams` what else was set on the command line, so that what was swept is there."""
    hparams = OmegaConf.to_container(config.hparams, resolve=False)
    assert isinstance(hparams, dict)
    there = {str(value).strip("${}") for value in hparams.values()} | {*hparams, "data.dir", "seed"}
    if config.resume and HydraConfig.get().mode is RunMode.RUN:
        return  # they were added when the run was started
    choices = HydraConfig.get().runtime.choices
    for override in HydraConfig.get().overrides.task:
        key = override.split("=")[0].lstrip("+~")
        value = choices[key] if key in choices else OmegaConf.select(config, key)
        if key not in there and key != "resume" and not key.startswith("sweep.") and value is not None:
            with open_dict(config.hparams):
                config.hparams[key] = value if isinstance(value, int | float) else str(value)


def refuse_to_overwrite(run_dir: Path, resume: str | None) -> None:
    """Raise `UserError` where a new run would be mixed with an old one in the same folder."""
    if not resume and any((run_dir / "checkpoints").glob("*.ckpt")):
        raise UserError(
            f"{run_dir} holds a run already. Go on with it by resume={run_dir}, or choose another folder "
            "with hydra.run.dir."
        )


def save_resolved(config: DictConfig, run_dir: Path) -> None:
    """Write the settings of the job that is running such that `train_command` runs the same again.

    Hydra's own .hydra/config.yaml keeps interpolations, of which ${now:} and ${hydra:job.num} come out
    differently in another process.
    """
    hydra_config = HydraConfig.get()
    again = OmegaConf.create(plain(config))
    again["hydra"] = {
        "output_subdir": None,
        "job": {"name": hydra_config.job.name, "chdir": False},
        "job_logging": OmegaConf.to_container(hydra_config.job_logging),
        "hydra_logging": OmegaConf.to_container(hydra_config.hydra_logging),
    }
    path = run_dir / ".hydra" / f"{RESOLVED}.yaml"
    path.parent.mkdir(parents=True, exist_ok=True)
    with atomic_write(path) as aside:
        OmegaConf.save(again, aside)


def train_command(run_dir: Path) -> list[str]:
    """Return the command that runs train.py with the settings, and in the folder, of a run."""
    return [sys.executable, str(ROOT / "train.py"), *_settings_of(run_dir)]


def _settings_of(run_dir: Path) -> list[str]:
    run_dir = run_dir.absolute()
    return [
        *("--config-path", str(run_dir / ".hydra")),
        *("--config-name", RESOLVED),
        f"hydra.run.dir={quote(str(run_dir))}",
    ]


def checkpoint_file(given: str | None) -> Path:
    """Return the path of a checkpoint, or raise `UserError` with those that there are."""
    if given is not None and Path(given).is_file():
        return Path(given)
    problem = "ckpt=PATH is missing" if given is None else f"ckpt={given} is not a file"
    there = _latest("checkpoints", "best.ckpt", "last.ckpt")
    raise UserError(f"{problem}. {there or 'There is no checkpoint under logs/ yet: run train.py.'}")


def _arguments(arguments: list[str]) -> list[str]:
    """Return the command line such that Hydra takes it.

    -m comes first, where argparse wants it; paths as a shell completes them are quoted; and what is to be
    resumed, a run or a sweep, brings its own settings.
    """
    arguments = sorted(arguments, key=lambda argument: argument not in _MULTIRUN)
    paths = {}
    for place, argument in enumerate(arguments):
        key, _, value = argument.partition("=")
        if key in ("resume", "ckpt", "sweep.resume") and value not in ("", "null"):
            paths[key] = value.strip("'\"")
            arguments[place] = f"{key}={quote(paths[key])}"
    if "sweep.resume" in paths:
        return interface.resume_arguments(arguments)
    if "resume" not in paths:
        return arguments
    run_dir = Path(paths["resume"])
    if not (run_dir / ".hydra" / f"{RESOLVED}.yaml").is_file():
        there = _latest(".hydra", f"{RESOLVED}.yaml")
        raise UserError(
            f"resume={run_dir} is not the folder of a run. {there or 'There is none under logs/ yet.'}"
        )
    if arguments[0] in _MULTIRUN:
        raise UserError("resume=RUN goes on with one run; leave out -m.")
    changed = dict(argument.split("=", 1) for argument in arguments if "=" in argument)
    fixed = [key for key in changed if not key.lstrip("+~").startswith(_CHANGEABLE)]
    if fixed:
        raise UserError(
            f"A resumed run keeps its settings, so that {fixed[0]} cannot be changed; only "
            f"{', '.join(key.rstrip('.') for key in _CHANGEABLE[1:])} can. For others start a new run."
        )
    if "trainer.max_epochs" in changed:
        scheduler = OmegaConf.load(run_dir / ".hydra" / f"{RESOLVED}.yaml").scheduler
        if "T_max" in scheduler or "total_steps" in scheduler:
            raise UserError(
                f"The learning rate of this run is planned to its end ({scheduler._target_}): "
                "trainer.max_epochs cannot be changed any more."
            )
        arguments.append(f"hparams.max_epochs={changed['trainer.max_epochs']}")
    return [*_settings_of(run_dir), *arguments]


def _latest(folder: str, *names: str) -> str:
    """Name the latest runs under logs/ that have one of the files `names` in `folder`."""
    found = {
        path if folder == "checkpoints" else path.parents[1]
        for name in names
        for path in Path("logs").glob(f"*/**/{folder}/{name}")
    }
    latest = sorted(found, key=lambda path: path.stat().st_mtime)[-3:]
    return "The latest: " + ", ".join(map(str, latest)) + "." if latest else ""


def _message(error: BaseException) -> str | None:
    """Return what to tell the user, or None where the error is not of the user's making."""
    if isinstance(error, UserError | SweepError):
        return str(error)
    for cause in (error, error.__cause__):  # Hydra wraps what a network raises when it is built
        if isinstance(cause, MemoryError | RuntimeError) and any(s in str(cause) for s in _OUT_OF_MEMORY):
            return f"out of memory: {_one_line(cause)} Try a smaller data.batch_size."
    if isinstance(error, HydraException | OmegaConfBaseException):
        return _hydra_message(error)
    if isinstance(error, OSError) and error.errno in _USERS_OS_ERRORS:
        return f"cannot write {error.filename or 'the files of the run'}: {error.strerror}."
    return None


def _one_line(said: object) -> str:
    return " ".join(str(said).split())[:500]


def _hydra_message(error: Exception) -> str:
    if isinstance(error.__cause__, UserError | SweepError):
        return str(error.__cause__)
    message = str(error).split("\nConfig search path:")[0]
    if isinstance(error.__cause__, OmegaConfBaseException):
        message += f"\n{error.__cause__}"
    key = re.search(r"Could not override '([\w.]+)'", message)
    return (key and _unknown_setting(key[1])) or message


def _unknown_setting(key: str) -> str | None:
    """Say that there is no setting `key`, and what there is beside it; None if there is nothing to say."""
    # What there is depends on the options chosen, so that these are composed without the values.
    conf = Path(sys.argv[0]).parent / "conf"
    groups = {str(path.relative_to(conf)) for path in conf.rglob("*") if path.is_dir()}
    chosen = [a for a in sys.argv[1:] if a.split("=")[0] in groups and "," not in a]
    with initialize_config_dir(str(conf.absolute()), version_base="1.3"):
        config = compose(Path(sys.argv[0]).stem, overrides=chosen)
    *parents, last = key.split(".")
    node = config
    for parent in parents:
        if not isinstance(node, DictConfig) or parent not in node:
            return None
        node = node[parent]
    if not isinstance(node, DictConfig) or last in node:
        return None
    known = sorted(str(name) for name in node if not str(name).startswith("_"))
    near = difflib.get_close_matches(last, known, n=1)
    path = ".".join([*parents, ""])
    hint = f" Did you mean {path}{near[0]}?" if near else ""
    where = f"{'.'.join(parents)} has" if parents else "the settings are"
    return f"there is no setting {key}.{hint}\n{where}: {', '.join(known)}"
