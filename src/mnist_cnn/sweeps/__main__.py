"""`python -m mnist_cnn.sweeps logs/sweeps/SWEEP …`: compare runs, seeds taken together.

Of one sweep the report is written into its folder, too: sweep.md, sweep.csv and pictures/.
"""

import argparse
import os
import sys
from pathlib import Path

from mnist_cnn.errors import UserError
from mnist_cnn.sweeps import report
from mnist_cnn.sweeps.compare import find_runs, is_sweep, objectives_of


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m mnist_cnn.sweeps",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("folders", nargs="+", type=Path, help="runs, sweeps, or folders of them")
    parser.add_argument("--csv", type=Path, metavar="PATH", help="write all runs to this file, a row each")
    arguments = parser.parse_args()
    try:
        _compare(arguments.folders, arguments.csv)
    except UserError as error:
        sys.exit(str(error))
    except OSError as error:
        sys.exit(f"cannot write {error.filename or 'the report'}: {error.strerror}.")


def _compare(folders: list[Path], path: Path | None) -> None:
    for folder in folders:
        if not folder.is_dir():
            raise UserError(f"{folder} is not a folder.")
    sweep = folders[0] if len(folders) == 1 and is_sweep(folders[0]) else None
    if sweep is not None:
        objectives = objectives_of(sweep)
        print(report.write(sweep, objectives))
        print(f"report: {os.path.relpath(sweep / 'sweep.md')}")
        if path is not None:
            report.write_csv(path, find_runs([sweep]), objectives)
    else:
        runs = find_runs(folders)
        if path is not None:
            report.write_csv(path, runs)
        print(report.text(runs, rest=f"in {path}" if path else "(--csv PATH writes all)"))


if __name__ == "__main__":
    main()
