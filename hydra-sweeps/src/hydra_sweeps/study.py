"""A search: an Optuna study that proposes the next job and records how each ended.

It does not know how jobs are run.
"""

import importlib.util
import math
import warnings
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from pkgutil import resolve_name
from typing import Any, Literal, TypeAlias

import numpy as np
import optuna
from omegaconf import OmegaConf
from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.exceptions import ExperimentalWarning
from optuna.storages import BaseStorage
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, TrialState

from hydra_sweeps import definition
from hydra_sweeps.contract import SweepError, missing_extra
from hydra_sweeps.goal import MODES
from hydra_sweeps.grammar import as_override
from hydra_sweeps.space import Distributions
from hydra_sweeps.storage import open_storage, reached

State: TypeAlias = Literal["finished", "pruned", "failed"]

# Packages that samplers need in addition; Optuna imports them only when they are used.
_NEEDED = {"CmaEsSampler": ("cmaes", "scipy"), "GPSampler": ("scipy",), "QMCSampler": ("scipy",)}

# Grids have a sweeper of their own: Optuna reports their last point by an error.
_NOT_OFFERED = ("BasePruner", "BaseSampler", "BruteForceSampler", "GridSampler", "PartialFixedSampler")

# Attributes of a trial: the name of its sweep, the number of its job there, and whether it is one too many,
# because another sweep has added the last trial of the study at the same time.
_SWEEP, _JOB, _SURPLUS = "sweep", "job", "surplus"


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
    sampler, pruner: "name", a class in optuna.samplers or optuna.pruners, and its arguments.
    folder: the sweep's; its name tells the sweep's trials from those of other sweeps.
    n_trials: number of jobs of the whole study, including other sweeps and earlier starts.
    storage: an SQLAlchemy URL; None keeps the study in a journal in `folder`.
    study_name: by default that of the folder; sweeps with the same storage and name share the study.
    conditional: dotted path of a function `(config, trial) -> None` that suggests further parameters.

    Raises `SweepError` for options that cannot be used, and if the storage cannot be reached.
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
        self.distributions = dict(distributions)
        self.objectives = dict(objectives)
        self.folder = folder
        self.seed = seed
        self._sampler_choice = dict(sampler)
        self._config = config
        self._storage_url = storage
        self._suggest_more = None if conditional is None else _function(conditional)

        for name, given, lowest in (("n_trials", n_trials, 1), ("seed", seed, 0)):
            if not isinstance(given, int) or given < lowest:
                raise SweepError(f"hydra.sweeper.{name}={given}: it must be an integer of at least {lowest}.")
        directions = [StudyDirection[direction.upper()] for direction in self.objectives.values()]
        if len(directions) > 1 and pruner.get("name") != "NopPruner":
            raise SweepError("Several objectives cannot be pruned: add hydra/sweeper/pruner=none.")
        if not distributions and conditional is None:
            raise SweepError(
                "There is nothing to search. Sweep a setting, here or in hydra.sweeper.params, as in "
                "'optim.lr=tag(log, interval(1e-4, 1e-1))'."
            )
        self.n_trials = n_trials
        if self._sampler_choice.get("name") == "CmaEsSampler" and len(directions) > 1:
            raise SweepError(
                f"hydra/sweeper/sampler=cmaes supports one objective, not {len(directions)}: "
                "choose tpe, gp or random."
            )
        first_sampler = self._sampler(0)  # before the study, so that none is created if its options are wrong
        made_pruner = _made(optuna.pruners, "pruner", pruner)
        folder.mkdir(parents=True, exist_ok=True)
        with reached(storage):
            self._storage = open_storage(storage, folder)
            self.study = optuna.create_study(
                storage=self._storage,
                study_name=_study_name(self._storage, storage, study_name, folder),
                directions=directions,
                load_if_exists=True,
                sampler=first_sampler,
                pruner=made_pruner,
            )
            self._claim_objectives()

    def propose(self) -> Proposal | None:
        """Return the next job, or None if the study has all its jobs."""
        with reached(self._storage_url):
            trials = self._trials()
            if len(_jobs(trials)) >= self.n_trials:
                return None
            job = max((trial.user_attrs[_JOB] for trial in trials if self._is_mine(trial)), default=-1) + 1
            # With its sweep and job from the beginning, so that a kill leaves no trial without an owner.
            number = self._add_trial({_SWEEP: self.folder.name, _JOB: job})
            if len(_jobs(trial for trial in self._trials() if trial.number < number)) >= self.n_trials:
                # Another sweep on this study has added the last one at the same time.
                self._trial(number, optuna.samplers.RandomSampler()).set_user_attr(_SURPLUS, True)
                self._finish(number, TrialState.FAIL)
                return None
            return self._suggested(job, number)

    def left_over(self) -> list[Proposal]:
        """Return the jobs of earlier starts of this sweep that have not finished, ordered by number.

        A job that was running keeps its trial; one that failed gets a new trial with the same parameters.
        """
        proposals = []
        with reached(self._storage_url):
            latest = {trial.user_attrs[_JOB]: trial for trial in self._trials() if self._is_mine(trial)}
            for job, trial in sorted(latest.items()):
                if trial.state == TrialState.RUNNING:
                    proposals.append(self._suggested(job, trial.number))
                elif trial.state == TrialState.FAIL:
                    # With its system attributes, in which samplers and pruners keep their state.
                    proposals.append(self._suggested(job, self._add_trial(trial.user_attrs, trial)))
        return proposals

    def tell(self, proposal: Proposal, state: State, values: Sequence[float | None] | None = None) -> None:
        """Record how a job ended; `values` of a finished one in the order of `objectives`.

        If a value is missing or not finite, the trial has failed. A trial that has ended before is not
        changed.
        """
        with reached(self._storage_url):
            known = [float(value) for value in values or () if value is not None]
            good = len(known) == len(self.objectives) and all(map(math.isfinite, known))
            if state == "pruned":
                self._finish(proposal.trial, TrialState.PRUNED)
            elif state == "finished" and good:
                self._finish(proposal.trial, TrialState.COMPLETE, known)
            else:
                self._finish(proposal.trial, TrialState.FAIL)

    def _suggested(self, job: int, number: int) -> Proposal:
        """Return the proposal of a trial, whose parameters an earlier start may have chosen, in part or all."""
        trial = self._trial(number, self._sampler(number))
        try:
            self._suggest(trial)
            # The study may be a stranger's: of its parameters, those that this search proposes.
            chosen = optuna.trial.FixedTrial(trial.params)
            with warnings.catch_warnings():
                warnings.simplefilter("error")  # a value that is out of bounds
                self._suggest(chosen)
        except (ValueError, UserWarning) as error:
            raise SweepError(
                f"Trial {number} of the study of {self.folder} has parameters that this search does not "
                f"propose ({error}): start a new search."
            ) from error
        return Proposal(job, number, [as_override(name, trial.params[name]) for name in chosen.distributions])

    def _suggest(self, trial: optuna.trial.BaseTrial) -> None:
        for name, distribution in self.distributions.items():
            if isinstance(distribution, CategoricalDistribution):
                trial.suggest_categorical(name, distribution.choices)
                continue
            assert isinstance(distribution, IntDistribution | FloatDistribution)
            suggest: Any = (
                trial.suggest_int if isinstance(distribution, IntDistribution) else trial.suggest_float
            )
            suggest(name, distribution.low, distribution.high, step=distribution.step, log=distribution.log)
        if self._suggest_more is not None:
            self._suggest_more(self._config, trial)

    def _sampler(self, number: int) -> Any:
        """Return the sampler that chooses the parameters of a trial.

        Each trial has its own, seeded by the trial's number, so that a resumed search proposes what it would
        have proposed without the interruption, and sweeps on one study do not propose the same points.
        """
        options = dict(self._sampler_choice)
        name = str(options.pop("name", ""))
        for package in _NEEDED.get(name, ()):
            if importlib.util.find_spec(package) is None:
                raise missing_extra(f"hydra.sweeper.sampler.name={name}", package, "optuna")
        options["seed"] = int(np.random.SeedSequence((self.seed, number)).generate_state(1)[0])
        if name == "QMCSampler":
            # The seed is that of the sequence; the study keeps the position of each trial.
            independent = optuna.samplers.RandomSampler(options["seed"])
            options |= {"seed": self.seed, "independent_sampler": independent}
        return _made(optuna.samplers, "sampler", {"name": name, **options})

    def _claim_objectives(self) -> None:
        """Write the objectives into the study; raise `SweepError` if it has others."""
        study = self.study
        names = study.metric_names or list(self.objectives)
        there = {name: one.name.lower() for name, one in zip(names, study.directions, strict=False)}
        if there != self.objectives:
            raise SweepError(
                f"The study {study.study_name} has the objectives {there}, not {self.objectives}: "
                "choose another hydra.sweeper.study_name."
            )
        if study.metric_names is None:
            with warnings.catch_warnings():
                # Experimental in Optuna; the names are only shown in plots and tables.
                warnings.simplefilter("ignore", ExperimentalWarning)
                study.set_metric_names(names)

    def _trials(self) -> list[FrozenTrial]:
        """Return the trials of all sweeps on this study, in the order of their creation."""
        trials = self.study.get_trials(deepcopy=False)
        return [
            one for one in trials if type(one.user_attrs.get(_JOB)) is int and _SURPLUS not in one.user_attrs
        ]

    def _is_mine(self, trial: FrozenTrial) -> bool:
        # A journal belongs to the folder it is in, which may have been renamed.
        return self._storage_url is None or trial.user_attrs.get(_SWEEP) == self.folder.name

    def _add_trial(self, attributes: Mapping[str, Any], repeated: FrozenTrial | None = None) -> int:
        """Add a running trial, with the parameters of `repeated` if given, and return its number."""
        kept = ("params", "distributions", "system_attrs", "intermediate_values") if repeated else ()
        template = optuna.create_trial(
            state=TrialState.RUNNING,
            user_attrs=dict(attributes),
            **{name: getattr(repeated, name) for name in kept},
        )
        # Study.ask() creates a trial without attributes, and Study.add_trial() does not return its number.
        study_id = self._storage.get_study_id_from_name(self.study.study_name)
        trial_id = self._storage.create_new_trial(study_id, template)
        return self._storage.get_trial_number_from_id(trial_id)

    def _trial(self, number: int, sampler: optuna.samplers.BaseSampler) -> optuna.Trial:
        self.study.sampler = sampler
        return _trial(self.study, self._storage, number)

    def _finish(self, number: int, state: TrialState, values: list[float] | None = None) -> None:
        self.study.tell(number, values, state, skip_if_finished=True)


