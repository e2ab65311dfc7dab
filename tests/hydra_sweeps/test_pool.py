"""Jobs side by side, each in its own process: small tasks, and train.py as a user types it."""

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import psutil
import pytest
import torch
import yaml
from hydra import initialize_config_dir
from hydra._internal.callbacks import Callbacks
from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig
from hydra.core.utils import JobReturn, JobStatus
from hydra.types import HydraContext, RunMode
from hydra_plugins.pool_launcher import PoolLauncher
from mnist_cnn.sweeps import pool
from mnist_cnn.sweeps.pool import Places, Size
from omegaconf import DictConfig, OmegaConf

from mnist_cnn.errors import UserError
from tests.conftest import REPOSITORY, Command

SECONDS = 60  # that a test waits for what must come

# The tasks are functions in functions, which are sent to the processes whole; these can import no tests.
Launch = Callable[..., PoolLauncher]


@pytest.fixture
def launcher(tmp_path: Path) -> Iterator[Launch]:
    """Give a launcher of a task whose jobs have the settings `x` and `folder`, a fresh one for files."""
    conf = tmp_path / "conf"
    conf.mkdir()
    (conf / "config.yaml").write_text(
        yaml.safe_dump(
            {
                "x": 0,
                "folder": str(tmp_path),
                "trainer": {"accelerator": "cpu", "devices": 1},
                "hydra": {"sweep": {"dir": str(tmp_path / "sweep"), "subdir": "${hydra:job.num}"}},
            }
        )
    )
    with initialize_config_dir(str(conf), version_base="1.3"):

        def make(task: Callable[[Any], Any], n_jobs: int | str = 2, threads: int | str = 1) -> PoolLauncher:
            hydra = GlobalHydra.instance().hydra
            assert hydra is not None
            loader = hydra.config_loader
            config = loader.load_configuration("config", ["hydra.mode=MULTIRUN"], RunMode.MULTIRUN)
            HydraConfig.instance().set_config(config)
            made = PoolLauncher(n_jobs, threads)
            made.setup(hydra_context=HydraContext(loader, Callbacks()), task_function=task, config=config)
            return made

        yield make


def jobs(count: int) -> list[tuple[int, Sequence[str]]]:
    return [(number, [f"x={number}"]) for number in range(count)]


def wait_for(there: Callable[[], bool]) -> None:
    deadline = time.monotonic() + SECONDS
    while not there():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def error_of(result: JobReturn) -> Exception:
    assert result.status is JobStatus.FAILED
    with pytest.raises(Exception) as caught:  # noqa: PT011
        _ = result.return_value
    assert isinstance(caught.value, Exception)
    return caught.value


def config_of(**trainer: Any) -> DictConfig:
    return OmegaConf.create({"trainer": trainer})


@pytest.mark.parametrize(
    ("n_jobs", "threads", "gpus", "cores", "devices", "expected"),
    [
        # jobs at a time, threads of each, jobs on a GPU
        ("auto", "auto", 0, 8, 1, (8, 1, 1)),
        ("auto", 3, 0, 8, 1, (2, 3, 1)),
        ("auto", 16, 0, 8, 1, (1, 16, 1)),
        ("auto", "auto", 0, 8, 2, (4, 1, 1)),
        (3, "auto", 0, 8, 1, (3, 2, 1)),
        (16, "auto", 0, 8, 1, (16, 1, 1)),
        (3, 4, 0, 8, 1, (3, 4, 1)),
        ("auto", "auto", 4, 16, 1, (4, 4, 1)),
        ("auto", "auto", 4, 16, 3, (1, 16, 1)),
        ("auto", 2, 4, 16, 2, (2, 2, 1)),
        ("auto", "auto", 2, 16, "auto", (1, 16, 1)),
        ("auto", "auto", 2, 16, -1, (1, 16, 1)),
        ("auto", "auto", 1, 16, 2, (1, 16, 1)),
        (6, "auto", 2, 16, 1, (6, 2, 3)),
    ],
)
def test_the_machine_is_divided_among_the_jobs(
    n_jobs: Any, threads: Any, gpus: int, cores: int, devices: Any, expected: tuple[int, int, int]
) -> None:
    names = [str(number) for number in range(gpus)]
    places = Places.for_jobs_like(config_of(devices=devices), Size.given(n_jobs, threads), names, cores)
    assert (places.n_jobs, places.threads, places.jobs_per_gpu) == expected


