"""`hydra/sweeper=optuna`: jobs that a search proposes, and gives up on when they are hopeless."""

import logging
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.types import Override
from hydra.types import RunMode
from omegaconf import OmegaConf

from mnist_cnn.errors import UserError
from mnist_cnn.sweeps.compare import Outcome
from mnist_cnn.sweeps.running import Job, RunningSweep

if TYPE_CHECKING:
    from mnist_cnn.sweeps.pruning import Pruning
    from mnist_cnn.sweeps.search import Proposal


log = logging.getLogger(__name__)


class OptunaSweeper(RunningSweep):
    """A sweep whose jobs are the trials of an Optuna study; see conf/hydra/sweeper/optuna.yaml.

    `trial` is for the jobs, each of which finds there its number in the study.
    """

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
        trial: int | None = None,
    ) -> None:
        super().__init__(params)
        self.options = {
            **{"n_trials": n_trials, "seed": seed, "sampler": sampler, "pruner": pruner},
            **{"storage": storage, "study_name": study_name, "conditional": conditional},
            "objectives": objectives,
        }
        self.prunes = pruner["name"] != "NopPruner"

    def begin(self, overrides: list[Override], resumed: bool) -> None:
        from mnist_cnn.sweeps import space
        from mnist_cnn.sweeps.search import Search, chosen_objectives

        validated = self.settings.data.val_size > 0 and self.settings.trainer.limit_val_batches != 0
        objectives = chosen_objectives(self.options["objectives"])  # type: ignore[arg-type]
        if not validated and any(metric.startswith("val/") for metric in objectives):
            raise UserError(
                "A search chooses by validation, of which data.val_size=0 or trainer.limit_val_batches=0 "
                "leaves nothing."
            )
        self.fixed, distributions = space.split(overrides)
        if self.prunes:
            self.fixed.append("sweep.pruning=true")
        self.search = Search(
            distributions,
            folder=self.folder,
            config=self.settings,
            **self.options,  # type: ignore[arg-type]
        )
        self.objectives = self.search.objectives
        self.total = self.search.n_trials
        self.left_over = self.search.left_over() if resumed else []
        self.running: dict[int, Proposal] = {}

    def propose(self) -> Iterator[Job]:
        for proposal in self._proposals():
            self.running[proposal.job] = proposal
            try:
                yield self.job(proposal.job, self.fixed, proposal.overrides, proposal.trial)
            except UserError as error:  # settings that do not go together; others will
                told = " ".join(proposal.overrides)
                folder = self.folder / f"{proposal.job}_{told}".replace("/", "-")[:200]
                overrides = (*self.fixed, *proposal.overrides)
                yield Job(proposal.job, overrides, told, folder, proposal.trial, refused=str(error))

    def _proposals(self) -> "Iterator[Proposal]":
        yield from self.left_over
        while (proposal := self.search.propose()) is not None:
            yield proposal

    def ended(self, job: Job, outcome: Outcome) -> None:
        values = [outcome.metrics.get(metric) for metric in self.objectives]
        state = outcome.status if outcome.status != "unfinished" else "failed"
        if state == "finished" and not all(isinstance(value, int | float) for value in values):
            log.error(f"job {job.number} has no {' and '.join(self.objectives)}, by which the search chooses")
            self.failed = True
        self.search.tell(self.running.pop(job.number), state, values)

    def draw(self, folder: Path) -> None:
        from mnist_cnn.sweeps import study_figures

        folder.mkdir(exist_ok=True)
        study_figures.write(self.search.study, folder)


def pruning_of_this_job() -> "Pruning":
    """Return the callback that reports to the study of this job's search, and stops it when that says so.

    In a process that no search has started it does nothing: in the other ranks of a job, which follow
    the first, and in a job that is run again alone.
    """
    from mnist_cnn.sweeps.pruning import Pruning

    hydra = HydraConfig.get()
    if hydra.mode is not RunMode.MULTIRUN:
        return Pruning(None)
    from mnist_cnn.sweeps import search

    options = OmegaConf.to_container(hydra.sweeper, resolve=True)
    assert isinstance(options, dict)
    trial = search.attach(
        options["trial"],
        folder=Path(hydra.sweep.dir),
        pruner=options["pruner"],
        storage=options["storage"],
        study_name=options["study_name"],
    )
    metric = search.watched_metric(options["objectives"], options["pruner"])
    assert metric is not None
    return Pruning(trial, metric)
