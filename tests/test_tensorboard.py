"""`make tensorboard`: no other machine can connect."""

import shlex
import subprocess
import sys
import time
from pathlib import Path

import psutil

from tests.conftest import REPOSITORY

SECONDS = 120  # for a failing test


def test_tensorboard_listens_on_this_machine_only(tmp_path: Path) -> None:
    made = subprocess.run(
        ["make", "--no-print-directory", "-n", "tensorboard"],
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        check=True,
    )
    _, *options = shlex.split(made.stdout.splitlines()[-1])
    assert options[:2] == ["--logdir", "logs"]
    command = [sys.executable, "-m", "tensorboard.main", *options, "--port", "0"]
    process = psutil.Popen(command, cwd=tmp_path, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        end, addresses = time.monotonic() + SECONDS, set()
        while not addresses and process.poll() is None and time.monotonic() < end:
            time.sleep(0.1)
            family = [process, *process.children(recursive=True)]
            sockets = [one for each in family for one in each.net_connections("tcp")]
            addresses = {one.laddr.ip for one in sockets if one.status == psutil.CONN_LISTEN}
        assert addresses
        assert addresses <= {"127.0.0.1", "::1"}
    finally:
        for one in [*process.children(recursive=True), process]:
            one.kill()
        process.wait()
