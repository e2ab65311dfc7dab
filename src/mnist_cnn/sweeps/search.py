"""A search: an Optuna study that is asked for the next job and told how each ended.

It knows nothing of what runs the jobs. The study lives in a journal beside them, or in a database that
several sweeps, on one machine or on many, share.
"""

import importlib.util
import math
import re
import time
import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from pkgutil import resolve_name
from typing import Any, Literal, TypeAlias

import numpy as np
from filelock import FileLock

from mnist_cnn.errors import UserError

try:
    import optuna
except ModuleNotFoundError as error:
    raise UserError("hydra/sweeper=optuna needs Optuna: pip install -e '.[search]'") from error

from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.exceptions import ExperimentalWarning, StorageInternalError
from optuna.storages import BaseStorage, JournalStorage, RDBStorage
from optuna.storages.journal import JournalFileBackend, JournalFileOpenLock
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, TrialState

from mnist_cnn.sweeps import space
from mnist_cnn.sweeps.compare import BY_VALIDATION

State: TypeAlias = Literal["finished", "pruned", "failed"]

JOURNAL = "study.journal"

# What a pruner can be shown after every epoch.
WATCHED = ("val/acc", "val/loss")

# What a run measures, of which a search may choose its objectives.
MEASURED = (*WATCHED, "train/acc", "train/loss", "seconds", "images_per_second", "epochs")

# What the samplers need beside Optuna, which loads it where it is first used.
_NEEDED = {"CmaEsSampler": ("cmaes", "scipy"), "GPSampler": ("scipy",), "QMCSampler": ("scipy",)}

# Attributes of a trial: its sweep's name, the number of its job there, the job's overrides, and whether
# another sweep was faster with the last trial of the study.
_SWEEP, _JOB, _OVERRIDES, _SURPLUS = "sweep", "job", "overrides", "surplus"


@dataclass(frozen=True)
class Proposal:
    """A job to be run: its number in the sweep, that of its trial in the study, and its overrides."""

    job: int
    trial: int
    overrides: list[str]


