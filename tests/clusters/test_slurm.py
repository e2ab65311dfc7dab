"""Sweeps of real trainings on a Slurm cluster of this machine, as a user types them."""

import json
import shlex
import signal
import sys
from pathlib import Path

import psutil
import pytest

from tests.clusters.conftest import Slurm, wait_until
from tests.conftest import REPOSITORY, Command, Start
from tests.faults import fault
from tests.runs import SHORT, jobs_of, processes_of

pytestmark = pytest.mark.xdist_group("slurm")  # one cluster, in one process

SLURM = (
    "-m",
    *SHORT,
    "logger=none",
    "hydra.sweep.dir=sweep",
    "hydra/launcher=submitit_slurm",
    "hydra.launcher.poll=0.5",
    "hydra.launcher.parameters.cpus_per_task=1",
    "hydra.launcher.parameters.gpus_per_node=null",
)
ENDLESS = ("trainer.limit_train_batches=30", "trainer.max_epochs=9999")  # until a test stops it


def log_of_first_job(folder: Path) -> str:
    logs = list((folder / "sweep").glob("0*/train.log"))
    return logs[0].read_text() if logs else ""


def test_job_of_two_ranks_runs_and_another_fails_alone(
    slurm: Slurm, command: Command, mnist: Path, tmp_path: Path
) -> None:
    options = ("trainer=ddp", "trainer.max_epochs=1", "logger=tensorboard", "trainer.devices=2,1")
    of_one_device = fault("Refusal", epoch="${trainer.devices}")  # the other has no second epoch
    done = command("train.py", *SLURM, f"data.dir={mnist}", *options, of_one_device, **slurm.environment)
    assert (done.returncode, done.stderr.count("\n")) == (1, 1), done.stdout + done.stderr
    assert "job 0 finished: val/acc" in done.stdout
    assert "job 1 failed: This is the reason." in done.stdout
    jobs = jobs_of(tmp_path / "sweep")
    assert [job.name for job in jobs] == ["0_trainer.devices-2", "1_trainer.devices-1"]
    assert json.loads((jobs[0] / "metrics.json").read_text())["devices"] == 2
    assert len(list(jobs[0].glob("events.out.tfevents*"))) == 1
    assert "Traceback" in (jobs[1] / "train.log").read_text()
    script = next((tmp_path / "sweep" / "submitit").glob("*submission.sh")).read_text()
    wanted = ("cpus-per-task=1", "mem=16GB", "time=60", "requeue")
    assert all(f"#SBATCH --{option}\n" in script for option in wanted), script
    wait_until(lambda: not slurm.jobs() and not processes_of(tmp_path))  # a job ends after its result


def test_requeued_job_continues_in_its_folder_and_is_ended_with_its_sweep(
    slurm: Slurm, start: Start, mnist: Path, tmp_path: Path
) -> None:
    limits = (*ENDLESS, "hydra.launcher.n_jobs=1", "seed=0,1")  # the second job is never submitted
    started = start("train.py", *SLURM, f"data.dir={mnist}", *limits, **slurm.environment)
    wait_until(lambda: "epoch    3/9999" in log_of_first_job(tmp_path))
    slurm.requeue(slurm.jobs()[0].split()[0])
    wait_until(lambda: "epoch " in log_of_first_job(tmp_path).partition("resumed    ")[2])
    started.send_signal(signal.SIGINT)
    assert started.wait(60) == 130
    assert "train.py sweep.resume=sweep" in started.output
    wait_until(lambda: not slurm.jobs() and not processes_of(tmp_path))
    assert log_of_first_job(tmp_path).count("epoch    1/9999") == 1
    job = jobs_of(tmp_path / "sweep")[0]
    epochs = [epoch["epoch"] for epoch in json.loads((job / "history.json").read_text())]
    assert epochs == list(range(1, len(epochs) + 1))


