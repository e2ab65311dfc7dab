"""What the variables of torchrun and Slurm say, and on which name processes agree."""

import re

import pytest
from torch.distributed import TCPStore  # type: ignore[attr-defined]

from mnist_cnn.errors import UserError
from mnist_cnn.training import ranks

TORCHRUN = {
    "TORCHELASTIC_RUN_ID": "none",
    "TORCHELASTIC_USE_AGENT_STORE": "True",
    "RANK": "3",
    "LOCAL_RANK": "1",
    "LOCAL_WORLD_SIZE": "2",
    "WORLD_SIZE": "4",
}
SRUN = {
    "SLURM_JOB_ID": "12",
    "SLURM_STEP_ID": "0",
    "SLURM_STEP_NUM_TASKS": "8",
    "SLURM_STEP_NUM_NODES": "2",
    "SLURM_PROCID": "0",
}


@pytest.fixture(autouse=True)
def no_variables(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in {*TORCHRUN, *SRUN, "SLURM_RESTART_COUNT", "TORCHELASTIC_RESTART_COUNT"}:
        monkeypatch.delenv(name, raising=False)


def set_variables(monkeypatch: pytest.MonkeyPatch, variables: dict[str, str]) -> None:
    for name, value in variables.items():
        monkeypatch.setenv(name, value)


def test_single_process_names_its_start_by_the_minute() -> None:
    assert ranks.is_first_rank()
    assert ranks.processes_started() is None
    assert not ranks.is_restarted()
    assert re.fullmatch(r"\d{4}-\d{4}", ranks.name_of_start())


def test_processes_of_torchrun_agree_on_a_name(monkeypatch: pytest.MonkeyPatch) -> None:
    store = TCPStore("127.0.0.1", 0, is_master=True)
    set_variables(monkeypatch, {**TORCHRUN, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(store.port)})
    assert ranks.processes_started() == (2, 2)
    assert not ranks.is_first_rank()
    assert len({ranks.name_of_start() for _ in range(3)}) == 1


def test_torchrun_without_a_store_needs_a_folder(monkeypatch: pytest.MonkeyPatch) -> None:
    set_variables(monkeypatch, {**TORCHRUN, "TORCHELASTIC_USE_AGENT_STORE": "False"})
    with pytest.raises(UserError, match=r"hydra\.run\.dir=logs/runs/NAME"):
        ranks.name_of_start()


def test_step_of_slurm_has_the_same_name_after_a_requeue(monkeypatch: pytest.MonkeyPatch) -> None:
    set_variables(monkeypatch, SRUN)
    assert ranks.processes_started() == (4, 2)
    assert ranks.name_of_start() == "slurm-12.0"
    monkeypatch.setenv("SLURM_RESTART_COUNT", "1")
    assert ranks.is_restarted()
    assert ranks.name_of_start() == "slurm-12.0"


def test_job_of_one_task_starts_its_own_ranks(monkeypatch: pytest.MonkeyPatch) -> None:
    set_variables(monkeypatch, {**SRUN, "SLURM_STEP_NUM_TASKS": "1", "SLURM_STEP_NUM_NODES": "1"})
    assert ranks.processes_started() is None
