"""`python -m hydra_sweeps logs/sweeps/SWEEP …`: compare runs, with seeds grouped.

The report of a single sweep is also written into its folder: sweep.md, sweep.csv and figures/.
"""

import argparse
import io
import os
import sys
from pathlib import Path

from hydra_sweeps.contract import SweepError
from hydra_sweeps.definition import is_sweep
from hydra_sweeps.report import writing
from hydra_sweeps.runs import find_runs, goal_of_sweep


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m hydra_sweeps",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("folders", nargs="+", type=Path, help="runs, sweeps, or folders of them")
    parser.add_argument("--csv", type=Path, metavar="PATH", help="write all runs to this file, one per row")
    arguments = parser.parse_args()
    folders, path = arguments.folders, arguments.csv
    if isinstance(sys.stdout, io.TextIOWrapper):  # a table with other characters than its own would be lost
        sys.stdout.reconfigure(errors="backslashreplace")
    try:
        runs = find_runs(folders)
        goal = runs[0].goal
        if len(folders) == 1 and is_sweep(folders[0]):
            goal = goal_of_sweep(folders[0])
            print(writing.write(folders[0], goal))
            print(f"report: {os.path.relpath(folders[0] / 'sweep.md')}")
        else:
            print(writing.text(runs, goal, rest=f"in {path}" if path else "(--csv PATH writes all)"))
        if path is not None:
            writing.write_csv(path, runs, goal)
    except (SweepError, OSError) as error:
        sys.exit(str(error))
    except KeyboardInterrupt:
        sys.exit(130)


if __name__ == "__main__":
    main()
