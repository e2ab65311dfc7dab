"""`make fuzz`: each target in a process of its own, and a table of the results."""

import argparse
import json
import logging
import subprocess
import sys
from dataclasses import asdict

from tests.fuzz.run import Result, run
from tests.fuzz.targets import TARGETS

ROW = "{:<17} {:>8} {:>8} {:>8} {:>12} {:>9}"


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description=__doc__)
    parser.add_argument("--share", type=float, default=1, help="of the inputs of each target")
    parser.add_argument("--only", metavar="TARGET", help=f"one of {', '.join(TARGETS)}")
    parser.add_argument("targets", nargs="*", default=list(TARGETS), metavar="TARGET")
    options = parser.parse_args()
    if options.only:
        logging.disable()
        inputs = round(TARGETS[options.only].inputs * options.share)
        print(json.dumps(asdict(run(options.only, inputs, derandomize=False))))
        return
    print(ROW.format("target", "inputs", "refused", "seconds", "slowest, ms", "peak, MB"), flush=True)
    total, failed = Result(), []
    for name in options.targets:
        command = [sys.executable, "-m", "tests.fuzz", "--only", name, "--share", str(options.share)]
        done = subprocess.run(command, stdout=subprocess.PIPE, text=True)
        if done.returncode != 0:
            failed.append(name)
            print(f"{name}: failed with exit code {done.returncode}", flush=True)
            continue
        result = Result(**json.loads(done.stdout.splitlines()[-1]))
        show(name, result)
        total.inputs += result.inputs
        total.refused += result.refused
        total.seconds += result.seconds
        total.slowest, total.peak = max(total.slowest, result.slowest), max(total.peak, result.peak)
    show("total", total)
    if failed:
        sys.exit(f"failed: {', '.join(failed)}")


def show(name: str, result: Result) -> None:
    values = f"{result.seconds:.0f}", f"{result.slowest * 1000:,.0f}", f"{result.peak / 1e6:,.0f}"
    print(ROW.format(name, f"{result.inputs:,}", f"{result.refused:,}", *values), flush=True)


if __name__ == "__main__":
    main()
