"""Launchers for clusters: submitit and Ray on this machine, and Slurm through stand-ins for its commands."""

import json
import signal
import stat
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest

from hydra_sweeps.launchers import Command, run_command
from hydra_sweeps.remote import SubmittedCommand

Run = Callable[..., "subprocess.CompletedProcess[str]"]

# Slurm's commands as submitit calls them. The tasks of an array run in the background, with the environment
# that Slurm gives a task.
SBATCH = """
import os, re, subprocess, sys
script = open(sys.argv[1]).read()
array = re.search(r"--array=0-(\\d+)", script)
for task in range(int(array[1]) + 1 if array else 1):
    variables = {
        "SLURM_JOB_ID": f"7{task}", "SLURM_ARRAY_JOB_ID": "7", "SLURM_ARRAY_TASK_ID": str(task),
        "SLURM_JOB_NAME": "mnist-cnn", "SLURM_NTASKS": "1", "SLURM_PROCID": "0", "SLURM_LOCALID": "0",
        "SLURM_NODEID": "0", "SLURM_NNODES": "1", "SLURM_JOB_NUM_NODES": "1", "SLURM_JOB_NODELIST": "node1",
        "SLURM_TASKS_PER_NODE": "1", "SLURM_CPUS_PER_TASK": "1",
    }
    if not array:
        del variables["SLURM_ARRAY_JOB_ID"], variables["SLURM_ARRAY_TASK_ID"]
    quiet = dict.fromkeys(("stdin", "stdout", "stderr"), subprocess.DEVNULL)
    subprocess.Popen(["bash", sys.argv[1]], env=os.environ | variables, start_new_session=True, **quiet)
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


def install_slurm(folder: Path) -> str:
    """Write stand-ins for Slurm's commands; return the PATH that finds them."""
    folder.mkdir()
    for name, code in {"sbatch": SBATCH, "srun": SRUN, "sacct": SACCT, "scancel": ""}.items():
        (folder / name).write_text(f"#!{sys.executable}\n{code}")
        (folder / name).chmod(stat.S_IRWXU)
    return f"{folder}:/usr/bin:/bin"


def command(folder: Path, fresh: list[str], resume: list[str] | None = None) -> Command:
    return Command(0, folder, fresh, resume, {}, {})


@pytest.mark.parametrize("launcher", ["submitit_local", "ray"])
def test_jobs_run_on_cluster_and_fail_alone(launcher: str, run: Run, tmp_path: Path) -> None:
    done = run("-m", f"hydra/launcher={launcher}", "fail=null,error")
    assert done.returncode == 1
    assert "job 0 finished: val/loss" in done.stdout
    assert "job 1 failed: the job's process ended with exit code 1" in done.stdout
    assert "1 ok, 1 failed" in done.stdout
    assert json.loads((tmp_path / "sweep" / "0_fail=null" / "metrics.json").read_text())["threads"] == "1"


def test_slurm_gets_array_of_jobs(run: Run, tmp_path: Path) -> None:
    done = run(
        *("-m", "seed=0,1", "hydra/launcher=submitit_slurm", "hydra.launcher.poll=0.2"),
        *("hydra.launcher.parameters.slurm_partition=gpu", "hydra.launcher.parameters.gpus_per_node=2"),
        PATH=install_slurm(tmp_path / "bin"),
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "2 ok" in done.stdout
    script = next((tmp_path / "sweep" / "submitit").glob("*submission*.sh"))
    lines = script.read_text().splitlines()
    wanted = ("array=0-1%2", "cpus-per-task=4", "gpus-per-node=2", "mem=16GB", "partition=gpu", "time=60")
    assert all(f"#SBATCH --{line}" in lines for line in wanted), lines


def test_preempted_job_is_submitted_again_and_resumes(tmp_path: Path) -> None:
    submitted = SubmittedCommand(command(tmp_path, ["fresh"], ["resume"]), threads=2)
    assert submitted.command.arguments == ["fresh"]
    (tmp_path / ".hydra").mkdir()
    (tmp_path / ".hydra" / "resolved.yaml").touch()
    again = submitted.checkpoint()
    assert again.function is submitted
    assert submitted.command.arguments == ["resume"]
    assert command(tmp_path, ["fresh"]).arguments == ["fresh"]  # an app that cannot resume
    assert submitted.environment == {"OMP_NUM_THREADS": "2"}


def test_interrupted_command_is_interrupted_and_its_processes_are_killed(tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    script.write_text(
        "import os, pathlib, subprocess, time\n"
        "child = subprocess.Popen(['sleep', '1000'])\n"
        "pathlib.Path('part').write_text(f'{os.getpid()} {child.pid}')\n"
        "os.rename('part', 'pids')\n"
        "try:\n    time.sleep(1000)\nexcept KeyboardInterrupt:\n    pathlib.Path('interrupted').touch()\n"
    )
    runner = (
        "import sys, signal\nfrom hydra_sweeps.launchers import run_command\n"
        f"run_command([sys.executable, {str(script)!r}], {{}}, {str(tmp_path)!r})"
    )
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)  # which the processes inherit
    try:
        process = subprocess.Popen([sys.executable, "-c", runner], stderr=subprocess.DEVNULL)
    finally:
        signal.signal(signal.SIGINT, before)
    while not (tmp_path / "pids").exists():
        time.sleep(0.02)
    process.send_signal(signal.SIGINT)
    process.wait(30)
    assert (tmp_path / "interrupted").exists()
    pids = [int(pid) for pid in (tmp_path / "pids").read_text().split()]
    alive = [p for p in pids if psutil.pid_exists(p) and psutil.Process(p).status() != psutil.STATUS_ZOMBIE]
    assert alive == []


def test_warning_before_time_limit_does_not_reach_command(tmp_path: Path) -> None:
    code = "import os, signal; os.kill(os.getpid(), signal.SIGUSR2); os._exit(3)"
    before = signal.getsignal(signal.SIGINT)
    assert run_command([sys.executable, "-c", code], {}, str(tmp_path)) == 3
    signal.signal(signal.SIGINT, before)
