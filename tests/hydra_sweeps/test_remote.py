"""Sweeps on clusters: Ray and submitit for real on this machine, Slurm as far as its commands."""

import json
import stat
import sys
from pathlib import Path

import pytest
from omegaconf import OmegaConf

from tests.conftest import Command
from tests.runs import SHORT, jobs_of, processes_of

# Two ranks each; the second job diverges.
TWO_DDP_JOBS = (
    *SHORT,
    "trainer.max_epochs=1",
    "trainer=ddp",
    "trainer.devices=2",
    "optim.lr=0.01,1e30",
    "hydra.sweep.dir=sweep",
)

# Slurm's commands as submitit calls them. The tasks of an array run in the background, each with what
# Slurm tells a task of itself.
SBATCH = """
import os, re, subprocess, sys
script = open(sys.argv[1]).read()
array = re.search(r"--array=0-(\\d+)", script)
for task in range(int(array[1]) + 1 if array else 1):
    told = {
        "SLURM_JOB_ID": f"7{task}", "SLURM_ARRAY_JOB_ID": "7", "SLURM_ARRAY_TASK_ID": str(task),
        "SLURM_JOB_NAME": "mnist-cnn", "SLURM_NTASKS": "1", "SLURM_PROCID": "0", "SLURM_LOCALID": "0",
        "SLURM_NODEID": "0", "SLURM_NNODES": "1", "SLURM_JOB_NUM_NODES": "1", "SLURM_JOB_NODELIST": "node1",
        "SLURM_TASKS_PER_NODE": "1", "SLURM_CPUS_PER_TASK": "1",
    }
    if not array:
        del told["SLURM_ARRAY_JOB_ID"], told["SLURM_ARRAY_TASK_ID"]
    quiet = dict.fromkeys(("stdin", "stdout", "stderr"), subprocess.DEVNULL)
    subprocess.Popen(["bash", sys.argv[1]], env=os.environ | told, start_new_session=True, **quiet)
print("Submitted batch job 7")
"""
SRUN = """
import subprocess, sys
command = sys.argv[1:]
output = command[command.index("--output") + 1].replace("%A_%a", "x").replace("%j", "x").replace("%t", "0")
with open(output, "w") as file:
    sys.exit(subprocess.run(command[command.index(sys.executable):], stdout=file, stderr=file).returncode)
"""
SACCT = """
print("JobID|State|NodeList")
for task in range(2):
    print(f"7_{task}|RUNNING|node1")
"""


def assert_the_first_job_ended_well_and_the_second_failed_alone(
    output: str, folder: Path, tmp_path: Path
) -> None:
    assert "job 0 finished: val/acc" in output, output
    assert "job 1 failed: The loss became" in output
    assert "1 ok, 1 failed" in output
    jobs = jobs_of(folder)
    assert [job.name for job in jobs] == ["0_optim.lr=0.01", "1_optim.lr=1e+30"]
    assert json.loads((jobs[0] / "metrics.json").read_text())["devices"] == 2
    assert len(list(jobs[0].glob("events.out.tfevents*"))) == 1
    assert "Traceback" in (jobs[1] / "train.log").read_text()
    assert processes_of(tmp_path) == []


@pytest.mark.parametrize("launcher", ["submitit_local", "ray"])
def test_two_ranks_a_job(launcher: str, command: Command, mnist: Path, tmp_path: Path) -> None:
    done = command("train.py", "-m", f"data.dir={mnist}", *TWO_DDP_JOBS, f"hydra/launcher={launcher}")
    assert done.returncode == 1
    assert "Traceback" not in done.stdout + done.stderr
    assert_the_first_job_ended_well_and_the_second_failed_alone(done.stdout, tmp_path / "sweep", tmp_path)


def test_slurm_is_given_an_array_of_jobs_that_start_their_own_ranks(
    command: Command, mnist: Path, tmp_path: Path
) -> None:
    commands = tmp_path / "bin"
    commands.mkdir()
    for name, code in {"sbatch": SBATCH, "srun": SRUN, "sacct": SACCT, "scancel": ""}.items():
        (commands / name).write_text(f"#!{sys.executable}\n{code}")
        (commands / name).chmod(stat.S_IRWXU)
    done = command(
        "train.py",
        "-m",
        f"data.dir={mnist}",
        *TWO_DDP_JOBS,
        "hydra/launcher=submitit_slurm",
        "hydra.launcher.parameters.slurm_partition=gpu",
        "hydra.launcher.parameters.gpus_per_node=2",
        "hydra.launcher.poll=0.5",
        PATH=f"{commands}:/usr/bin:/bin",
    )
    assert done.returncode == 1
    assert_the_first_job_ended_well_and_the_second_failed_alone(done.stdout, tmp_path / "sweep", tmp_path)
    script = next((tmp_path / "sweep" / "submitit").glob("*submission*.sh"))
    lines = script.read_text().splitlines()
    wanted = ("array=0-1%2", "cpus-per-task=4", "gpus-per-node=2", "mem=16GB", "partition=gpu", "time=60")
    assert all(f"#SBATCH --{line}" in lines for line in wanted), lines


def test_a_job_that_is_preempted_is_submitted_again_to_go_on(tmp_path: Path) -> None:
    pytest.importorskip("submitit", reason="is in the extra cluster, which `make install` installs")
    from mnist_cnn.sweeps.remote import RemoteJob

    job = RemoteJob.__new__(RemoteJob)
    folder = {"dir": str(tmp_path), "subdir": "3_optim=adam"}
    job.config = OmegaConf.create({"resume": None, "hydra": {"sweep": folder}})
    submission = job.checkpoint()
    assert submission.function is job
    assert job.config.resume == str(tmp_path / "3_optim=adam")


@pytest.mark.parametrize(
    ("launcher", "module", "extra"),
    [("ray", "ray", "ray"), ("submitit_local", "submitit", "cluster")],
)
def test_a_missing_library_is_told_with_its_extra(
    launcher: str, module: str, extra: str, command: Command, tmp_path: Path
) -> None:
    (tmp_path / f"{module}.py").write_text(f"raise ModuleNotFoundError('No module named {module}')")
    done = command("train.py", "-m", f"hydra/launcher={launcher}", "seed=0,1", PYTHONPATH=str(tmp_path))
    assert done.returncode == 1
    assert f"pip install -e '.[{extra}]'" in done.stderr
    assert "Traceback" not in done.stderr