class Search:
    """Proposes jobs of one sweep, and learns from those of all sweeps that share its study.

    distributions: what is chosen from, by override key, see `space.split`.
    objectives: "maximize" or "minimize" by metric, none of the test images; see `chosen_objectives`.
    sampler, pruner: a class of optuna.samplers or optuna.pruners in "name", its arguments beside.
    folder: the sweep's; its name tells the sweep's trials from those of others.
    n_trials: jobs of the whole study, those of other sweeps and of earlier starts included.
    storage: an SQLAlchemy URL; None keeps the study in a journal in `folder`.
    study_name: that of the folder unless given; sweeps with one storage and name share the study.
    conditional: dotted path of a function `(config, trial) -> None` that suggests further parameters.

    Raises `UserError` for what cannot be searched, and for a storage that cannot be reached.
    """

    def __init__(
        self,
        distributions: space.Distributions,
        *,
        objectives: Mapping[str, str] | None,
        sampler: Mapping[str, Any],
        pruner: Mapping[str, Any],
        folder: Path,
        n_trials: int,
        seed: int,
        storage: str | None = None,
        study_name: str | None = None,
        conditional: str | None = None,
        config: Any = None,
    ) -> None:
        self.distributions = dict(distributions)
        self.objectives = chosen_objectives(objectives)
        self.folder = folder
        self.seed = seed
        self._sampler_choice = dict(sampler)
        self._config = config
        self._storage_url = storage
        self._suggest_more = None if conditional is None else _function(conditional)

        for name, given, lowest in (("n_trials", n_trials, 1), ("seed", seed, 0)):
            if not isinstance(given, int) or given < lowest:
                raise UserError(f"hydra.sweeper.{name}={given}: it should be a whole number from {lowest}.")
        directions = [StudyDirection[direction.upper()] for direction in self.objectives.values()]
        watched_metric(self.objectives, pruner)
        if not distributions and conditional is None:
            raise UserError(
                "There is nothing to search: sweep a setting, here or in hydra.sweeper.params, as in "
                "'optim.lr=tag(log, interval(1e-4, 1e-1))'."
            )
        self.n_trials = n_trials
        if self._sampler_choice.get("name") == "GridSampler":
            if conditional is not None:
                raise UserError("A grid has no conditional parameters: choose another hydra/sweeper/sampler.")
            self.n_trials = min(n_trials, math.prod(map(len, self._grid().values())))
        if self._sampler_choice.get("name") == "CmaEsSampler" and len(directions) > 1:
            raise UserError(
                f"hydra/sweeper/sampler=cmaes has one objective, not {len(directions)}: "
                "choose tpe, gp or random."
            )
        first_sampler = self._sampler(0)  # before the study, so that a mistake in its options leaves none
        made_pruner = _pruner(pruner)
        folder.mkdir(parents=True, exist_ok=True)
        with _reached(storage):
            backend = _open(storage, folder)
            self.study = optuna.create_study(
                storage=backend,
                study_name=_study_name(backend, storage, study_name, folder),
                directions=directions,
                load_if_exists=True,
                sampler=first_sampler,
                pruner=made_pruner,
            )
            self._claim_objectives()

    def propose(self) -> Proposal | None:
        """Return the next job; None where the study has all its jobs, or a grid no point left."""
        with _reached(self._storage_url):
            trials = self._trials()
            if len(_jobs(trials)) >= self.n_trials:
                return None
            job = max((trial.user_attrs[_JOB] for trial in trials if self._is_mine(trial)), default=-1) + 1
            # With its sweep and job from the beginning, so that a kill leaves nothing without an owner.
            number = self._add_trial({_SWEEP: self.folder.name, _JOB: job})
            if len(_jobs(trial for trial in self._trials() if trial.number < number)) >= self.n_trials:
                # Another sweep on this study took the last one at the same moment.
                self._trial(number, optuna.samplers.RandomSampler()).set_user_attr(_SURPLUS, True)
                self._finish(number, TrialState.FAIL)
                return None
            return self._suggested(job, number)

    def left_over(self) -> list[Proposal]:
        """Return the jobs of an earlier start of this sweep that did not end well, by their numbers.

        One that was running when its process was killed goes on as the same trial. One that failed is
        tried again as a new trial with the same parameters.
        """
        proposals = []
        with _reached(self._storage_url):
            latest = {trial.user_attrs[_JOB]: trial for trial in self._trials() if self._is_mine(trial)}
            for job, trial in sorted(latest.items()):
                if trial.state == TrialState.RUNNING:
                    proposals.append(self._suggested(job, trial.number))
                elif trial.state == TrialState.FAIL:
                    # Its system attributes too: there samplers and pruners keep where it stands.
                    proposals.append(self._suggested(job, self._add_trial(trial.user_attrs, trial)))
        return proposals

    def tell(self, proposal: Proposal, state: State, values: Sequence[float | None] | None = None) -> None:
        """Say how a job ended; `values` of a finished one in the order of `objectives`.

        A value that is missing or not finite makes the trial a failed one. A trial that was told before
        stays as it is.
        """
        with _reached(self._storage_url):
            if state == "pruned":
                self._finish(proposal.trial, TrialState.PRUNED)
                return
            known = [float(value) for value in values or () if value is not None]
            good = len(known) == len(self.objectives) and all(map(math.isfinite, known))
            if state == "finished" and good:
                self._finish(proposal.trial, TrialState.COMPLETE, known)
            else:
                self._finish(proposal.trial, TrialState.FAIL)

    def _suggested(self, job: int, number: int) -> Proposal:
        """Return the proposal of a trial, whose parameters are chosen unless a former start chose all."""
        attributes = self.study.get_trials(deepcopy=False)[number].user_attrs
        if _OVERRIDES not in attributes:
            trial = self._trial(number, self._sampler(number))
            for name, distribution in self.distributions.items():
                _suggest(trial, name, distribution)
            if self._suggest_more is not None:
                self._suggest_more(self._config, trial)
            overrides = [space.as_override(name, value) for name, value in trial.params.items()]
            trial.set_user_attr(_OVERRIDES, overrides)
            return Proposal(job, number, overrides)
        return Proposal(job, number, list(attributes[_OVERRIDES]))

    def _sampler(self, number: int) -> optuna.samplers.BaseSampler:
        """Return the sampler that chooses the parameters of a trial.

        There is one for each, seeded by the trial's number: a search that is resumed goes on as if it had
        never been interrupted, and sweeps on one study do not propose the same points.
        """
        options = dict(self._sampler_choice)
        name = str(options.pop("name", ""))
        for package in _NEEDED.get(name, ()):
            if importlib.util.find_spec(package) is None:
                raise UserError(
                    f"hydra.sweeper.sampler.name={name} needs {package}: pip install -e '.[search]'"
                )
        options["seed"] = int(np.random.SeedSequence((self.seed, number)).generate_state(1)[0])
        if name == "GridSampler":
            # The seed shuffles the grid, which has to be the same one for all trials.
            return _Grid(self._grid(), seed=self.seed)
        if name == "QMCSampler":
            # The seed is that of the sequence; where a trial stands in it is kept in the study.
            independent = optuna.samplers.RandomSampler(options["seed"])
            options |= {"seed": self.seed, "independent_sampler": independent}
        made = _made("sampler", _named(optuna.samplers, "sampler", name), options)
        assert isinstance(made, optuna.samplers.BaseSampler)
        return made

    def _claim_objectives(self) -> None:
        """Write the objectives' names into the study; raise `UserError` where it has others."""
        study = self.study
        names = study.metric_names or list(self.objectives)
        there = {name: one.name.lower() for name, one in zip(names, study.directions, strict=False)}
        if there != self.objectives:
            raise UserError(
                f"The study {study.study_name} has the objectives {there} already, not {self.objectives}: "
                "choose another hydra.sweeper.study_name."
            )
        if study.metric_names is None:
            with warnings.catch_warnings():
                # Names of metrics are experimental to Optuna; they are only shown, in plots and tables.
                warnings.simplefilter("ignore", ExperimentalWarning)
                study.set_metric_names(names)

    def _grid(self) -> dict[str, list[space.Value]]:
        grid = {}
        for name, distribution in self.distributions.items():
            points = space.values(distribution)
            if points is None:
                raise UserError(
                    f"{name} is continuous, which makes no grid: give choices, as in {name}=0.01,0.1, or a "
                    f"step, as in {name}=range(0,1,0.1)."
                )
            grid[name] = points
        return grid

    def _trials(self) -> list[FrozenTrial]:
        """Return the trials of all sweeps on this study, in the order they were made."""
        trials = self.study.get_trials(deepcopy=False)
        return [one for one in trials if _JOB in one.user_attrs and _SURPLUS not in one.user_attrs]

    def _is_mine(self, trial: FrozenTrial) -> bool:
        # A journal is of the folder it is in, which may have been renamed since.
        return self._storage_url is None or trial.user_attrs[_SWEEP] == self.folder.name

    def _add_trial(self, attributes: Mapping[str, Any], again: FrozenTrial | None = None) -> int:
        """Add a running trial, one `again` with its parameters, and return its number."""
        copied: dict[str, Any] = {}
        if again is not None:
            copied = {
                "params": again.params,
                "distributions": again.distributions,
                "system_attrs": again.system_attrs,
                "intermediate_values": again.intermediate_values,
            }
        template = optuna.create_trial(state=TrialState.RUNNING, user_attrs=dict(attributes), **copied)
        # Study.ask() makes a trial without attributes, and Study.add_trial() does not say which it made.
        storage = self.study._storage
        trial_id = storage.create_new_trial(self.study._study_id, template)
        return storage.get_trial_number_from_id(trial_id)

    def _trial(self, number: int, sampler: optuna.samplers.BaseSampler) -> optuna.Trial:
        self.study.sampler = sampler
        return _trial(self.study, number)

    def _finish(self, number: int, state: TrialState, values: list[float] | None = None) -> None:
        self.study.tell(number, values, state, skip_if_finished=True)


