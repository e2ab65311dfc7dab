"""`make demo`: who can connect."""

import threading
import urllib.request
from pathlib import Path

from mnist_cnn.export.__main__ import make_server


def test_server_answers_on_this_machine_only(tmp_path: Path) -> None:
    (tmp_path / "index.html").write_text("the page")
    with make_server(tmp_path, 0) as first, make_server(tmp_path, first.server_port) as second:
        assert first.server_address[0] == second.server_address[0] == "127.0.0.1"
        assert second.server_port != first.server_port  # which is taken
        thread = threading.Thread(target=second.serve_forever)
        thread.start()
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        with opener.open(f"http://127.0.0.1:{second.server_port}/") as answer:
            assert answer.read() == b"the page"
        second.shutdown()
        thread.join()
