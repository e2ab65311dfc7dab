"""`make demo`: a page to draw on, with the network of the newest run, on this machine only."""

import argparse
import functools
import json
import logging
import sys
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from hydra_sweeps import METRICS
from mnist_cnn.errors import UserError

RUNS = Path("logs", "runs")
PAGE = Path("logs", "demo", "index.html")
ADDRESS = "127.0.0.1"  # no other machine can connect


def newest_checkpoint(runs: Path) -> Path:
    """Return best.ckpt of the run that finished last; raises `UserError` where none has finished."""
    files = sorted(runs.glob(f"*/{METRICS}"), key=lambda path: path.stat().st_mtime, reverse=True)
    for file in files:
        path = file.parent / "checkpoints" / "best.ckpt"
        if path.is_file() and json.loads(file.read_text()).get("status", "finished") == "finished":
            return path
    raise UserError(
        f"No run in {runs} has finished yet. Train one first: make train ARGS=trainer.max_epochs=1"
    )


def make_server(folder: Path, port: int) -> ThreadingHTTPServer:
    """Return a server of the files in `folder` on this machine, on any free port where `port` is taken."""
    handler = functools.partial(SimpleHTTPRequestHandler, directory=str(folder))
    try:
        return ThreadingHTTPServer((ADDRESS, port), handler)
    except OSError:
        return ThreadingHTTPServer((ADDRESS, 0), handler)


def main(arguments: list[str] | None = None) -> None:
    """Make the page and serve it until Ctrl-C."""
    parser = argparse.ArgumentParser(prog="python -m mnist_cnn.export", description=__doc__)
    parser.add_argument("--port", type=int, default=8000)
    options = parser.parse_args(arguments)
    try:
        ckpt = newest_checkpoint(RUNS)
        print(f"checkpoint   {ckpt}", flush=True)
        from mnist_cnn.export import formats

        logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stdout)
        formats.export([ckpt], "html", str(PAGE), None)
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