def attach(
    trial: int,
    *,
    folder: Path,
    pruner: Mapping[str, Any],
    storage: str | None = None,
    study_name: str | None = None,
) -> optuna.Trial:
    """Return a trial of the study of `Search`, in another process, to report to and to ask for pruning.

    Raises `UserError` where the study or its trial is gone.
    """
    with _reached(storage):
        backend = _open(storage, folder)
        name = _study_name(backend, storage, study_name, folder)
        try:
            study = optuna.load_study(
                study_name=name,
                storage=backend,
                sampler=optuna.samplers.RandomSampler(),  # it has chosen already
                pruner=_pruner(pruner),
            )
            return _trial(study, trial)
        except KeyError as error:
            where = _shown(storage) if storage else folder / JOURNAL
            raise UserError(f"There is no trial {trial} of the study {name} in {where}.") from error


def chosen_objectives(given: Mapping[str, str] | None) -> dict[str, str]:
    """Return the objectives, validation accuracy where none are given.

    Raises `UserError` for what a search must not go by.
    """
    chosen = dict(BY_VALIDATION if given is None else given)
    if not chosen:
        raise UserError("hydra.sweeper.objectives is empty: give a metric, as in {val/acc:maximize}.")
    for metric, direction in chosen.items():
        if metric not in MEASURED and not metric.startswith("test/"):
            raise UserError(
                f"hydra.sweeper.objectives has {metric}, which no run measures: {', '.join(MEASURED)}."
            )
        if metric.startswith("test/"):
            raise UserError(
                f"hydra.sweeper.objectives has {metric}: a search chooses by validation, as in "
                "{val/acc:maximize}. What it has chosen is then tested once, on images it has not seen."
            )
        if direction not in ("maximize", "minimize"):
            raise UserError(
                f"hydra.sweeper.objectives has {metric}:{direction}, which is neither maximize nor minimize."
            )
    return chosen


