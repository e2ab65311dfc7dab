"""`python -m benchmarks.scale`: what a sweep costs beside its jobs, at 500 to 10,000 of them.

Reports of finished runs; the start and the resumption of a large grid of train.py until its first job; a
search of jobs that do nothing; and jobs of one second in a pool of two. Prints seconds, those of them that a
processor has worked, and the megabytes of the process.
"""

import argparse
import json
import re
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

ROOT = Path(__file__).parents[1]
GRID = ("seed=range(2500)", "optim=sgd,adam", "loss=ce,mse")  # 10,000 jobs

# An app that does nothing, or sleeps, and returns a number.
APP = """
import time
import hydra

@hydra.main(version_base=None, config_path=None, config_name="config")
def main(config):
    time.sleep(config.sleep)
    return (config.x - 1) ** 2 + (config.y - 2) ** 2

if __name__ == "__main__":
    main()
"""
CONFIG = (
    "defaults: [{sweep: default}, _self_, {override hydra/callbacks: run_files}]\nx: 0.0\ny: 0.0\nsleep: 0\n"
)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.scale", description=__doc__)
    parser.add_argument("--only", choices=MEASURED, help="one part of the table")
    chosen = parser.parse_args().only
    print(f"{'':<46} {'seconds':>8} {'worked':>8} {'MB':>6}")
    for name, part in MEASURED.items():
        if chosen in (None, name):
            with tempfile.TemporaryDirectory() as folder:
                part(Path(folder))


def measure(what: str, command: Sequence[str], folder: Path, until: str | None = None) -> float:
    """Run a command to its end, or until it prints `until`; print what it took, and return the seconds."""
    began, worked = time.perf_counter(), working()
    with subprocess.Popen(
        [sys.executable, *command], cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    ) as process:
        assert process.stdout is not None
        megabytes = 0.0
        for line in process.stdout:
            megabytes = size(process.pid) or megabytes
            if until is not None and re.match(until, line):
                break
        else:
            process.wait()
            if process.returncode != 0:
                raise RuntimeError(f"{' '.join(command)} has failed.")
        seconds = time.perf_counter() - began
        process.kill()
    print(f"{what:<46} {seconds:8.1f} {working() - worked:8.1f} {megabytes:6.0f}", flush=True)
    return seconds


def working() -> float:
    """Return the seconds that a processor has worked for the processes that were started here and have ended."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def size(pid: int) -> float | None:
    """Return the largest memory that a process has had, in MB; None if it has ended."""
    try:
        found = re.search(r"VmHWM:\s+(\d+) kB", Path(f"/proc/{pid}/status").read_text())
    except OSError:
        return None
    return int(found[1]) / 1000 if found else None


# --- reports -------------------------------------------------------------------------------------


def reports(folder: Path) -> None:
    settings = subprocess.run(
        [sys.executable, str(ROOT / "train.py"), "--cfg", "job", "--resolve"],
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    for count in (2_000, 10_000):
        sweep = folder / str(count)
        for number in range(count):
            add_run(sweep, number, settings)
        definition = {"hydra": {"overrides": {"hydra": [], "task": ["optim.lr=0.1,0.2", "seed=range(9999)"]}}}
        (sweep / "multirun.yaml").write_text(json.dumps(definition))
        measure(f"report of {count:,} runs", ["-m", "hydra_sweeps", str(sweep)], folder)


def add_run(sweep: Path, number: int, settings: str) -> None:
    """Write the folder of a finished run of train.py."""
    run = sweep / f"{number}_lr"
    (run / ".hydra").mkdir(parents=True)
    (run / "checkpoints").mkdir()
    rate = 0.001 * (number % 100 + 1)
    text = re.sub(r"(?m)^(  )?lr: .*", rf"\g<1>lr: {rate}", settings)
    (run / ".hydra" / "resolved.yaml").write_text(re.sub(r"(?m)^( *)seed: .*", rf"\g<1>seed: {number}", text))
    (run / ".hydra" / "overrides.yaml").write_text(f"- optim.lr={rate}\n- seed={number}\n")
    metrics = {"val/acc": 0.9 + number / 1e6, "test/acc": 0.9, "test/loss": 0.1, "epochs": 3, "seconds": 9.5}
    (run / "metrics.json").write_text(json.dumps(metrics))


# --- a large grid --------------------------------------------------------------------------------


def grids(folder: Path) -> None:
    command = [str(ROOT / "train.py"), "-m", *GRID, f"data.dir={ROOT / 'data'}", "hydra.sweep.dir=sweep"]
    measure("start of a grid of 10,000 until its first job", command, folder, until="job 0:")
    sweep = folder / "sweep"
    with (sweep / "jobs.jsonl").open("w") as file:
        for number in range(5_000):
            file.write(json.dumps({"job": number, "folder": str(number)}) + "\n")
            (sweep / str(number)).mkdir()
            (sweep / str(number) / "metrics.json").write_text('{"val/acc": 0.9}')
    command = [str(ROOT / "train.py"), "sweep.resume=sweep", f"data.dir={ROOT / 'data'}"]
    measure("its resumption after 5,000 jobs", command, folder, until="job 5000:")


# --- searches and the pool -------------------------------------------------------------------------


def searches(folder: Path) -> None:
    space = ["hydra.sweeper.n_trials=2000", "x=interval(-5.0,5.0)", "y=interval(-5.0,5.0)"]
    command = app(folder, "hydra/sweeper=optuna", "hydra/sweeper/pruner=none", *space)
    search = measure("search of 2,000 jobs that do nothing", command, folder)
    command = app(folder, "hydra/sweeper=basic", "x=range(2000)", "hydra.sweep.dir=basic")
    basic = measure("2,000 jobs with Hydra's own sweeper", command, folder)
    print(f"{'the search beside that':<46} {search - basic:8.1f}")


def pools(folder: Path) -> None:
    command = app(folder, "hydra/launcher=pool", "hydra.launcher.n_jobs=2", "sleep=1", "x=range(500)")
    seconds = measure("500 jobs of a second in a pool of two", command, folder)
    print(f"{'part of the time in jobs':<46} {500 / 2 / seconds:8.0%}")


def app(folder: Path, *arguments: str) -> list[str]:
    """Write the app into a folder, and return the command of a sweep of it."""
    (folder / "app.py").write_text(APP)
    (folder / "config.yaml").write_text(CONFIG)
    return ["app.py", "--config-dir=.", "-m", *arguments]


MEASURED: dict[str, Callable[[Path], None]] = {
    "reports": reports,
    "grids": grids,
    "searches": searches,
    "pools": pools,
}

if __name__ == "__main__":
    main()
