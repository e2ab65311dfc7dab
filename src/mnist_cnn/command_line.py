"""The command line in the form that Hydra accepts, also of a run that is resumed."""

import os
import re
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException
from omegaconf import OmegaConf

from hydra_sweeps import METRICS, RESOLVED, quote, unquote
from mnist_cnn.errors import UserError, one_line
from mnist_cnn.ranks import is_first_rank, processes_started
from mnist_cnn.trust import read_settings

ROOT = Path(__file__).parents[2]  # the folder of train.py and conf/

# Settings that a resumed run may change: where and how long it runs, not what it learns.
_CHANGEABLE = (
    *("resume", "data.dir", "hydra.", "trainer.max_epochs", "trainer.accelerator", "trainer.devices"),
    *("trainer.limit_val_batches", "trainer.limit_test_batches", "trainer.max_time", "trainer.rank_timeout"),
    *("trust", "checkpoint.", "compile"),
)

# Settings that are paths, relative to the folder in which the command was typed.
PATHS = ("data.dir", "ckpt", "init_from", "images", "out")

# Paths that Hydra reads without quotes, and as text.
_PLAIN_PATH = re.compile(
    r"(?!(?:null|true|false|inf|nan)\Z)(?:\.{0,2}/|[a-z_])[\w./-]*", re.IGNORECASE | re.ASCII
)

# Options of Hydra that are followed by a value.
_OPTIONS_WITH_VALUE = {
    *("-c", "--cfg", "-p", "--package", "-cp", "--config-path", "-cn", "--config-name"),
    *("-cd", "--config-dir", "--experimental-rerun"),
}


def for_hydra(arguments: list[str]) -> list[str]:
    """Return the command line in the form that Hydra accepts.

    Options come first, where argparse needs them; paths as a shell completes them are quoted; and a run or
    sweep that is resumed brings its own settings.
    """
    options, overrides = split(arguments)
    folders = {}
    for index, override in enumerate(overrides):
        key, _, value = override.partition("=")
        group = key.lstrip("+~").partition("@")[0]
        if group and (ROOT / "conf" / group).is_dir():
            _check_choice(group, override)
        if key in ("hydra.launcher", "hydra.sweeper") and not value.startswith("{"):
            raise UserError(f"{override}: choose with a slash: {key.replace('.', '/')}={value}.")
        if value in ("", "null"):
            continue
        if key in ("resume", "sweep.resume"):
            folders[key] = unquote(value)
            overrides[index] = f"{key}={quote(folders[key])}"
        elif key in PATHS:
            overrides[index] = f"{key}={_quoted_paths(value, _is_multirun(options))}"
    if "resume" not in folders:
        return [*options, *overrides]
    if _is_multirun(options):
        raise UserError("resume=RUN resumes one run; leave out -m.")
    run_dir = Path(folders["resume"])
    if (run_dir / "multirun.yaml").is_file():  # Hydra's file in the folder of a sweep
        raise UserError(f"resume={run_dir} is the folder of a sweep. Resume it with sweep.resume={run_dir}.")
    resolved = run_dir / RESOLVED
    if not resolved.is_file():
        latest = message_with_latest(*RESOLVED.parts)
        raise UserError(
            f"resume={run_dir} is not the folder of a run. "
            f"{latest or 'No run exists under logs/ yet: start one with python train.py.'}"
        )
    trusted = _trusted(overrides)
    settings = read_settings(resolved, trusted, hydra_section("train"))
    overrides += _changes(settings, overrides)
    if not options:  # of Hydra: to show the settings, for example
        _stop_if_finished(run_dir, overrides)
    # those of the command line alone: the folder does not say whom to trust
    overrides = [one for one in overrides if not one.startswith("trust=")]
    overrides.append(f"++trust=[{','.join(map(quote, trusted))}]")
    return [*options_of(run_dir), *options, run_dir_override(run_dir), *overrides]


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


