"""A search: an Optuna study that proposes the next job and records how each ended.

It does not know how jobs are run.
"""

import math
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from pkgutil import resolve_name
from typing import Any, Literal, TypeAlias

import numpy as np
import optuna
from hydra.utils import instantiate
from omegaconf import OmegaConf
from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.exceptions import ExperimentalWarning
from optuna.storages import BaseStorage
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, TrialState

from hydra_sweeps import definition
from hydra_sweeps.contract import SweepError
from hydra_sweeps.goal import MODES
from hydra_sweeps.grammar import as_override
from hydra_sweeps.space import Distributions
from hydra_sweeps.storage import open_storage

State: TypeAlias = Literal["finished", "pruned", "failed"]

# Attributes of a trial: the name of its sweep, and the number of its job there.
_SWEEP, _JOB = "sweep", "job"


@dataclass(frozen=True)
class Proposal:
    """A job to run: its number in the sweep, the number of its trial in the study, and its overrides."""

    job: int
    trial: int
    overrides: list[str]


class StudySearch:
    """Proposes jobs of one sweep, and learns from those of all sweeps that share its study.

    distributions: the search space by override key, see `space.distributions_of`.
    objectives: "maximize" or "minimize" by metric, see `check_objectives`.
    sampler, pruner: a `_target_` of Optuna, and its arguments.
    folder: the sweep's; its name tells the sweep's trials from those of other sweeps.
    n_trials: number of jobs of the whole study, including other sweeps and earlier starts.
    storage: an SQLAlchemy URL; None keeps the study in a journal in `folder`.
    study_name: by default that of the folder; sweeps with the same storage and name share the study.
    conditional: dotted path of a function `(config, trial) -> None` that suggests further parameters.

    Raises `SweepError` for options that cannot be used.
    """

    def __init__(
        self,
        distributions: Distributions,
        *,
        objectives: Mapping[str, str],
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
        for name, given, lowest in (("n_trials", n_trials, 1), ("seed", seed, 0)):
            if not isinstance(given, int) or given < lowest:
                raise SweepError(f"hydra.sweeper.{name}={given}: it must be an integer of at least {lowest}.")
        if len(objectives) > 1 and prunes(pruner):
            raise SweepError("Several objectives cannot be pruned: add hydra/sweeper/pruner=none.")
        if not distributions and conditional is None:
            raise SweepError(
                "There is nothing to search. Sweep a setting, here or in hydra.sweeper.params, as in "
                "'optim.lr=tag(log, interval(1e-4, 1e-1))'."
            )
        self.distributions = dict(distributions)
        self.objectives = dict(objectives)
        self.folder = folder
        self.n_trials = n_trials
        self.seed = seed
        self._owns_study = storage is None
        self._sampler_options = sampler
        self._config = config
        self._suggest_more = None if conditional is None else _function(conditional)

        # Before the storage, so that none is created if the options are wrong.
        options: dict[str, Any] = {"sampler": self._sampler(0), "pruner": _made(pruner)}
        folder.mkdir(parents=True, exist_ok=True)
        self._storage = open_storage(storage, folder)
        self.study = optuna.create_study(
            storage=self._storage,
            study_name=_study_name(self._storage, storage, study_name, folder),
            directions=[StudyDirection[one.upper()] for one in objectives.values()],
            load_if_exists=True,
            **options,
        )
        self._claim_objectives()

    def propose(self) -> Proposal | None:
        """Return the next job, or None if the study has all its jobs."""
        trials = self._trials()
        if len({(one.user_attrs.get(_SWEEP), one.user_attrs[_JOB]) for one in trials}) >= self.n_trials:
            return None
        job = max((trial.user_attrs[_JOB] for trial in trials if self._is_mine(trial)), default=-1) + 1
        # With its sweep and job from the beginning, so that a kill leaves no trial without an owner.
        return self._suggested(job, self._add_trial({_SWEEP: self.folder.name, _JOB: job}))

    def left_over(self) -> list[Proposal]:
        """Return the jobs of earlier starts of this sweep that have not finished, ordered by number.

        A job that was running keeps its trial; one that failed gets a new trial with the same parameters.
        """
        proposals = []
        latest = {trial.user_attrs[_JOB]: trial for trial in self._trials() if self._is_mine(trial)}
        for job, trial in sorted(latest.items()):
            if trial.state == TrialState.RUNNING:
                proposals.append(self._suggested(job, trial.number))
            elif trial.state == TrialState.FAIL:
                proposals.append(self._suggested(job, self._add_trial(trial.user_attrs, trial)))
        return proposals

    def tell(self, proposal: Proposal, state: State, values: Sequence[float | None] | None = None) -> None:
        """Record how a job ended; `values` of a finished one in the order of `objectives`.

        If a value is missing or not finite, the trial has failed. A trial that has ended before is not
        changed.
        """
        known = [float(value) for value in values or () if value is not None and math.isfinite(value)]
        is_good = state == "finished" and len(known) == len(values or ()) == len(self.objectives)
        how = TrialState.PRUNED if state == "pruned" else TrialState.FAIL
        how, told = (TrialState.COMPLETE, known) if is_good else (how, None)
        self.study.tell(proposal.trial, told, how, skip_if_finished=True)

    def _suggested(self, job: int, number: int) -> Proposal:
        """Return the proposal of a trial; an earlier start may have chosen its parameters."""
        self.study.sampler = self._sampler(number)
        trial = _trial(self.study, self._storage, number)
        try:
            self._suggest(trial)
            # The study may be a stranger's: of its parameters, those that this search proposes.
            chosen = optuna.trial.FixedTrial(trial.params)
            with warnings.catch_warnings():
                warnings.simplefilter("error")  # a value that is out of bounds
                self._suggest(chosen)
        except (ValueError, UserWarning) as error:
            raise SweepError(
                f"Trial {number} of the study of {self.folder} cannot be proposed: {error}"
            ) from error
        return Proposal(job, number, [as_override(name, trial.params[name]) for name in chosen.distributions])

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
            self._suggest_more(self._config, trial)

    def _sampler(self, number: int) -> Any:
        """Return the sampler that chooses the parameters of a trial.

        Each trial has its own, seeded by the trial's number, so that a resumed search proposes what it would
        have proposed without the interruption, and sweeps on one study do not propose the same points.
        """
        seed = int(np.random.SeedSequence((self.seed, number)).generate_state(1)[0])
        if str(self._sampler_options.get("_target_")).endswith(".QMCSampler"):
            # The seed is that of the sequence; the study keeps the position of each trial.
            independent = optuna.samplers.RandomSampler(seed)
            return _made(self._sampler_options, seed=self.seed, independent_sampler=independent)
        return _made(self._sampler_options, seed=seed)

    def _claim_objectives(self) -> None:
        """Write the objectives into the study; raise `SweepError` if it has others."""
        study, names = self.study, list(self.objectives)
        directions = [one.name.lower() for one in study.directions]
        if (study.metric_names or names, directions) != (names, list(self.objectives.values())):
            raise SweepError(
                f"The study {study.study_name} has the objectives {study.metric_names} ({directions}), not "
                f"{self.objectives}: choose another hydra.sweeper.study_name."
            )
        with _quiet():
            study.set_metric_names(names)

    def _trials(self) -> list[FrozenTrial]:
        """Return the trials of all sweeps on this study, in the order of their creation."""
        trials = self.study.get_trials(deepcopy=False)
        return [trial for trial in trials if type(trial.user_attrs.get(_JOB)) is int]

    def _is_mine(self, trial: FrozenTrial) -> bool:
        # A journal belongs to the folder it is in, which may have been renamed.
        return self._owns_study or trial.user_attrs.get(_SWEEP) == self.folder.name

    def _add_trial(self, attributes: Mapping[str, Any], repeated: FrozenTrial | None = None) -> int:
        """Add a running trial, with the parameters of `repeated` if given, and return its number."""
        # Samplers and pruners keep their state in the system attributes.
        kept = ("params", "distributions", "system_attrs", "intermediate_values") if repeated else ()
        template = optuna.create_trial(
            state=TrialState.RUNNING,
            user_attrs=dict(attributes),
            **{name: getattr(repeated, name) for name in kept},
        )
        # Study.ask() creates a trial without attributes, and Study.add_trial() does not return its number.
        study_id = self._storage.get_study_id_from_name(self.study.study_name)
        trial_id = self._storage.create_new_trial(study_id, template)
        self.study.get_trials(deepcopy=False)  # by which the cache of a database learns of it
        return self._storage.get_trial_number_from_id(trial_id)


def attach(sweep: Path, number: int) -> optuna.Trial:
    """Return a trial of the search in the folder `sweep`, to report to it from another process."""
    # The definition as it was typed: ${oc.env:PASSWORD} is not in any file.
    options = OmegaConf.create(definition.read(sweep)).hydra.sweeper
    storage = open_storage(options.storage, sweep)
    study = optuna.load_study(
        study_name=_study_name(storage, options.storage, options.study_name, sweep),
        storage=storage,
        sampler=optuna.samplers.RandomSampler(),  # not used
        pruner=_made(options.pruner),
    )
    return _trial(study, storage, number)


def report(trial: optuna.Trial, value: float, epoch: int) -> bool:
    """Report a value to a trial, and return whether it should be pruned."""
    with _quiet():
        trial.report(value, epoch)
    return bool(trial.should_prune())


def prunes(pruner: Mapping[str, Any]) -> bool:
    """Return whether a pruner with these options may stop a job."""
    return not str(pruner.get("_target_")).endswith(".NopPruner")


def check_objectives(objectives: Mapping[str, str]) -> dict[str, str]:
    """Return the objectives; raises `SweepError` for those that a search must not use."""
    is_map = isinstance(objectives, Mapping) and bool(objectives)
    if not is_map or not set(objectives.values()) <= set(MODES.values()):
        raise SweepError(
            f"hydra.sweeper.objectives={objectives}: write 'hydra.sweeper.objectives={{val/acc:maximize}}', "
            "with maximize or minimize for each metric."
        )
    if tests := [metric for metric in objectives if metric.startswith("test/")]:
        raise SweepError(
            f"hydra.sweeper.objectives has {', '.join(tests)}: a search must choose by validation. The test "
            "data are for the jobs it has chosen."
        )
    return dict(objectives)


def _study_name(backend: BaseStorage, url: str | None, given: str | None, folder: Path) -> str:
    if given is None and url is None:
        # The only study of a journal, even if its folder has been renamed.
        for name in optuna.get_all_study_names(backend):
            return name
    return given or folder.name


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
    with _quiet():
        return instantiate(options, **more)


@contextmanager
def _quiet() -> Iterator[None]:
    """Hide what Optuna warns of: a class that may change, and an epoch reported again after a kill."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ExperimentalWarning)
        warnings.filterwarnings("ignore", message=".* is already reported")
        yield