@pytest.mark.parametrize("value", [0, -1, "many", 1.5, True, None])
def test_a_wrong_size_is_told(value: Any) -> None:
    for name in ("n_jobs", "threads"):
        with pytest.raises(UserError, match=rf"hydra\.launcher\.{name}={value}: .* auto"):
            Size.given(**({"n_jobs": "auto", "threads": "auto"} | {name: value}))


def test_gpus_chosen_by_number_are_refused_where_the_pool_divides_them() -> None:
    for devices in ([1, 2], "1,2"):
        with pytest.raises(UserError, match="CUDA_VISIBLE_DEVICES"):
            pool.devices_of(config_of(devices=devices), gpus=4)
    assert pool.devices_of(config_of(devices="2"), gpus=4) == 2
    assert pool.devices_of(OmegaConf.create({"x": 1}), gpus=4) == 1


def test_a_job_gets_the_emptiest_gpus_and_waits_until_they_are_enough() -> None:
    places = Places(3, 1, ["a", "b", "c"])
    assert places.take(1) == ["a"]
    assert places.take(1) == ["b"]
    assert places.take(2) is None
    places.give_back(["a"])
    assert places.take(2) == ["a", "c"]
    assert places.take(1) is None


def test_gpus_that_the_user_has_chosen_are_the_ones_divided(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "5, GPU-7f")
    assert pool.gpus_for(config_of(accelerator="auto")) == ["5", "GPU-7f"]
    assert pool.gpus_for(config_of(accelerator="cpu")) == []
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES")
    assert pool.gpus_for(config_of(accelerator="gpu")) == ["0", "1"]


def test_the_next_job_starts_when_one_ends_and_is_decided_then(launcher: Launch, tmp_path: Path) -> None:
    def task(config: Any) -> int:
        import time
        from pathlib import Path

        deadline = time.monotonic() + 60
        while config.x == 0 and not (Path(config.folder) / "ended3").exists():  # outlasts the others
            assert time.monotonic() < deadline
            time.sleep(0.01)
        return int(config.x) * 10

    ended: list[int] = []
    known: list[list[int]] = []  # what had ended when a job was taken

    def decide() -> Iterator[tuple[int, Sequence[str]]]:
        for job in jobs(4):
            known.append(list(ended))
            yield job

    for number, result in launcher(task).stream(decide()):
        ended.append(number)
        (tmp_path / f"ended{number}").touch()
        assert result.status is JobStatus.COMPLETED
        assert result.return_value == number * 10
        assert result.overrides == [f"x={number}"]
    assert ended == [1, 2, 3, 0]
    assert known == [[], [], [1], [1, 2]]


def test_launch_returns_the_results_in_the_order_of_the_jobs(launcher: Launch) -> None:
    def task(config: Any) -> tuple[int, int]:
        import time

        from hydra.core.hydra_config import HydraConfig

        time.sleep(0.1 if config.x == 7 else 0.0)
        return config.x, HydraConfig.get().job.num

    results = launcher(task).launch([["x=7"], ["x=8"], ["x=9"]], initial_job_idx=3)
    assert [result.return_value for result in results] == [(7, 3), (8, 4), (9, 5)]


