"""A search: an Optuna study that proposes the next job and records how each ended.

It is kept in a journal in the folder of its sweep, or in a database that several sweeps share. It does not
know how jobs are run.
"""

import json
import time
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from pkgutil import resolve_name
from typing import Any

import numpy as np
import optuna
from filelock import FileLock
from hydra.utils import instantiate, to_absolute_path
from omegaconf import OmegaConf
from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.exceptions import ExperimentalWarning, StorageInternalError
from optuna.storages import BaseStorage, JournalStorage, RDBStorage
from optuna.storages.journal import JournalFileBackend
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, TrialState

from hydra_sweeps import definition
from hydra_sweeps.commands import AppCommand
from hydra_sweeps.contract import Job, SweepError, integer
from hydra_sweeps.files import printable
from hydra_sweeps.goal import MODES
from hydra_sweeps.grammar import as_override
from hydra_sweeps.outcome import Status
from hydra_sweeps.space import Distributions

# Attributes of a trial: the name of its sweep, and the number of its job there.
_SWEEP, _JOB = "sweep", "job"


@dataclass(eq=False)
class StudySearch:
    """Proposes jobs of one sweep, and learns from those of all sweeps that share its study.

    distributions: the search space by override key, see `space.distributions_of`.
    objectives: "maximize" or "minimize" by metric, see `check_objectives`.
    folder: the sweep's. sweep: the name by which its trials are told from those of other sweeps.
    The others are those of conf/hydra/sweeper/optuna.yaml. Raises `SweepError` for unusable ones.
    """

    distributions: Distributions
    objectives: Mapping[str, str]
    sampler: Mapping[str, Any]
    pruner: Mapping[str, Any]
    folder: Path
    sweep: str
    n_trials: int
    seed: int
    storage: str | None = None
    study_name: str | None = None
    conditional: str | None = None
    config: Any = None

    def __post_init__(self) -> None:
        if len(self.objectives) > 1 and prunes(self.pruner):
            raise SweepError("Several objectives cannot be pruned: add hydra/sweeper/pruner=none.")
        if not self.distributions and self.conditional is None:
            raise SweepError(
                "There is nothing to search. Sweep a setting, here or in hydra.sweeper.params, as in "
                "'optim.lr=tag(log, interval(1e-4, 1e-1))'."
            )
        integer("hydra.sweeper.n_trials", self.n_trials)
        integer("hydra.sweeper.seed", self.seed, least=0)
        self._suggest_more = None if self.conditional is None else _function(self.conditional)

        # Before the storage, so that none is created if the options are wrong.
        options: dict[str, Any] = {"sampler": _made(self.sampler), "pruner": _made(self.pruner)}
        self.folder.mkdir(parents=True, exist_ok=True)
        self._storage = open_storage(self.storage, self.folder)
        self.study = optuna.create_study(
            storage=self._storage,
            study_name=self.study_name or self.sweep,
            directions=[StudyDirection[one.upper()] for one in self.objectives.values()],
            load_if_exists=True,
            **options,
        )
        self._claim_objectives()

    def is_full(self, trials: Sequence[FrozenTrial]) -> bool:
        """Return whether these are the trials of all jobs; a job that failed may have several."""
        jobs = {(trial.user_attrs.get(_SWEEP), trial.user_attrs[_JOB]) for trial in trials}
        return len(jobs) >= self.n_trials

    def propose(self) -> Job | None:
        """Return the next job, or None if the study has all its jobs."""
        trials = self.trials()
        if self.is_full(trials):
            return None
        number = max((one.user_attrs[_JOB] for one in trials if self._is_mine(one)), default=-1) + 1
        # With its sweep and job from the beginning, so that a kill leaves no trial without an owner.
        return self._suggested(number, self._add_trial({_SWEEP: self.sweep, _JOB: number}))

    def left_over(self) -> list[Job]:
        """Return the jobs of earlier starts of this sweep that have not finished, ordered by number.

        A job that was running keeps its trial; one that failed gets a new trial with the same parameters.
        """
        jobs = []
        latest = {trial.user_attrs[_JOB]: trial for trial in self.trials() if self._is_mine(trial)}
        for number, trial in sorted(latest.items()):
            if trial.state == TrialState.RUNNING:
                jobs.append(self._suggested(number, trial.number))
            elif trial.state == TrialState.FAIL:
                jobs.append(self._suggested(number, self._add_trial(trial.user_attrs, trial)))
        return jobs

    def tell(self, job: Job, status: Status, values: Sequence[float | None] = ()) -> None:
        """Record how a job ended; `values` of a finished one in the order of `objectives`.

        If a value is missing, the trial has failed. A trial that has ended before is not changed.
        """
        assert job.trial is not None
        state, known = TrialState.FAIL, None
        if status == "pruned":
            state = TrialState.PRUNED
        elif status == "finished" and None not in values:
            state, known = TrialState.COMPLETE, [float(value) for value in values if value is not None]
        self.study.tell(job.trial, known, state, skip_if_finished=True)

    def _suggested(self, number: int, trial_number: int) -> Job:
        """Return the job of a trial; an earlier start may have chosen its parameters."""
        self.study.sampler = self._sampler(trial_number)
        trial = _trial(self.study, self._storage, trial_number)
        try:
            self._suggest(trial)
            # The study may be a stranger's: of its parameters, those that this search proposes.
            chosen = optuna.trial.FixedTrial(trial.params)
            with warnings.catch_warnings():
                warnings.simplefilter("error")  # a value that is out of bounds
                self._suggest(chosen)
        except (ValueError, UserWarning) as error:
            raise SweepError(f"Trial {trial_number} of {self.folder} cannot be proposed: {error}") from error
        overrides = [as_override(name, trial.params[name]) for name in chosen.distributions]
        return Job(number, overrides, trial_number)

    def _suggest(self, trial: optuna.trial.BaseTrial) -> None:
        for name, distribution in self.distributions.items():
            if isinstance(distribution, CategoricalDistribution):
                trial.suggest_categorical(name, distribution.choices)
                continue
            assert isinstance(distribution, IntDistribution | FloatDistribution)
            is_integer = isinstance(distribution, IntDistribution)
            suggest: Any = trial.suggest_int if is_integer else trial.suggest_float
            suggest(name, distribution.low, distribution.high, step=distribution.step, log=distribution.log)
        if self._suggest_more is not None:
            self._suggest_more(self.config, trial)

    def _sampler(self, number: int) -> Any:
        """Return the sampler that chooses the parameters of a trial.

        Each trial has its own, seeded by the trial's number, so that a resumed search proposes what it would
        have proposed without the interruption, and sweeps on one study do not propose the same points.
        """
        more: dict[str, Any] = {"seed": int(np.random.SeedSequence((self.seed, number)).generate_state(1)[0])}
        if str(self.sampler.get("_target_")).endswith(".QMCSampler"):
            # The seed is that of the sequence; the study keeps the position of each trial.
            more = {"seed": self.seed, "independent_sampler": optuna.samplers.RandomSampler(more["seed"])}
        return _made(self.sampler, **more)

    def _claim_objectives(self) -> None:
        """Write the objectives into the study; raise `SweepError` if it has others."""
        directions = [one.name.lower() for one in self.study.directions]
        former = dict(zip(self.study.metric_names or self.objectives, directions, strict=False))
        if list(former.items()) != list(self.objectives.items()):
            raise SweepError(
                f"The study {self.study.study_name} has the objectives {former}, not {self.objectives}: "
                "choose another hydra.sweeper.study_name."
            )
        with quiet():
            self.study.set_metric_names(list(self.objectives))

    def trials(self) -> list[FrozenTrial]:
        """Return the trials of all sweeps on this study, in the order of their creation."""
        trials = self.study.get_trials(deepcopy=False)
        return [trial for trial in trials if type(trial.user_attrs.get(_JOB)) is int]

    def _is_mine(self, trial: FrozenTrial) -> bool:
        return trial.user_attrs.get(_SWEEP) == self.sweep

    def _add_trial(self, attributes: Mapping[str, Any], repeated: FrozenTrial | None = None) -> int:
        """Add a running trial, with the parameters of `repeated` if given, and return its number."""
        # Samplers and pruners keep their state in the system attributes.
        names = ("params", "distributions", "system_attrs", "intermediate_values") if repeated else ()
        kept = {name: getattr(repeated, name) for name in names}
        template = optuna.create_trial(state=TrialState.RUNNING, user_attrs=dict(attributes), **kept)
        # Study.ask() creates a trial without attributes, and Study.add_trial() does not return its number.
        study_id = self._storage.get_study_id_from_name(self.study.study_name)
        trial_id = self._storage.create_new_trial(study_id, template)
        self.study.get_trials(deepcopy=False)  # by which the cache of a database learns of it
        return self._storage.get_trial_number_from_id(trial_id)


