"""Sweeps of real trainings on a Slurm cluster of this machine, as a user types them."""

import json
import signal
from pathlib import Path

import pytest

from tests.clusters.conftest import Slurm, wait_until
from tests.conftest import Command, Start
from tests.runs import SHORT, jobs_of, processes_of

pytestmark = pytest.mark.xdist_group("slurm")  # one cluster, in one process

SLURM = (
    *("-m", *SHORT, "logger=none", "hydra.sweep.dir=sweep"),
    *(
        "hydra/launcher=submitit_slurm",
        "hydra.launcher.poll=0.5",
        "hydra.launcher.parameters.cpus_per_task=1",
    ),
    "hydra.launcher.parameters.gpus_per_node=null",
)
# A run that a test stops: its epochs are long enough to be seen, and short enough to be repeated.
STOPPED = ("trainer.limit_train_batches=30", "trainer.max_epochs=400")


def log_of_only_job(folder: Path) -> str:
    logs = list((folder / "sweep").glob("0*/train.log"))
    return logs[0].read_text() if logs else ""


def test_jobs_of_two_ranks_run_and_fail_alone(
    slurm: Slurm, command: Command, mnist: Path, tmp_path: Path
) -> None:
    ddp = ("trainer=ddp", "trainer.devices=2", "trainer.max_epochs=1", "logger=tensorboard")
    done = command(
        *("train.py", *SLURM, f"data.dir={mnist}", *ddp, "optim.lr=0.01,1e30"), **slurm.environment
    )
    assert (done.returncode, done.stderr.count("\n")) == (1, 1), done.stdout + done.stderr
    assert "job 0 finished: val/acc" in done.stdout
    assert "job 1 failed: The loss is" in done.stdout
    jobs = jobs_of(tmp_path / "sweep")
    assert [job.name for job in jobs] == ["0_optim.lr=0.01", "1_optim.lr=1e+30"]
    assert json.loads((jobs[0] / "metrics.json").read_text())["devices"] == 2
    assert len(list(jobs[0].glob("events.out.tfevents*"))) == 1
    assert "Traceback" in (jobs[1] / "train.log").read_text()
    script = next((tmp_path / "sweep" / "submitit").glob("*submission.sh")).read_text()
    assert "#SBATCH --array=0-1%2" in script
    assert (slurm.jobs(), processes_of(tmp_path)) == ([], [])


def test_requeued_job_continues_in_its_folder(
    slurm: Slurm, start: Start, mnist: Path, tmp_path: Path
) -> None:
    limits = ("trainer.limit_train_batches=30", "trainer.max_epochs=12")
    started = start("train.py", *SLURM, f"data.dir={mnist}", *limits, **slurm.environment)
    wait_until(lambda: "epoch  3/12" in log_of_only_job(tmp_path))
    slurm.requeue(slurm.jobs()[0].split()[0])
    assert started.wait() == 0, started.output + started.errors
    log = log_of_only_job(tmp_path)
    assert "resumed    after epoch" in log
    assert log.count("epoch  1/12") == 1
    (job,) = jobs_of(tmp_path / "sweep")
    assert json.loads((job / "metrics.json").read_text())["epochs"] == 12
    assert [epoch["epoch"] for epoch in json.loads((job / "history.json").read_text())] == list(range(1, 13))


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGKILL], ids=["interrupted", "killed"])
def test_stopped_sweep(how: signal.Signals, slurm: Slurm, start: Start, mnist: Path, tmp_path: Path) -> None:
    started = start(
        *("train.py", *SLURM, f"data.dir={mnist}", *STOPPED, "hydra.launcher.n_jobs=1", "seed=0,1"),
        **slurm.environment,
    )
    wait_until(lambda: "epoch   2/400" in log_of_only_job(tmp_path))
    started.send_signal(how)
    started.wait(60)
    if how is signal.SIGINT:
        assert "interrupted; resume with: python train.py sweep.resume=sweep" in started.output
        assert (slurm.jobs(), processes_of(tmp_path)) == ([], [])
