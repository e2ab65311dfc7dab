"""A sweep whose jobs are chosen by the results of the earlier ones."""

import logging
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import replace
from itertools import chain
from typing import Any

from hydra.core.override_parser.types import Override
from omegaconf import OmegaConf

from hydra_sweeps.contract import Job, SweepError
from hydra_sweeps.goal import MODES, select
from hydra_sweeps.launchers.base import CommandLauncher
from hydra_sweeps.outcome import Outcome
from hydra_sweeps.runs import number as number_of
from hydra_sweeps.sweep import BaseSweep

log = logging.getLogger(__name__)


class Search(BaseSweep):
    """A sweep whose jobs are the trials of an Optuna study; see conf/hydra/sweeper/optuna.yaml.

    `options` are those of `study.StudySearch`.
    """

    def __init__(
        self, params: Mapping[str, str], objectives: Mapping[str, str] | None, **options: Any
    ) -> None:
        super().__init__(params)
        self.objectives = objectives
        self.options = options

    def begin(self, swept: list[Override], resumed: bool) -> None:
        from hydra_sweeps import space, study  # Optuna takes a second

        for name in ("sampler", "pruner"):
            if not isinstance(given := self.options[name], Mapping):
                raise SweepError(f"hydra.sweeper.{name}={given}: write hydra/sweeper/{name}={given}.")
        self.prunes = study.prunes(self.options["pruner"])
        launcher = self.settings.hydra.runtime.choices["hydra/launcher"]
        if self.prunes and launcher != "basic" and not isinstance(self.launcher, CommandLauncher):
            raise SweepError(
                f"hydra/launcher={launcher}: its jobs cannot be pruned. Choose hydra/launcher=pool, or add "
                "hydra/sweeper/pruner=none."
            )
        objectives = study.check_objectives(
            self.goal.objectives if self.objectives is None else self.objectives
        )
        self._refuse_contradiction(objectives)
        self.goal = replace(self.goal, objectives=objectives)
        distributions = space.distributions_of(swept)
        self._refuse_unknown_settings(space.examples(distributions))
        self.study = study.StudySearch(
            distributions,
            objectives=objectives,
            folder=self.folder,
            sweep=self.command.sweep,
            config=self.settings,
            **self.options,
        )
        if not resumed and self.study.is_full(self.study.trials()):
            raise SweepError(
                f"The study {self.study.study.study_name} has its {self.study.n_trials} jobs. Raise "
                "hydra.sweeper.n_trials, or choose another hydra.sweeper.study_name."
            )
        self.total = self.study.n_trials
        self.left_over = self.study.left_over() if resumed else []

    def _refuse_contradiction(self, objectives: Mapping[str, str]) -> None:
        """Raise `SweepError` if the app says of a metric that the opposite is better."""
        app: Any = OmegaConf.to_container(self.settings, resolve=False)
        modes: dict[Any, Any] = dict(select(app, "sweep", "modes") or {})
        modes[select(app, "objective", "metric")] = select(app, "objective", "mode")
        for metric, direction in objectives.items():
            best = MODES.get(str(modes.get(metric)), direction)
            if direction != best:
                raise SweepError(
                    f"hydra.sweeper.objectives={{{metric}:{direction}}} would search for the worst: write "
                    f"{{{metric}:{best}}}."
                )

    def _refuse_unknown_settings(self, examples: Iterator[tuple[str, ...]]) -> None:
        """Raise `SweepError` if no job can be composed, as where a setting is mistyped."""
        first = next(examples)
        for chosen in chain([first], examples):
            with suppress(SweepError):
                self.compose(chosen)
                return
        self.compose(first)

    def propose(self) -> Iterator[Job]:
        yield from chain(self.left_over, iter(self.study.propose, None))

    def on_job_end(self, job: Job, outcome: Outcome) -> None:
        values = [number_of(outcome.metrics.get(metric)) for metric in self.goal.objectives]
        if outcome.status == "finished" and None in values:
            known = ", ".join(f"{k} {v}" for k, v in outcome.metrics.items() if not k.startswith("test/"))
            wanted = " and ".join(self.goal.objectives)
            log.error(
                f"job {job.number} has no finite {wanted}, by which the search chooses. It has: {known}."
            )
            self.failed = True
        self.study.tell(job, outcome.status, values)