def test_a_killed_job_fails_alone_and_takes_with_it_what_it_has_started(
    launcher: Launch, tmp_path: Path
) -> None:
    def task(config: Any) -> int:
        import os
        import signal
        import subprocess
        from pathlib import Path

        if config.x == 1:
            started = subprocess.Popen(["sleep", "1000"])
            (Path(config.folder) / "pid").write_text(str(started.pid))
            os.kill(os.getpid(), signal.SIGKILL)
        if config.x == 2:
            os._exit(7)
        return os.getpid()

    results = dict(launcher(task).stream(jobs(4)))
    assert str(error_of(results[1])) == (
        "the job's process was killed by SIGKILL, as the system does where memory runs out"
    )
    assert "exit code 7" in str(error_of(results[2]))
    assert results[1].overrides == ["x=1"]
    processes = {results[0].return_value, results[3].return_value, os.getpid()}
    assert len(processes) == 3
    wait_for(lambda: not psutil.pid_exists(int((tmp_path / "pid").read_text())))


def test_an_exception_comes_back_also_one_that_cannot_be_pickled(launcher: Launch) -> None:
    def task(config: Any) -> Any:
        import threading

        class TwoArgumentsError(Exception):
            def __init__(self, first: str, second: str) -> None:
                super().__init__(f"{first} {second}")

        if config.x == 0:
            raise ValueError("zero")
        if config.x == 1:
            error = RuntimeError("one")
            error.lock = threading.Lock()  # type: ignore[attr-defined]
            raise error
        if config.x == 2:
            raise TwoArgumentsError("number", "two")
        return threading.Lock()

    results = [result for _, result in sorted(launcher(task).stream(jobs(4)), key=lambda pair: pair[0])]
    assert repr(error_of(results[0])) == repr(ValueError("zero"))
    assert repr(error_of(results[1])) == repr(RuntimeError("RuntimeError: one"))
    assert repr(error_of(results[2])) == repr(RuntimeError("TwoArgumentsError: number two"))
    assert "lock" in str(error_of(results[3]))


def test_a_job_has_the_threads_and_gpus_of_its_place_alone(
    launcher: Launch, monkeypatch: pytest.MonkeyPatch
) -> None:
    def task(config: Any) -> tuple[Any, ...]:
        import os
        import time
        from pathlib import Path

        import torch

        # the first two are there together; the third gets the place that is free first
        (Path(config.folder) / f"began{config.x}").touch()
        deadline = time.monotonic() + 60
        for other in {0: (1, 2), 1: (0,), 2: ()}[config.x]:
            while not (Path(config.folder) / f"began{other}").exists():
                assert time.monotonic() < deadline
                time.sleep(0.01)
        names = ("OMP_NUM_THREADS", "CUDA_VISIBLE_DEVICES", "OF_THE_SWEEP")
        in_started = os.popen("echo $OMP_NUM_THREADS").read().strip()
        return torch.get_num_threads(), in_started, *(os.environ.get(name) for name in names)

    monkeypatch.setattr(pool, "gpus_for", lambda config: ["GPU-a", "GPU-b"])
    monkeypatch.setenv("OF_THE_SWEEP", "1")
    results = dict(launcher(task, n_jobs="auto", threads=3).stream(jobs(3)))
    seen = [results[number].return_value for number in range(3)]
    assert seen == [(3, "3", "3", gpu, "1") for gpu in ("GPU-a", "GPU-b", "GPU-b")]
    assert "CUDA_VISIBLE_DEVICES" not in os.environ


