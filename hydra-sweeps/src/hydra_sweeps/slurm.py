"""What Slurm knows about the jobs of one sweep, and ending them.

submitit asks `sacct`, which needs a database that not every cluster has, in intervals of up to ten minutes.
`squeue` works on every cluster.
"""

import subprocess
import time
from pathlib import Path

# A job in any other state is waiting, running, or about to run again.
ENDED = frozenset(
    (
        *("BOOT_FAIL", "CANCELLED", "COMPLETED", "DEADLINE", "FAILED", "NODE_FAIL", "OUT_OF_MEMORY"),
        *("PREEMPTED", "TIMEOUT"),
    )
)


def read_queue(folder: Path) -> dict[str, str] | None:
    """Return the states of the jobs that were submitted from `folder`, by their ids; None without an answer.

    A job is listed for some minutes after its end.
    """
    command = ["squeue", "--me", "--noheader", "--array", "--states=all", "--format=%i|%T|%o"]
    try:
        answer = subprocess.run(command, capture_output=True, text=True, timeout=60)
    except subprocess.TimeoutExpired:
        return None
    if answer.returncode != 0:  # the controller is restarted, or cannot be reached
        return None
    jobs = (line.split("|", 2) for line in answer.stdout.splitlines())
    return {job: state for job, state, script in jobs if Path(script).is_relative_to(folder)}


def cancel_jobs(folder: Path, seconds: float) -> None:
    """Cancel the jobs that were submitted from `folder`, and wait until they have ended, but not longer."""
    deadline = time.monotonic() + seconds
    cancelled: set[str] = set()
    while True:
        queue = read_queue(folder)
        running = {job for job, state in (queue or {}).items() if state not in ENDED}
        if running - cancelled:
            subprocess.run(["scancel", *sorted(running - cancelled)], check=False)
            cancelled |= running
        if (queue is not None and not running) or time.monotonic() > deadline:
            return
        time.sleep(0.2)