@lru_cache(maxsize=1)  # a job has one trial
def attach(sweep: Path, number: int) -> optuna.Trial:
    """Return a trial of the search in the folder `sweep`, to report to it from another process."""
    # The definition as it was typed: ${oc.env:PASSWORD} is not in any file.
    options, command = OmegaConf.create(definition.read(sweep)).hydra.sweeper, AppCommand.read(sweep)
    assert command is not None, "written by the sweep before its first job"
    storage = open_storage(options.storage, sweep)
    study = optuna.load_study(
        study_name=options.study_name or command.sweep,
        storage=storage,
        sampler=optuna.samplers.RandomSampler(),  # not used
        pruner=_made(options.pruner),
    )
    return _trial(study, storage, number)


def prunes(pruner: Mapping[str, Any]) -> bool:
    """Return whether a pruner with these options may stop a job."""
    return not str(pruner.get("_target_")).endswith(".NopPruner")


def check_objectives(objectives: Mapping[str, str]) -> dict[str, str]:
    """Return the objectives; raises `SweepError` for those that a search must not use."""
    given = dict(objectives) if isinstance(objectives, Mapping) else {}
    if not given or not set(given.values()) <= set(MODES.values()):
        raise SweepError(
            f"hydra.sweeper.objectives={objectives}: write 'hydra.sweeper.objectives={{val/acc:maximize}}', "
            "with maximize or minimize for each metric."
        )
    if any(metric.startswith("test/") for metric in given):
        raise SweepError(f"hydra.sweeper.objectives={given}: a search must not choose by test data.")
    return given


