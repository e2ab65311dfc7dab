"""`make demo`: a page to draw on, with the network of the newest run, for this machine only."""

import argparse
import functools
import logging
import signal
import sys
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from mnist_cnn.errors import UserError
from mnist_cnn.runs import newest_checkpoint

PAGE = Path("logs", "demo", "index.html")
ADDRESS = "127.0.0.1"  # no other machine can connect


def make_server(folder: Path, port: int) -> ThreadingHTTPServer:
    """Return a server of the files in `folder`, for this machine only; on a free port if `port` is taken."""
    handler = functools.partial(SimpleHTTPRequestHandler, directory=str(folder))
    try:
        return ThreadingHTTPServer((ADDRESS, port), handler)
    except OSError:
        return ThreadingHTTPServer((ADDRESS, 0), handler)


def make_page(path: Path) -> None:
    """Write the page with the network of the newest run."""
    ckpt = newest_checkpoint()
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
