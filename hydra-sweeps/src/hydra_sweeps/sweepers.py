"""The kinds of sweeps: a grid of all combinations, and a search."""

import logging
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import replace
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from hydra.core.override_parser.types import Override
from hydra.errors import HydraException

from hydra_sweeps.interface import SweepError
from hydra_sweeps.runs import Outcome
from hydra_sweeps.sweep import BaseSweep, Job

if TYPE_CHECKING:
    from hydra_sweeps.search import Proposal

log = logging.getLogger(__name__)


class Grid(BaseSweep):
    """Every combination of the given values, as with Hydra's basic sweeper."""

    def begin(self, overrides: list[Override], resumed: bool) -> None:
        overrides = list({one.get_key_element(): one for one in overrides}.values())  # the last one counts
        fixed = [one for one in overrides if not one.is_sweep_override()]
        swept = [one for one in overrides if one.is_sweep_override()]
        for one in swept:
            if not one.is_discrete_sweep():
                raise SweepError(
                    f"{one.input_line} is an interval. Give single values, or search in it: add "
                    "hydra/sweeper=optuna."
                )
            try:
                is_empty = next(one.sweep_string_iterator(), None) is None
            except (ValueError, HydraException) as error:
                raise SweepError(f"{one.input_line}: {error}") from error
            if is_empty:
                raise SweepError(f"{one.input_line} has no value: no job would run.")
        # How BasicSweeper expands overrides; checked with hydra-core 1.3.8.
        ((same,),) = BasicSweeper.split_arguments(fixed, max_batch_size=None)
        (combinations,) = BasicSweeper.split_arguments(swept, max_batch_size=None)
        self.jobs = [self.job(number, same, chosen) for number, chosen in enumerate(combinations)]
        self.total = len(self.jobs)
        for job in self.jobs:
            if job.refused is not None:
                raise job.refused

    def propose(self) -> Iterator[Job]:
        yield from self.jobs


class Search(BaseSweep):
    """A sweep whose jobs are the trials of an Optuna study; see conf/hydra/sweeper/optuna.yaml."""

    def __init__(
        self,
        n_trials: int,
        seed: int,
        objectives: Mapping[str, str] | None,
        storage: str | None,
        study_name: str | None,
        conditional: str | None,
        params: Mapping[str, str],
        sampler: Mapping[str, Any],
        pruner: Mapping[str, Any],
    ) -> None:
        super().__init__(params)
        self.objectives = objectives
        self.options: dict[str, Any] = {
            **{"n_trials": n_trials, "seed": seed, "sampler": sampler, "pruner": pruner},
            **{"storage": storage, "study_name": study_name, "conditional": conditional},
        }

    def begin(self, overrides: list[Override], resumed: bool) -> None:
        from hydra_sweeps import search, space

        for name, example in (("sampler", "random"), ("pruner", "none")):
            if not isinstance(self.options[name], Mapping):
                raise SweepError(
                    f"hydra.sweeper.{name}={self.options[name]}: choose with a slash, as in "
                    f"hydra/sweeper/{name}={example}."
                )
        self.prunes = self.options["pruner"].get("name") != "NopPruner"
        objectives = search.check_objectives(
            self.goal.objectives if self.objectives is None else self.objectives
        )
        self.goal = replace(self.goal, objectives=objectives)
        self.fixed, distributions = space.split(overrides)
        self._refuse_unknown_settings(list(space.examples(distributions)))
        self.study = search.StudySearch(
            distributions, objectives=objectives, folder=self.folder, config=self.settings, **self.options
        )
        self.total = self.study.n_trials
        self.left_over = self.study.left_over() if resumed else []
        self.running: dict[int, Proposal] = {}

    def _refuse_unknown_settings(self, examples: list[list[str]]) -> None:
        """Raise `SweepError` if no job can be composed, as where a setting is mistyped."""
        for chosen in examples:
            with suppress(SweepError):
                self.compose([*self.fixed, *chosen], " ".join(chosen))
                return
        self.compose([*self.fixed, *examples[0]], " ".join(examples[0]))

    def propose(self) -> Iterator[Job]:
        for proposal in chain(self.left_over, iter(self.study.propose, None)):
            self.running[proposal.job] = proposal
            yield self.job(proposal.job, self.fixed, proposal.overrides, proposal.trial)

    def on_job_end(self, job: Job, outcome: Outcome) -> None:
        values = [outcome.metrics.get(metric) for metric in self.goal.objectives]
        state = outcome.status if outcome.status != "unfinished" else "failed"
        if state == "finished" and not all(isinstance(value, int | float) for value in values):
            known = ", ".join(name for name in outcome.metrics if not name.startswith("test/"))
            wanted = " and ".join(self.goal.objectives)
            log.error(f"job {job.number} has no {wanted}, by which the search chooses. It has: {known}.")
            self.failed = True
        self.study.tell(self.running.pop(job.number), state, values)

    def draw(self, folder: Path) -> None:
        from hydra_sweeps import study_figures

        folder.mkdir(exist_ok=True)
        study_figures.write(self.study.study, folder)