def _trial(study: optuna.Study, storage: BaseStorage, number: int) -> optuna.Trial:
    """Return a trial that another process, or an earlier start, has created."""
    study_id = storage.get_study_id_from_name(study.study_name)
    return optuna.Trial(study, storage.get_trial_id_from_study_id_trial_number(study_id, number))


def _function(path: str) -> Any:
    try:
        return resolve_name(path)
    except (ImportError, AttributeError, ValueError) as error:
        raise SweepError(f"hydra.sweeper.conditional={path} cannot be found: {error}") from error


def _made(options: Mapping[str, Any], **more: Any) -> Any:
    """Return the sampler or pruner with these options."""
    with quiet():
        return instantiate(options, **more)


@contextmanager
def quiet() -> Iterator[None]:
    """Hide what Optuna warns of: a class that may change, and an epoch reported again after a kill."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ExperimentalWarning)
        warnings.filterwarnings("ignore", message=".* is already reported")
        yield


# --- where a study is kept -----------------------------------------------------------------------


def open_storage(url: str | None, folder: Path) -> BaseStorage:
    """Return the storage at an SQLAlchemy URL; without one the journal in `folder`."""
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    return _open_journal(folder / "study.journal") if url is None else _open_database(url)


def _open_journal(path: Path) -> BaseStorage:
    # The kernel releases this lock when its process is killed. Optuna's own locks, which have another name,
    # are files that remain in this case, and delay other processes by half a minute.
    lock: Any = FileLock(f"{path.absolute()}-lock")
    try:
        with lock, path.open("ab+") as file:
            # A killed process may have left a part of a line: Optuna would append the next one to it.
            file.seek(0)
            *lines, rest = file.read().split(b"\n")
            file.truncate(file.tell() - len(rest))
            for line in lines[-1:]:  # which Optuna does not check
                json.loads(line)
        return JournalStorage(JournalFileBackend(str(path.absolute()), lock))
    except OSError:
        raise
    except Exception as error:  # the file may be a stranger's, and Optuna raises what its content leads to
        reason = printable(" ".join(str(error).split())[:200])
        raise SweepError(
            f"{path} cannot be read as the journal of a search ({type(error).__name__} {reason}). Start "
            "another search."
        ) from error


def _open_database(url: str) -> BaseStorage:
    from sqlalchemy.exc import DBAPIError
    from sqlalchemy.pool import NullPool

    url = url.replace("postgresql://", "postgresql+psycopg://", 1)
    # No pool of connections: a server may close one that is idle for an epoch, and limits their number.
    engine: dict[str, Any] = {"poolclass": NullPool}
    if url.startswith("sqlite"):
        engine["connect_args"] = {"timeout": 60}  # seconds to wait while another process writes
    driver, slashes, path = url.partition(":///")
    if driver == "sqlite" and path not in ("", ":memory:"):
        url = f"{driver}{slashes}{to_absolute_path(path)}"  # where the app was started, in its jobs, too
    try:
        return RDBStorage(url, engine_kwargs=engine)
    except (DBAPIError, StorageInternalError):
        # Two processes that start on an empty database both create its tables, and one of them fails.
        time.sleep(1)
        return RDBStorage(url, engine_kwargs=engine)