def of_this_rank(arguments: list[str]) -> list[str]:
    """Return the overrides for a process that torchrun or srun has started."""
    added = [] if is_first_rank() else ["hydra.output_subdir=null"]  # written by the first
    started = processes_started()
    if started is None:
        return added
    options, overrides = split(arguments)
    if _is_multirun(options):
        raise UserError(
            "torchrun and srun start the processes of one run; start a sweep with python train.py -m."
        )
    for name, count in zip(("trainer.devices", "trainer.num_nodes"), started, strict=True):
        if not any(override.startswith(f"{name}=") for override in overrides):
            added.append(f"{name}={count}")
    return added


def _trusted(overrides: list[str]) -> list[str]:
    """Return the modules in trust=[…]; raises `UserError` for invalid names."""
    given = [override.partition("=")[2] for override in overrides if override.startswith("trust=")]
    names = [name.strip(" '\"") for value in given[-1:] for name in value.strip(" []").split(",")]
    names = [name for name in names if name]
    for name in names:
        if not all(part.isidentifier() for part in name.split(".")):
            raise UserError(f"trust={given[-1]}: {name!r} is not a module name. Write trust=[my_package].")
    return names


def _quoted_paths(value: str, is_sweep: bool) -> str:
    """Return a path, a list `[a,b]`, or values of a sweep `a,b`, with quotes where Hydra needs them."""
    if os.path.exists(value) or unquote(value) != value:
        return _quoted_path(value)
    if value.startswith("[") and value.endswith("]"):
        return f"[{','.join(map(_quoted_path, value[1:-1].split(',')))}]"
    if is_sweep and not re.match(r"(choice|glob)\(", value):
        return ",".join(one if one == "null" else _quoted_path(one) for one in value.split(","))
    return value if is_sweep else _quoted_path(value)


def _quoted_path(value: str) -> str:
    path = unquote(value.strip())
    return path if _PLAIN_PATH.fullmatch(path) else quote(path)


def split(arguments: list[str]) -> tuple[list[str], list[str]]:
    """Return the options, with their values, and the overrides of a command line."""
    options: list[str] = []
    overrides: list[str] = []
    previous = ""
    for argument in arguments:
        is_option = argument.startswith("-") or previous in _OPTIONS_WITH_VALUE
        (options if is_option else overrides).append(argument)
        previous = argument
    return options, overrides


def _is_multirun(options: list[str]) -> bool:
    return any(option in ("-m", "--multirun") for option in options)


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
    return "" if value is None else f" from {one_line(value)[:100]}"


def message_with_latest(folder: str, *names: str) -> str:
    """Return a sentence with the latest runs under logs/ that have one of the files `names` in `folder`."""
    found = {
        path if folder == "checkpoints" else path.parents[1]
        for name in names
        for path in Path("logs").glob(f"*/**/{folder}/{name}")
    }
    latest = sorted(found, key=lambda path: path.stat().st_mtime)[-3:]
    return "The latest: " + ", ".join(map(str, latest)) + "." if latest else ""


def hydra_section(name: str) -> dict[str, Any]:
    """Return the settings of Hydra with which a job is started again: those of this repository."""
    section: dict[str, Any] = {"output_subdir": None, "job": {"name": name, "chdir": False}}
    for group in ("job_logging", "hydra_logging"):
        settings = OmegaConf.load(ROOT / "conf/hydra" / group / "mnist_cnn.yaml")
        section[group] = OmegaConf.to_container(settings)
    return section


def options_of(folder: Path, settings: Path = RESOLVED) -> list[str]:
    """Return the options with which Hydra takes the settings of a run from a file in its folder."""
    file = folder.absolute() / settings
    return ["--config-path", str(file.parent), "--config-name", file.stem]


def run_dir_override(run_dir: Path) -> str:
    """Return the override with which a run uses the folder `run_dir`."""
    return f"hydra.run.dir={quote(str(run_dir.absolute()))}"