def watched_metric(objectives: Mapping[str, str] | None, pruner: Mapping[str, Any]) -> str | None:
    """Return the metric by which `pruner` judges a job after every epoch; None where it never prunes.

    Raises `UserError` where there is not one objective that is known then.
    """
    if pruner.get("name") == "NopPruner":
        return None
    metrics = list(chosen_objectives(objectives))
    if len(metrics) == 1 and metrics[0] in WATCHED:
        return metrics[0]
    problem = "several objectives" if len(metrics) > 1 else f"the objective {metrics[0]}"
    raise UserError(
        f"A search with {problem} cannot be pruned, only one by {' or '.join(WATCHED)} alone: "
        "type hydra/sweeper/pruner=none."
    )


class _Grid(optuna.samplers.GridSampler):
    """A grid whose end is seen by the number of its points, not by an error from `Study.tell`."""

    def after_trial(self, *args: Any, **kwargs: Any) -> None:
        pass


class _KernelLock(JournalFileOpenLock):
    """A lock that the kernel takes from a process that is killed.

    Optuna's own locks are files that stay behind then, and cost everyone else half a minute.
    """

    def __init__(self, path: str) -> None:
        super().__init__(path, grace_period=None)
        # Not the name of Optuna's lock: its own programs would take the file for one that was left.
        self._lock = FileLock(f"{path}-lock")

    def acquire(self) -> bool:
        self._lock.acquire()
        return True

    def release(self) -> None:
        self._lock.release()


def _open(url: str | None, folder: Path) -> BaseStorage:
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    if url is None:
        journal = str(folder.absolute() / JOURNAL)
        return JournalStorage(JournalFileBackend(journal, _KernelLock(journal)))

    from sqlalchemy.exc import ArgumentError
    from sqlalchemy.pool import NullPool

    options: dict[str, Any] = {}
    if url.startswith("sqlite"):
        options["timeout"] = 60  # seconds to wait for another process that writes
    if re.match(r"postgres(ql)?(\+psycopg)?://", url):
        if importlib.util.find_spec("psycopg") is None:
            raise UserError(
                f"hydra.sweeper.storage={_shown(url)} needs psycopg: pip install -e '.[postgresql]'"
            )
        url = re.sub(r"^\w+(\+psycopg)?://", "postgresql+psycopg://", url)
        options["connect_timeout"] = 10
    try:
        # No pool: a job that trains for an hour between two reports would find its connection closed, and
        # many jobs would use up those of the server.
        return _database(url, {"poolclass": NullPool, "connect_args": options})
    except ArgumentError as error:
        raise UserError(
            f"hydra.sweeper.storage={_shown(url)} is no URL of a database, such as sqlite:///study.db or "
            "postgresql://user:password@host/database; null keeps a file in the sweep's folder."
        ) from error
    except ImportError as error:
        raise UserError(f"hydra.sweeper.storage={_shown(url)} needs its driver: {error}") from error