def test_a_sweep_that_is_stopped_leaves_no_process(
    launcher: Launch, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def task(config: Any) -> None:
        import os
        import signal
        import subprocess
        import time
        from pathlib import Path

        folder = Path(config.folder)
        if config.x == 0:  # ends when the others are there
            while not all((folder / f"pids{number}").exists() for number in (1, 2)):
                time.sleep(0.01)
            return
        if config.x == 2:
            signal.signal(signal.SIGINT, signal.SIG_IGN)
        started = subprocess.Popen(["sleep", "1000"])
        (folder / "aside").write_text(f"{os.getpid()} {started.pid}")
        (folder / "aside").rename(folder / f"pids{config.x}")
        try:
            time.sleep(1000)
        except KeyboardInterrupt:
            (folder / f"interrupted{config.x}").touch()
            raise

    monkeypatch.setattr(pool, "SECONDS_TO_STOP", 1.0)
    results = launcher(task, n_jobs=3).stream(jobs(4))
    assert next(results)[0] == 0
    processes = [int(pid) for number in (1, 2) for pid in (tmp_path / f"pids{number}").read_text().split()]
    assert all(psutil.pid_exists(pid) for pid in processes)
    results.close()  # type: ignore[attr-defined]
    wait_for(lambda: not any(psutil.pid_exists(pid) for pid in processes))
    assert (tmp_path / "interrupted1").exists()
    assert not (tmp_path / "interrupted2").exists()
    assert not (tmp_path / "sweep" / "3").exists()


CPU = "trainer.accelerator=cpu"
SHORT = (CPU, "model=cnnnet", "trainer.limit_train_batches=12", "trainer.limit_val_batches=1")


def weights(run_dir: Path) -> torch.Tensor:
    state = torch.load(run_dir / "checkpoints" / "last.ckpt", weights_only=True)["state_dict"]
    return torch.cat([value.flatten() for value in state.values()])


def test_jobs_side_by_side_learn_what_they_do_one_after_another(
    command: Command, mnist: Path, tmp_path: Path
) -> None:
    # one of a single process and one of two, each with two threads of its own
    sweep = ("-m", *SHORT, f"data.dir={mnist}", "trainer.max_epochs=2", "trainer=ddp", "trainer.devices=1,2")
    threads = {"OMP_NUM_THREADS": "2"}
    after = command("train.py", *sweep, "hydra.sweep.dir=after", **threads)
    assert after.returncode == 0, after.stderr
    pooled = ("hydra/launcher=pool", "hydra.launcher.n_jobs=2", "hydra.launcher.threads=2")
    beside = command("train.py", *sweep, *pooled, "hydra.sweep.dir=beside")
    assert beside.returncode == 0, beside.stderr
    assert beside.stderr == ""

    folders = [
        sorted(path.parent for path in (tmp_path / name).glob("*/.hydra")) for name in ("after", "beside")
    ]
    assert [path.name for path in folders[0]] == [path.name for path in folders[1]]
    assert len(folders[0]) == 2
    for devices, (one, other) in enumerate(zip(*folders, strict=True), start=1):
        assert torch.equal(weights(one), weights(other))
        settings = [yaml.safe_load((run / ".hydra" / "resolved.yaml").read_text()) for run in (one, other)]
        assert settings[0] == settings[1]
        assert settings[1]["trainer"]["devices"] == devices
        # the console tells the jobs apart, the log of one has no need to
        assert f"#{devices - 1}  epoch 2/2" in beside.stdout
        assert "#" not in (other / "train.log").read_text()


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGKILL], ids=["interrupted", "killed"])
def test_no_job_and_no_rank_outlives_its_sweep(how: signal.Signals, mnist: Path, tmp_path: Path) -> None:
    process = subprocess.Popen(
        [
            *(sys.executable, str(REPOSITORY / "train.py"), "-m", *SHORT, f"data.dir={mnist}"),
            *("trainer=ddp", "trainer.devices=1,2", "trainer.max_epochs=9999"),
            *("hydra/launcher=pool", "hydra.launcher.n_jobs=2"),
        ],
        cwd=tmp_path,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    missing = {"#0  epoch    2/9999", "#1  epoch    2/9999"}
    for line in process.stdout:
        missing = {start for start in missing if not line.startswith(start)}
        if not missing:
            break
    children = psutil.Process(process.pid).children(recursive=True)
    ranks = [child for child in children if "train.py" in " ".join(child.cmdline())]
    assert len(ranks) == 1
    process.send_signal(how)
    with contextlib.suppress(subprocess.TimeoutExpired):
        output, _ = process.communicate(timeout=SECONDS)
    left = psutil.wait_procs(children, timeout=SECONDS)[1]
    for child in left:
        child.kill()
    assert left == []
    if how is signal.SIGINT:
        assert output.count("interrupted; go on with: python train.py sweep.resume=") == 1
