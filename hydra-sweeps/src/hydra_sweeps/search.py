"""A sweep whose jobs are chosen by the results of the earlier ones."""

import logging
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import replace
from itertools import chain
from typing import TYPE_CHECKING, Any

from hydra.core.override_parser.types import Override

from hydra_sweeps.contract import SweepError
from hydra_sweeps.grammar import fixed_and_swept
from hydra_sweeps.outcome import Outcome
from hydra_sweeps.sweep import BaseSweep, Job

if TYPE_CHECKING:
    from hydra_sweeps.study import Proposal

log = logging.getLogger(__name__)


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
        from hydra_sweeps import space, study  # Optuna takes a second

        for name, example in (("sampler", "random"), ("pruner", "none")):
            if not isinstance(self.options[name], Mapping):
                raise SweepError(
                    f"hydra.sweeper.{name}={self.options[name]}: choose with a slash, as in "
                    f"hydra/sweeper/{name}={example}."
                )
        self.prunes = self.options["pruner"].get("name") != "NopPruner"
        objectives = study.check_objectives(
            self.goal.objectives if self.objectives is None else self.objectives
        )
        self.goal = replace(self.goal, objectives=objectives)
        self.fixed, swept = fixed_and_swept(overrides)
        distributions = space.distributions_of(swept)
        self._refuse_unknown_settings(list(space.examples(distributions)))
        self.study = study.StudySearch(
            distributions, objectives=objectives, folder=self.folder, config=self.settings, **self.options
        )
        self.total = self.study.n_trials
        self.left_over = self.study.left_over() if resumed else []
        self.running: dict[int, Proposal] = {}

    def _refuse_unknown_settings(self, examples: list[list[str]]) -> None:
        """Raise `SweepError` if no job can be composed, as where a setting is mistyped."""
        for chosen in examples:
            with suppress(SweepError):
                self.compose(chosen)
                return
        self.compose(examples[0])

    def propose(self) -> Iterator[Job]:
        for proposal in chain(self.left_over, iter(self.study.propose, None)):
            self.running[proposal.job] = proposal
            yield Job(proposal.job, proposal.overrides, proposal.trial)

    def on_job_end(self, job: Job, outcome: Outcome) -> None:
        values = [outcome.metrics.get(metric) for metric in self.goal.objectives]
        state = outcome.status if outcome.status != "unfinished" else "failed"
        if state == "finished" and not all(isinstance(value, int | float) for value in values):
            known = ", ".join(name for name in outcome.metrics if not name.startswith("test/"))
            wanted = " and ".join(self.goal.objectives)
            log.error(f"job {job.number} has no {wanted}, by which the search chooses. It has: {known}.")
            self.failed = True
        self.study.tell(self.running.pop(job.number), state, values)
