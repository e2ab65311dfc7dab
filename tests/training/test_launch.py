"""How ranks end that are killed, or interrupted with the process that has started them."""

import signal
from pathlib import Path

import psutil
import pytest

from mnist_cnn.errors import Interrupted
from mnist_cnn.training.launch import RankFailed, run_ranks

# It imports nothing slow. When both ranks are there, rank 0 sends a signal; then both wait to be ended.
SCRIPT = """
import os, signal, sys, time
from pathlib import Path

def end(number, frame):
    Path(f"ended{os.environ['RANK']}").touch()
    sys.exit()

signal.signal(signal.SIGTERM, end)
signal.signal(signal.SIGINT, end)
Path(os.environ["RANK"]).write_text(str(os.getpid()))
while not (Path("0").exists() and Path("1").exists()):
    time.sleep(0.01)
if os.environ["RANK"] == "0":
    target = os.getpid() if sys.argv[1] == "itself" else os.getppid()
    os.kill(target, signal.Signals[sys.argv[2]])
time.sleep(60)
"""


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def run(target: str, number: signal.Signals) -> None:
    Path("script.py").write_text(SCRIPT)
    run_ranks(["script.py", target, number.name], 2, 8, [signal.SIGINT, signal.SIGTERM])


def is_running(rank: int) -> bool:
    return psutil.pid_exists(int(Path(str(rank)).read_text()))


def test_rank_that_is_killed_is_named_and_the_other_is_ended() -> None:
    with pytest.raises(RankFailed, match=r"^Rank 0 was killed by SIGKILL\.$") as caught:
        run("itself", signal.SIGKILL)
    assert caught.value.was_killed
    assert Path("ended1").exists()
    assert not is_running(0) and not is_running(1)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_interrupt_is_passed_on_to_all_ranks(number: signal.Signals) -> None:
    handler = signal.getsignal(number)
    with pytest.raises(Interrupted, match=number.name):
        run("its parent", number)
    assert signal.getsignal(number) is handler
    assert Path("ended0").exists() and Path("ended1").exists()
    assert not is_running(0) and not is_running(1)
