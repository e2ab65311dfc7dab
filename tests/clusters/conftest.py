"""Clusters of this machine, for the tests: Debian's Slurm with one node."""

import getpass
import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest

PROGRAMS = ("munged", "slurmctld", "slurmd", "sbatch", "squeue")
CONFIGURATION = """
ClusterName=test
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={controller}
SlurmdPort={node}
SlurmUser={user}
SlurmdUser={user}
AuthType=auth/munge
AuthInfo=socket={folder}/munge.socket,cred_expire=5
CredType=cred/munge
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU
SlurmdParameters=config_overrides
MailProg=/bin/true
MpiDefault=none
NodeName=localhost NodeAddr=127.0.0.1 CPUs=8 RealMemory=65536
PartitionName=all Nodes=localhost Default=YES State=UP
"""


class Slurm:
    """A Slurm cluster without accounting, as submitit finds it: through SLURM_CONF in the environment."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.environment = {"SLURM_CONF": str(folder / "slurm.conf")}
        self._processes: list[subprocess.Popen[bytes]] = []

    def start(self) -> None:
        """Start the cluster; returns when its node is idle."""
        self.folder.chmod(0o711)  # as munged wants it
        for name in ("state", "spool"):
            (self.folder / name).mkdir()
        (self.folder / "munge.key").touch(0o600)
        (self.folder / "munge.key").write_bytes(os.urandom(1024))
        files = [f"--{name}-file={self.folder}/munge.{name}" for name in ("key", "pid", "log", "seed")]
        self._run("munged", "--foreground", f"--socket={self.folder}/munge.socket", *files)
        ports = _free_ports(2)
        (self.folder / "slurm.conf").write_text(
            CONFIGURATION.format(
                folder=self.folder,
                host=socket.gethostname(),
                user=getpass.getuser(),
                controller=ports[0],
                node=ports[1],
            )
        )
        self._until(lambda: (self.folder / "munge.socket").exists())
        self.start_controller()
        self._run("slurmd", "-D", "-N", "localhost")
        self._until(lambda: "idle" in self.query("sinfo", "--noheader", "--format=%t"))

    def start_controller(self) -> None:
        """Start the process that has the queue."""
        self.controller = self._run("slurmctld", "-D")

    def restart_controller(self) -> None:
        """Kill and start the process that has the queue."""
        self.controller.kill()
        self.controller.wait()
        self._processes.remove(self.controller)
        self.start_controller()

    def stop(self) -> None:
        """End all jobs, and then the cluster."""
        self.query("scancel", "--user", getpass.getuser())
        self._until(lambda: self.jobs() == [])
        for process in reversed(self._processes):
            process.send_signal(signal.SIGTERM)
            process.wait(20)

    def query(self, *command: str) -> str:
        """Run one of Slurm's commands, and return its output."""
        environment = os.environ | self.environment
        return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=20).stdout

    def jobs(self) -> list[str]:
        """Return the jobs in the queue, each as its id and its state."""
        return self.query("squeue", "--noheader", "--array", "--format=%i %T").splitlines()

    def requeue(self, job: str) -> None:
        """Stop a job and start it again, without the two minutes that Slurm waits.

        If the job started again before the processes of its first start have ended, Slurm would take their
        exit code for the job's.
        """
        self.query("scontrol", "requeue", job)
        wait_until(lambda: self.jobs() == [f"{job} PENDING"])
        wait_until(lambda: not any(p.info["name"] == "slurmstepd" for p in psutil.process_iter(["name"])))
        self.query("scontrol", "update", f"JobId={job}", "StartTime=now")

    def _run(self, *command: str) -> "subprocess.Popen[bytes]":
        with (self.folder / f"{command[0]}.output").open("ab") as output:
            environment = os.environ | self.environment
            process = subprocess.Popen(command, env=environment, stdout=output, stderr=output)
        self._processes.append(process)
        return process

    def _until(self, condition: Callable[[], bool]) -> None:
        try:
            wait_until(condition, seconds=30)
        except TimeoutError:
            output = "\n".join(path.read_text() for path in self.folder.glob("*.output"))
            raise TimeoutError(output) from None


def wait_until(condition: Callable[[], bool], seconds: float = 280) -> None:
    """Wait until `condition` is true."""
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            raise TimeoutError
        time.sleep(0.1)


@pytest.fixture(scope="session")
def slurm() -> Iterator[Slurm]:
    """Start a cluster once; where Slurm is not installed, skip, but fail in CI."""
    if not all(map(shutil.which, PROGRAMS)):
        reason = "needs Slurm: apt-get install slurm-wlm munge"
        if os.environ.get("CI"):
            pytest.fail(reason)
        pytest.skip(reason)
    # the path of a socket must be short
    with tempfile.TemporaryDirectory(prefix="slurm-") as folder:
        cluster = Slurm(Path(folder))
        try:
            cluster.start()
            yield cluster
        finally:
            cluster.stop()


def _free_ports(count: int) -> list[int]:
    """Return ports of this machine on which nothing listens."""
    sockets = [socket.socket() for _ in range(count)]
    try:
        for one in sockets:
            one.bind(("127.0.0.1", 0))
        return [one.getsockname()[1] for one in sockets]
    finally:
        for one in sockets:
            one.close()