def attach(sweep: Path, number: int) -> optuna.Trial:
    """Return a trial of the search in the folder `sweep`, to report to it from another process.

    Raises `SweepError` if there is no such trial.
    """
    # The definition as it was typed: ${oc.env:PASSWORD} is not in any file.
    config = OmegaConf.create(definition.read(sweep))
    options: Any = OmegaConf.to_container(config.hydra.sweeper, resolve=True)
    url = options["storage"]
    with reached(url):
        storage = open_storage(url, sweep)
        try:
            study = optuna.load_study(
                study_name=_study_name(storage, url, options["study_name"], sweep),
                storage=storage,
                sampler=optuna.samplers.RandomSampler(),  # not used
                pruner=_made(optuna.pruners, "pruner", options["pruner"]),
            )
            return _trial(study, storage, number)
        except KeyError as error:
            raise SweepError(f"There is no trial {number} of the study of {sweep}.") from error


def report(trial: optuna.Trial, value: float, epoch: int) -> bool:
    """Report a value to a trial, and return whether it should be pruned."""
    with warnings.catch_warnings():
        # A run that was killed between its report and its checkpoint reports the epoch again.
        warnings.filterwarnings("ignore", message=".* is already reported")
        trial.report(value, epoch)
    return bool(trial.should_prune())