def _database(url: str, engine: dict[str, Any], tries: int = 10) -> RDBStorage:
    from sqlalchemy.exc import SQLAlchemyError

    try:
        return RDBStorage(url, engine_kwargs=engine)
    except (SQLAlchemyError, StorageInternalError) as error:
        # Two processes that start on an empty database both make its tables, and one is refused.
        if tries == 1 or not re.search("(?i)already exists|duplicate|unique constraint", str(error)):
            raise
    time.sleep(0.3)
    return _database(url, engine, tries - 1)


@contextmanager
def _reached(url: str | None) -> Iterator[None]:
    """Raise `UserError` where the database at `url` cannot be reached in the block."""
    if url is None:
        yield
        return
    from sqlalchemy.exc import SQLAlchemyError

    try:
        yield
    except (SQLAlchemyError, StorageInternalError) as error:
        cause: BaseException = error
        while not isinstance(cause, SQLAlchemyError) and cause.__cause__ is not None:
            cause = cause.__cause__
        said = str(getattr(cause, "orig", None) or cause).strip().split("\n")[0]
        raise UserError(f"hydra.sweeper.storage={_shown(url)} cannot be used: {said}") from error


def _shown(url: str) -> str:
    """Return a URL without its password, also one that is none."""
    return re.sub(r"(password=)[^&]*", r"\1***", re.sub(r"//([^:/@]*):.*@", r"//\1:***@", url))


def _study_name(backend: BaseStorage, url: str | None, given: str | None, folder: Path) -> str:
    if given is None and url is None:
        # The one study of a journal, also where its folder has been renamed since.
        for name in optuna.get_all_study_names(backend):
            return name
    return given or folder.name


def _trial(study: optuna.Study, number: int) -> optuna.Trial:
    storage = study._storage  # Optuna has no other way to a trial that another process began
    return optuna.Trial(study, storage.get_trial_id_from_study_id_trial_number(study._study_id, number))


def _jobs(trials: Iterable[FrozenTrial]) -> set[tuple[str, int]]:
    return {(trial.user_attrs[_SWEEP], trial.user_attrs[_JOB]) for trial in trials}


def _suggest(trial: optuna.Trial, name: str, distribution: optuna.distributions.BaseDistribution) -> None:
    if isinstance(distribution, CategoricalDistribution):
        trial.suggest_categorical(name, distribution.choices)
    elif isinstance(distribution, IntDistribution):
        step, log = distribution.step, distribution.log
        trial.suggest_int(name, distribution.low, distribution.high, step=step, log=log)
    else:
        assert isinstance(distribution, FloatDistribution)
        low, high = distribution.low, distribution.high
        trial.suggest_float(name, low, high, step=distribution.step, log=distribution.log)


def _function(path: str) -> Any:
    try:
        found = resolve_name(path)
    except (ImportError, AttributeError, ValueError) as error:
        raise UserError(f"hydra.sweeper.conditional={path} cannot be found: {error}") from error
    if not callable(found):
        raise UserError(f"hydra.sweeper.conditional={path} is not a function of (config, trial).")
    return found


def _pruner(choice: Mapping[str, Any]) -> optuna.pruners.BasePruner:
    options = dict(choice)
    kind = _named(optuna.pruners, "pruner", str(options.pop("name", "")))
    made = _made("pruner", kind, options)
    assert isinstance(made, optuna.pruners.BasePruner)
    return made


def _named(module: Any, what: str, name: str) -> Any:
    known = [one for one in module.__all__ if one.endswith(what.capitalize()) and not one.startswith("Base")]
    # It tells the end of its points by an error; a grid has the same.
    known = [one for one in known if one != "BruteForceSampler"]
    if name not in known:
        raise UserError(f"hydra.sweeper.{what}.name={name} is none of Optuna's: {', '.join(known)}.")
    return getattr(module, name)


def _made(what: str, kind: Any, options: Mapping[str, Any]) -> Any:
    try:
        with warnings.catch_warnings():
            # Optuna warns of some that their arguments may change. They have been chosen by name.
            warnings.simplefilter("ignore", ExperimentalWarning)
            return kind(**options)
    except (TypeError, ValueError) as error:
        raise UserError(f"hydra.sweeper.{what}: {kind.__name__} refuses its settings: {error}") from error