@pytest.mark.long
@pytest.mark.timeout(900)
def test_job_continues_after_its_time_limit(slurm: Slurm, start: Start, mnist: Path, tmp_path: Path) -> None:
    # Slurm may warn 60 seconds earlier than it is asked to.
    warning = "+hydra.launcher.parameters.slurm_signal_delay_s=30"
    limits = (*ENDLESS, "hydra.launcher.parameters.timeout_min=2", warning)
    started = start("train.py", *SLURM, f"data.dir={mnist}", *limits, **slurm.environment)
    wait_until(lambda: "epoch    1/9999" in log_of_first_job(tmp_path))
    wait_until(lambda: "resumed    " in log_of_first_job(tmp_path))
    errors = [path.read_text() for path in tmp_path.glob("sweep/submitit/*_log.err")]
    assert "stopping with a checkpoint" in "".join(errors)
    assert log_of_first_job(tmp_path).count("epoch    1/9999") == 1
    started.send_signal(signal.SIGINT)
    assert started.wait(60) == 130
    wait_until(lambda: not slurm.jobs() and not processes_of(tmp_path))


@pytest.mark.long
@pytest.mark.timeout(900)
def test_job_that_dies_fails_alone(slurm: Slurm, start: Start, mnist: Path, tmp_path: Path) -> None:
    started = start(
        "train.py",
        *SLURM,
        f"data.dir={mnist}",
        "trainer.limit_train_batches=30",
        "trainer.max_epochs=9998,9999,4",
        **slurm.environment,
    )
    logs = tmp_path / "sweep"
    wait_until(lambda: len([log for log in logs.glob("*/train.log") if "epoch" in log.read_text()]) == 3)
    slurm.query("scancel", min(slurm.jobs(), key=lambda job: int(job.split()[0])).split()[0])
    # The process itself, not the shell of Slurm or submitit that has started it.
    (killed,) = (
        process
        for process in psutil.process_iter(["cmdline", "name"])
        if "python" in process.info["name"] and any("1_trainer" in part for part in process.info["cmdline"])
    )
    killed.kill()
    assert started.wait() == 1, started.output + started.errors
    assert "job 0 failed: Slurm has ended the job; its state is CANCELLED." in started.output
    assert "job 1 failed: the job's process was killed by SIGKILL" in started.output
    assert "job 2 finished" in started.output
    assert "1 ok, 2 failed" in started.output
    wait_until(lambda: not slurm.jobs() and not processes_of(tmp_path))  # a job ends after its result


@pytest.mark.long
@pytest.mark.timeout(900)
def test_killed_sweep_is_resumed_and_its_job_too(
    slurm: Slurm, start: Start, command: Command, mnist: Path, tmp_path: Path
) -> None:
    limits = ("trainer.limit_train_batches=30", "trainer.max_epochs=40")
    started = start("train.py", *SLURM, f"data.dir={mnist}", *limits, **slurm.environment)
    wait_until(lambda: "epoch  2/40" in log_of_first_job(tmp_path))
    started.send_signal(signal.SIGKILL)
    started.wait(60)
    (left,) = slurm.jobs()
    slurm.restart_controller()
    done = command("train.py", "sweep.resume=sweep", **slurm.environment)
    assert (done.returncode, done.stderr) == (0, ""), done.stdout + done.stderr
    states = slurm.query("squeue", "--noheader", "--states=all", "--format=%i %T", "--jobs", left.split()[0])
    assert "CANCELLED" in states
    log = log_of_first_job(tmp_path)
    assert (log.count("epoch  1/40"), log.count("resumed    ")) == (1, 1)


@pytest.mark.long
@pytest.mark.timeout(900)
def test_requeued_step_of_two_ranks_continues_in_its_folder(
    slurm: Slurm, mnist: Path, tmp_path: Path
) -> None:
    training = ("logger=none", f"data.dir={mnist}", "trainer.limit_train_batches=30", "trainer.max_epochs=20")
    arguments = shlex.join([sys.executable, str(REPOSITORY / "train.py"), *SHORT, *training])
    script = tmp_path / "job.sh"
    script.write_text(f"#!/bin/bash\n#SBATCH --ntasks-per-node=2 --output=output\nsrun {arguments}\n")
    submitted = ("sbatch", "--parsable", f"--chdir={tmp_path}", str(script))
    job = slurm.query(*submitted).strip()
    run = tmp_path / "logs" / "runs" / f"cnnnet-sgd-ce_slurm-{job}.0"
    log = run / "train.log"
    wait_until(lambda: log.exists() and "epoch  3/20" in log.read_text())
    slurm.requeue(job)
    wait_until(lambda: not slurm.jobs())
    assert "resumed    " in log.read_text()
    assert json.loads((run / "metrics.json").read_text())["devices"] == 2
    assert [path.name for path in run.parent.iterdir()] == [run.name]
