"""`make demo`: a page to draw on, with the network of the newest run, for this machine only."""

import argparse
import functools
import json
import logging
import signal
import sys
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from omegaconf import OmegaConf

from hydra_sweeps import METRICS, RESOLVED
from mnist_cnn.errors import UserError

LOGS = Path("logs")
PAGE = Path("logs", "demo", "index.html")
ADDRESS = "127.0.0.1"  # no other machine can connect


def newest_checkpoint(logs: Path) -> Path:
    """Return the result of the run that finished last: best.ckpt, or last.ckpt if there is no best.ckpt.

    Runs of sweeps count, but runs of debug=smoke do not. Raises `UserError` if no run has finished.
    """
    files = [*logs.glob(f"runs/*/{METRICS}"), *logs.glob(f"sweeps/*/*/{METRICS}")]
    for file in sorted(files, key=lambda path: path.stat().st_mtime, reverse=True):
        finished = json.loads(file.read_text()).get("status", "finished") == "finished"
        for name in ("best.ckpt", "last.ckpt"):
            path = file.parent / "checkpoints" / name
            if finished and path.is_file() and not is_smoke_test(file.parent):
                return path
    raise UserError(
        f"No run in {logs} has finished yet. Train one first: make train ARGS=trainer.max_epochs=1"
    )


def is_smoke_test(run: Path) -> bool:
    """Return whether a run was limited to some batches, both in training and in the test."""
    if not (run / RESOLVED).is_file():
        return False
    settings = OmegaConf.load(run / RESOLVED)
    limits = [OmegaConf.select(settings, f"trainer.limit_{split}_batches") for split in ("train", "test")]
    return None not in limits


def make_server(folder: Path, port: int) -> ThreadingHTTPServer:
    """Return a server of the files in `folder`, for this machine only; on a free port if `port` is taken."""
    handler = functools.partial(SimpleHTTPRequestHandler, directory=str(folder))
    try:
        return ThreadingHTTPServer((ADDRESS, port), handler)
    except OSError:
        return ThreadingHTTPServer((ADDRESS, 0), handler)


def make_page(path: Path) -> None:
    """Write the page with the network of the newest run."""
    ckpt = newest_checkpoint(LOGS)
    print(f"checkpoint   {ckpt}", flush=True)
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # a KeyboardInterrupt can crash the import of a C++ library
    from mnist_cnn.export import formats

    signal.signal(signal.SIGINT, signal.default_int_handler)
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stdout)
    formats.export([ckpt], "html", str(path), None)


def main(arguments: list[str] | None = None) -> None:
    """Make the page and serve it until Ctrl-C."""
    parser = argparse.ArgumentParser(prog="python -m mnist_cnn.export", description=__doc__)
    parser.add_argument("--port", type=int, default=8000)
    options = parser.parse_args(arguments)
    try:
        make_page(PAGE)
    except UserError as error:
        sys.exit(str(error))
    except KeyboardInterrupt:
        sys.exit(130)
    with make_server(PAGE.parent, options.port) as server:
        print(f"draw a digit: http://{ADDRESS}:{server.server_port}   (Ctrl-C ends it)", flush=True)
        try:
            server.serve_forever()
        except KeyboardInterrupt:
            print()


if __name__ == "__main__":
    main()
