"""`-m` without a search: every combination of the values given."""

from collections.abc import Iterator

from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from hydra.core.override_parser.types import Override

from mnist_cnn.errors import UserError
from mnist_cnn.sweeps.compare import Outcome
from mnist_cnn.sweeps.running import Job, RunningSweep


class GridSweeper(RunningSweep):
    """Hydra's basic sweeper in what it runs; in how, see `RunningSweep`."""

    def begin(self, overrides: list[Override], resumed: bool) -> None:
        overrides = list({one.get_key_element(): one for one in overrides}.values())  # the last one holds
        fixed = [one for one in overrides if not one.is_sweep_override()]
        swept = [one for one in overrides if one.is_sweep_override()]
        for one in swept:
            if not one.is_discrete_sweep():
                raise UserError(
                    f"{one.input_line} has no end of values. Give the values, or search in it: "
                    "add hydra/sweeper=optuna."
                )
        ((same,),) = BasicSweeper.split_arguments(fixed, max_batch_size=None)
        (combinations,) = BasicSweeper.split_arguments(swept, max_batch_size=None)
        self.jobs = [self.job(number, same, chosen) for number, chosen in enumerate(combinations)]
        self.total = len(self.jobs)

    def propose(self) -> Iterator[Job]:
        yield from self.jobs

    def ended(self, job: Job, outcome: Outcome) -> None:
        """The folders say it all."""