def check_objectives(objectives: Mapping[str, str]) -> dict[str, str]:
    """Return the objectives; raises `SweepError` for those that a search must not use."""
    if not isinstance(objectives, Mapping) or not objectives:
        raise SweepError(
            f"hydra.sweeper.objectives={objectives}: write 'hydra.sweeper.objectives={{val/acc:maximize}}'."
        )
    for metric, direction in objectives.items():
        if metric.startswith("test/"):
            raise SweepError(
                f"hydra.sweeper.objectives has {metric}: a search must choose by validation. The test data "
                "are for the jobs it has chosen."
            )
        if direction not in MODES.values():
            raise SweepError(
                f"hydra.sweeper.objectives has {metric}:{direction}; it must be maximize or minimize."
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


def _jobs(trials: Iterable[FrozenTrial]) -> set[tuple[Any, int]]:
    return {(trial.user_attrs.get(_SWEEP), trial.user_attrs[_JOB]) for trial in trials}


def _function(path: str) -> Any:
    try:
        found = resolve_name(path)
    except (ImportError, AttributeError, ValueError) as error:
        raise SweepError(f"hydra.sweeper.conditional={path} cannot be found: {error}") from error
    if not callable(found):
        raise SweepError(f"hydra.sweeper.conditional={path} is not a function of (config, trial).")
    return found


def _made(module: Any, what: str, options: Mapping[str, Any]) -> Any:
    """Return an instance of the class `name` of optuna.samplers or optuna.pruners, with the other options."""
    name, arguments = str(options.get("name", "")), {k: v for k, v in options.items() if k != "name"}
    ending = what.capitalize()
    known = [one for one in module.__all__ if one.endswith(ending) and one not in _NOT_OFFERED]
    if name not in known:
        raise SweepError(f"hydra.sweeper.{what}.name={name} is not one of Optuna's: {', '.join(known)}.")
    try:
        with warnings.catch_warnings():
            # Optuna warns that the arguments of some may change.
            warnings.simplefilter("ignore", ExperimentalWarning)
            return getattr(module, name)(**arguments)
    except (TypeError, ValueError) as error:
        raise SweepError(f"hydra.sweeper.{what}: {name} refuses its settings: {error}") from error
