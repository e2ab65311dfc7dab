"""Searches of a synthetic objective: proposals, interruptions, and shared studies."""

import functools
import math
import os
import pwd
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from threading import Thread
from typing import Any

import optuna
import pytest
from hydra import compose, initialize
from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import CompactHydraException
from omegaconf import OmegaConf
from optuna.distributions import CategoricalDistribution
from optuna.trial import TrialState

from hydra_sweeps import SweepError, Trial
from hydra_sweeps import study as study_module
from hydra_sweeps.commands import AppCommand
from hydra_sweeps.contract import Job, explained
from hydra_sweeps.grammar import parse
from hydra_sweeps.space import distributions_of, examples
from hydra_sweeps.study import StudySearch, attach, check_objectives

SWEEPER = Path(study_module.__file__).parent / "conf" / "hydra" / "sweeper"
SAMPLERS = sorted(path.stem for path in (SWEEPER / "sampler").glob("*.yaml"))
PRUNERS = sorted(path.stem for path in (SWEEPER / "pruner").glob("*.yaml"))

SPACE = ("optim=sgd,adam", "optim.lr=tag(log,interval(1e-4,1e-1))", "data.batch_size=range(32,257,32)")
STEPPED = ("optim=sgd,adam", "optim.lr=0.01,0.1", "data.batch_size=range(32,97,32)")


@functools.cache
def options(*overrides: str) -> dict[str, Any]:
    """Return the sweeper's settings as its YAML files have them."""
    with initialize(None, version_base="1.3"):
        config = compose(overrides=["hydra/sweeper=optuna", *overrides], return_hydra_config=True)
    found = OmegaConf.to_container(config.hydra.sweeper, resolve=True)
    assert isinstance(found, dict)
    return {str(key): value for key, value in found.items()}


def make(
    folder: Path, *overrides: str, sampler: str = "random", given: dict[str, Any] | None = None, **more: Any
) -> StudySearch:
    """Return a search as the configuration has it, of `SPACE` unless `overrides` are given."""
    chosen = options(f"hydra/sweeper/sampler={sampler}", "hydra/sweeper/pruner=none")
    distributions = distributions_of(parse(overrides or SPACE))
    settings: dict[str, Any] = {
        "objectives": {"val/acc": "maximize"},
        "sampler": chosen["sampler"],
        "pruner": chosen["pruner"],
        "n_trials": 6,
        "seed": 42,
        "config": OmegaConf.create({"optim": "sgd"}),
        "sweep": "s",
    }
    return StudySearch(distributions, folder=folder, **(settings | (given or {}) | more))


NONE = {"_target_": "optuna.pruners.NopPruner"}
MEDIAN = {"_target_": "optuna.pruners.MedianPruner", "n_startup_trials": 2}
TWO = {"val/loss": "minimize", "seconds": "minimize"}


def attached(
    job: Job, folder: Path, pruner: dict[str, Any], storage: str | None = None, name: str | None = None
) -> optuna.Trial:
    """Attach to a trial of a sweep in a folder, with a definition that has these settings of its sweeper."""
    sweeper = {"pruner": pruner, "storage": storage, "study_name": name}
    hydra = {"sweeper": sweeper, "overrides": {"hydra": [], "task": []}}
    OmegaConf.save(OmegaConf.create({"hydra": hydra}), folder / "multirun.yaml")
    AppCommand(["app.py"], ".", [], "s").write(folder)
    return attach(folder, int(job.trial or 0))


def settings_of(proposal: Job) -> dict[str, Any]:
    parsed = OverridesParser.create().parse_overrides(list(proposal.chosen))
    return {str(override.key_or_group): override.value() for override in parsed}


def accuracy(proposal: Job) -> float:
    lr = settings_of(proposal).get("optim.lr", 0.01)
    return 1 - 0.01 * (math.log10(lr) + 2) ** 2


def finish(search: StudySearch) -> list[Job]:
    """Run all jobs that are left, one after the other."""
    proposals = []
    while (proposal := search.propose()) is not None:
        proposals.append(proposal)
        search.tell(proposal, "finished", [accuracy(proposal)] * len(search.objectives))
    return proposals


def states(search: StudySearch) -> list[TrialState]:
    return [trial.state for trial in search.study.get_trials(deepcopy=False)]


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_samplers_are_reproducible_also_after_an_interruption(sampler: str, tmp_path: Path) -> None:
    found = finish(make(tmp_path / "a", sampler=sampler, n_trials=8))
    assert [proposal.number for proposal in found] == list(range(8))
    for proposal in found:
        point = settings_of(proposal)
        assert point.keys() == {"optim", "optim.lr", "data.batch_size"}
        assert point["optim"] in ("sgd", "adam")
        assert 1e-4 <= point["optim.lr"] <= 1e-1
        assert point["data.batch_size"] in range(32, 257, 32)
    assert len({tuple(proposal.chosen) for proposal in found}) == 8
    again = []
    for n_trials in (4, 8):
        search = make(tmp_path / "b", sampler=sampler, n_trials=n_trials)
        assert search.left_over() == []
        again += finish(search)
    assert again == found
    other = finish(make(tmp_path / "c", sampler=sampler, n_trials=8, seed=1))
    assert [proposal.chosen for proposal in other] != [proposal.chosen for proposal in found]


def test_jobs_of_killed_process_are_left_over(tmp_path: Path) -> None:
    search = make(tmp_path)
    jobs = [search.propose() for _ in range(4)]
    assert all(jobs)
    first, second, third, fourth = (job for job in jobs if job is not None)
    search.tell(first, "finished", [0.9])
    search.tell(second, "failed")
    search.tell(third, "pruned")
    del search  # as a kill would: nothing more is told

    resumed = make(tmp_path)
    tried_again, gone_on_with = resumed.left_over()
    assert gone_on_with == fourth
    assert tried_again == Job(second.number, second.chosen, 4)
    assert resumed.left_over()[0] == tried_again  # it is running now
    resumed.tell(tried_again, "finished", [0.8])
    resumed.tell(gone_on_with, "finished", [0.7])
    assert [proposal.number for proposal in finish(resumed)] == [4, 5]
    trials = resumed.study.trials
    assert len(trials) == 7  # six jobs, of which one was tried twice
    assert trials[4].params == trials[1].params
    assert trials[4].user_attrs == trials[1].user_attrs == {"sweep": "s", "job": 1}
    assert make(tmp_path).left_over() == []


def test_trial_interrupted_while_it_is_chosen_is_left_over(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = make(tmp_path / "whole").propose()
    suggest = optuna.Trial.suggest_float

    def killed(trial: optuna.Trial, name: str, *bounds: float, **options: Any) -> float:
        suggest(trial, name, *bounds, **options)
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(optuna.Trial, "suggest_float", killed)
        with pytest.raises(KeyboardInterrupt):
            make(tmp_path / "killed").propose()
    (left,) = make(tmp_path / "killed").left_over()
    assert left.number == 0
    assert settings_of(left).keys() == {"optim", "optim.lr", "data.batch_size"}
    assert whole is not None and left.chosen[:2] == whole.chosen[:2]


def test_trial_ends_once(tmp_path: Path) -> None:
    search = make(tmp_path)
    proposal = search.propose()
    assert proposal is not None
    search.tell(proposal, "finished", [0.9])
    search.tell(proposal, "failed")
    assert states(search) == [TrialState.COMPLETE]


def test_job_without_a_value_has_failed(tmp_path: Path) -> None:
    search = make(tmp_path)
    proposal = search.propose()
    assert proposal is not None
    search.tell(proposal, "finished", [None])
    assert states(search) == [TrialState.FAIL]


def test_journal_can_be_moved_with_its_folder(tmp_path: Path) -> None:
    proposal = make(tmp_path / "here", n_trials=2).propose()
    (tmp_path / "here").rename(tmp_path / "there")
    moved = make(tmp_path / "there", n_trials=2)
    assert moved.left_over() == [proposal]
    assert [one.number for one in finish(moved)] == [1]


def test_sweeps_of_one_study_keep_their_jobs_apart_wherever_they_are(tmp_path: Path) -> None:
    shared = {"storage": f"sqlite:///{tmp_path}/study.db", "study_name": "s"}
    one = make(tmp_path / "a" / "same", sweep="one", given=shared).propose()
    other = make(tmp_path / "b" / "same", sweep="other", given=shared)
    assert other.left_over() == []
    found = other.propose()
    assert found is not None and one is not None
    assert (found.number, found.trial) == (0, 1)
    assert make(tmp_path / "c" / "renamed", sweep="one", given=shared).left_over() == [one]


def test_database_is_found_from_any_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    config = OmegaConf.create({"hydra": {"runtime": {"cwd": str(tmp_path)}}})
    monkeypatch.setattr(HydraConfig.instance(), "cfg", config)
    (tmp_path / "job").mkdir()
    monkeypatch.chdir(tmp_path / "job")  # as hydra.job.chdir=true does
    make(tmp_path / "sweep", given={"storage": "sqlite:///study.db"})
    assert (tmp_path / "study.db").is_file()


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_conditional_parameters_depend_on_others(sampler: str, tmp_path: Path) -> None:
    path = "conditional.by_optimizer"
    search = make(tmp_path, "optim=sgd,adam", sampler=sampler, n_trials=10, conditional=path)
    found = [settings_of(proposal) for proposal in finish(search)]
    more = {"sgd": "optim.momentum", "adam": "optim.weight_decay"}
    assert {point["optim"] for point in found} == set(more)
    for point in found:
        assert point.keys() == {"optim", "optim.lr", more[point["optim"]]}
    for name in more.values():  # that each is drawn anew, also where a sampler leaves that to another
        values = [point[name] for point in found if name in point]
        assert len(set(values)) == len(values)


@pytest.mark.parametrize("sampler", ["tpe", "random", "gp", "qmc"])
def test_several_objectives_have_pareto_front(sampler: str, tmp_path: Path) -> None:
    objectives = {"val/acc": "maximize", "seconds": "minimize"}
    search = make(tmp_path, sampler=sampler, objectives=objectives, n_trials=8)
    while (proposal := search.propose()) is not None:
        search.tell(proposal, "finished", [accuracy(proposal), 1 / settings_of(proposal)["data.batch_size"]])
    assert search.study.best_trials
    assert search.study.metric_names == ["val/acc", "seconds"]


# One of two processes on a study. It starts with the other.
SWEEP = """
import sys
import time
from pathlib import Path
from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra_sweeps.study import StudySearch
from hydra_sweeps.grammar import parse
from hydra_sweeps.space import distributions_of

storage, folder, *space = sys.argv[1:]
distributions = distributions_of(parse(space))
print("ready", flush=True)
sys.stdin.readline()
search = StudySearch(
    distributions,
    objectives={"val/acc": "maximize"},
    sampler={"_target_": "optuna.samplers.RandomSampler"},
    pruner={"_target_": "optuna.pruners.NopPruner"},
    folder=Path(folder),
    sweep=Path(folder).name,
    n_trials=12,
    seed=42,
    storage=storage,
    study_name="shared",
)
while (proposal := search.propose()) is not None:
    time.sleep(0.2)  # a training; otherwise one sweep may run all trials before the other has begun
    search.tell(proposal, "finished", [0.5])
"""


def run_two_sweeps(storage: str, tmp_path: Path) -> None:
    processes = [
        subprocess.Popen(
            [sys.executable, "-W", "error", "-c", SWEEP, storage, str(tmp_path / name), *SPACE],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for name in "ab"
    ]
    for process in processes:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
    for process in processes:
        assert process.stdin is not None
        process.stdin.write("\n")
        process.stdin.flush()
    for process in processes:
        _, message = process.communicate(timeout=100)
        assert (process.returncode, message) == (0, "")
    shared = make(tmp_path / "a", storage=storage, study_name="shared", n_trials=12)
    trials = shared.study.trials
    assert 12 <= len(trials) <= 13  # both may add the last one
    assert {trial.state for trial in trials} == {TrialState.COMPLETE}
    jobs = {name: [t.user_attrs["job"] for t in trials if t.user_attrs["sweep"] == name] for name in "ab"}
    assert all(numbers == list(range(len(numbers))) for numbers in jobs.values())
    assert all(jobs.values())
    assert len({tuple(trial.params.values()) for trial in trials}) == len(trials)
    assert shared.propose() is None

    # what the other sweep has running is its own business
    other = make(tmp_path / "b", sweep="b", storage=storage, study_name="shared", n_trials=14)
    running = other.propose()
    assert running is not None and running.number == len(jobs["b"])
    assert make(tmp_path / "a", storage=storage, study_name="shared", n_trials=13).left_over() == []
    again = make(tmp_path / "b", sweep="b", storage=storage, study_name="shared", n_trials=14)
    assert again.left_over() == [running]

    trial = attached(running, tmp_path / "b", NONE, storage, "shared")
    trial.report(0.5, 1)
    assert other.study.trials[running.trial or 0].intermediate_values == {1: 0.5}


def test_two_sweeps_share_study_in_sqlite(tmp_path: Path) -> None:
    run_two_sweeps(f"sqlite:///{tmp_path}/study.db", tmp_path)


@pytest.fixture
def postgresql() -> Iterator[str]:
    """Start a PostgreSQL server for this test alone, and give its URL."""
    installed = sorted(Path("/usr/lib/postgresql").glob("*/bin"), key=lambda path: float(path.parent.name))
    path = os.pathsep.join([os.environ["PATH"], *map(str, reversed(installed))])
    programs = {name: shutil.which(name, path=path) for name in ("initdb", "pg_ctl")}
    if not all(programs.values()):
        reason = "there is no PostgreSQL server to test with: apt-get install postgresql"
        if os.environ.get("CI"):
            pytest.fail(reason)
        pytest.skip(reason)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    # not below tmp_path: the server may run as another user, and a socket's path is short
    folder = Path(tempfile.mkdtemp(prefix="pg-"))
    as_user: dict[str, Any] = {"cwd": folder, "capture_output": True, "text": True, "timeout": 60}
    if os.geteuid() == 0:  # which the server refuses to run as
        user = next((one for one in pwd.getpwall() if one.pw_name in ("postgres", "nobody")), None)
        assert user is not None
        os.chown(folder, user.pw_uid, user.pw_gid)
        as_user |= {"user": user.pw_uid, "group": user.pw_gid, "extra_groups": []}

    def run(program: str, *arguments: str) -> None:
        done = subprocess.run([str(programs[program]), "-D", str(folder / "data"), *arguments], **as_user)
        assert done.returncode == 0, done.stdout + done.stderr

    try:
        run("initdb", "--username=search", "--auth=trust", "--no-sync", "--encoding=UTF8", "--locale=C")
        where = f"-p {port} -c listen_addresses=127.0.0.1 -c unix_socket_directories={folder} -c fsync=off"
        run("pg_ctl", "start", "--wait", "--log", str(folder / "log"), "--options", where)
        try:
            yield f"postgresql://search:secret@127.0.0.1:{port}/postgres"
        finally:
            run("pg_ctl", "stop", "--mode=immediate")
    finally:
        shutil.rmtree(folder)


def test_two_sweeps_share_study_in_postgresql(postgresql: str, tmp_path: Path) -> None:
    run_two_sweeps(postgresql, tmp_path)


def test_attached_trial_is_pruned(tmp_path: Path) -> None:
    search = make(tmp_path, pruner=MEDIAN)
    for value in (0.9, 0.8, 0.1):
        proposal = search.propose()
        assert proposal is not None
        trial = attached(proposal, tmp_path, MEDIAN)
        trial.report(value, 1)
        pruned = trial.should_prune()
        search.tell(proposal, "pruned" if pruned else "finished", [value])
    assert pruned
    assert states(search)[-1] == TrialState.PRUNED


HOLD = """
import sys, time
from filelock import FileLock
with FileLock(sys.argv[1]):
    print("held", flush=True)
    time.sleep(60)
"""


def test_lock_of_killed_process_is_released(tmp_path: Path) -> None:
    search = make(tmp_path)
    proposing = Thread(target=search.propose, daemon=True)
    command = [sys.executable, "-c", HOLD, str(tmp_path / "study.journal-lock")]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "held\n"
        proposing.start()
        proposing.join(0.5)
        assert proposing.is_alive()  # it is the lock of the journal, and it holds
        process.send_signal(signal.SIGKILL)
        process.wait()
    proposing.join(20)  # Optuna's own locks wait for 30 seconds
    assert not proposing.is_alive()
    assert len(search.trials()) == 1


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ({"sampler": {"_target_": "optuna.samplers.TPE"}}, "TPE"),
        ({"sampler": {"_target_": "optuna.samplers.TPESampler", "startup": 3}}, "startup"),
        ({"pruner": {"_target_": "optuna.pruners.HyperbandPruner", "max_resource": 0.5}}, "max_resource"),
        ({"pruner": MEDIAN, "objectives": TWO}, "pruner=none"),
        ({"n_trials": 0}, "n_trials=0"),
        ({"n_trials": "many"}, "n_trials=many"),
        ({"seed": None}, "seed=None"),
        ({"conditional": "conditional.by_model"}, "cannot be found"),
        ({"conditional": "not a path"}, "cannot be found"),
        ({"storage": "logs/study.db"}, "Could not parse .* sqlite:///study.db"),
        ({"storage": "oracle://me:secret@host/db"}, "is not installed"),
        ({"storage": "sqlite:////dev/null/study.db"}, "unable to open"),
        ({"storage": "postgresql://me:sec@ret/@127.0.0.1:1/db"}, "cannot be used"),
    ],
)
def test_invalid_options_are_refused(more: dict[str, Any], message: str, tmp_path: Path) -> None:
    with pytest.raises(Exception, match=r".") as raised:
        make(tmp_path / "sweep", given=more)
    error = explained(raised.value) or raised.value  # as the sweep does
    assert isinstance(error, CompactHydraException)  # Hydra shows it without a traceback
    assert re.search(message, str(error))
    assert "sec" not in str(error).replace("seconds", "")
    assert not (tmp_path / "sweep" / "study.journal").exists()


def test_sampler_that_knows_one_objective_is_refused(tmp_path: Path) -> None:
    search = make(tmp_path, sampler="cmaes", objectives=TWO)
    with pytest.raises(SweepError, match="multi-objective"):
        search.propose()


def test_empty_space_is_refused(tmp_path: Path) -> None:
    chosen = options()
    with pytest.raises(SweepError, match="nothing to search"):
        StudySearch(
            {},
            folder=tmp_path,
            sweep="s",
            n_trials=1,
            seed=0,
            objectives={"val/acc": "maximize"},
            **{key: chosen[key] for key in ("sampler", "pruner")},
        )


def test_study_keeps_its_objectives(tmp_path: Path) -> None:
    make(tmp_path)
    with pytest.raises(SweepError, match="objectives"):
        make(tmp_path, objectives={"val/loss": "minimize"})


def test_missing_driver_of_a_database_is_reported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in sys.modules if name.split(".")[0] == "psycopg"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "psycopg", None)
    with pytest.raises(ImportError) as raised:
        make(tmp_path, storage="postgresql://host/db")
    reason = "psycopg is not installed: pip install 'hydra-sweeps[postgresql]'"
    assert str(explained(raised.value)).startswith(reason)


@pytest.mark.parametrize("sampler", SAMPLERS)
@pytest.mark.parametrize("pruner", PRUNERS)
def test_every_sampler_and_pruner_can_be_used(sampler: str, pruner: str, tmp_path: Path) -> None:
    chosen = options(f"hydra/sweeper/sampler={sampler}", f"hydra/sweeper/pruner={pruner}")
    search = make(tmp_path, *STEPPED, sampler=sampler, pruner=chosen["pruner"], n_trials=4)
    while (proposal := search.propose()) is not None:
        trial = attached(proposal, tmp_path, chosen["pruner"])
        trial.report(accuracy(proposal), 1)
        search.tell(proposal, "pruned" if trial.should_prune() else "finished", [accuracy(proposal)])
    assert len(search.study.trials) == 4


def test_hyperband_has_epochs_of_app() -> None:
    pruner = ("hydra/sweeper/pruner=hyperband",)
    assert options(*pruner)["pruner"]["max_resource"] == "auto"
    assert options(*pruner, "+hparams.max_epochs=9")["pruner"]["max_resource"] == 9


@pytest.mark.parametrize(
    ("objectives", "message"),
    [
        ({"test/acc": "maximize"}, "test/acc"),
        ({}, "write"),
        ({"val/acc": "up"}, "with maximize or minimize"),
    ],
)
def test_invalid_objectives_are_refused(objectives: dict[str, str], message: str) -> None:
    with pytest.raises(SweepError, match=message):
        check_objectives(objectives)


def test_trial_is_attached_by_definition_of_its_sweep(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    storage = f"sqlite:///{tmp_path}/study.db"
    proposal = make(tmp_path, storage=storage, study_name="s").propose()
    assert proposal is not None
    monkeypatch.setenv("STORAGE", storage)
    trial = attached(proposal, tmp_path, NONE, "${oc.env:STORAGE}", "s")
    for _ in range(2):  # again after a kill, without a warning
        assert Trial(str(tmp_path), proposal.trial or 0, "val/acc").report(0.5, 1) is False
    assert trial.study.trials[proposal.trial or 0].intermediate_values == {1: 0.5}


def test_journal_is_read_by_optuna_alone_as_by_its_dashboard(tmp_path: Path) -> None:
    finish(make(tmp_path, n_trials=2))
    backend = optuna.storages.journal.JournalFileBackend(str(tmp_path / "study.journal"))
    study = optuna.load_study(study_name=None, storage=optuna.storages.JournalStorage(backend))
    assert (study.study_name, len(study.trials)) == ("s", 2)


def test_examples_of_jobs_have_each_pair_of_texts() -> None:
    distributions = distributions_of(parse(["a=x,y", *STEPPED]))
    found = {(one[0], one[1]) for one in examples(distributions)}
    assert found == {(f"a={a}", f"optim={optim}") for a in ("x", "y") for optim in ("sgd", "adam")}


def journal_of_one_job(folder: Path) -> Path:
    make(folder).propose()
    return folder / "study.journal"


def test_settings_in_a_journal_that_are_not_searched_are_not_proposed(tmp_path: Path) -> None:
    first = make(tmp_path, n_trials=1)
    first.distributions["model._target_"] = CategoricalDistribution(["os.system"])
    assert first.propose() is not None
    (left,) = make(tmp_path).left_over()
    assert settings_of(left).keys() == {"optim", "optim.lr", "data.batch_size"}


@pytest.mark.parametrize("space", ["optim=sgd,lion", "optim=interval(0.0,1.0)", "optim.lr=interval(1.0,2.0)"])
def test_values_in_a_journal_that_are_not_searched_are_refused(space: str, tmp_path: Path) -> None:
    make(tmp_path).propose()
    with pytest.raises(SweepError, match="cannot be proposed"):
        make(tmp_path, space).left_over()


@pytest.mark.parametrize("content", [b"x\n", b"\0\0\n", b"[]\n", b'{"op_code": 99}\n', b'{"op_code": 4}\n'])
def test_journal_that_is_none_is_refused_in_a_line(content: bytes, tmp_path: Path) -> None:
    journal = journal_of_one_job(tmp_path)
    journal.write_bytes(content + journal.read_bytes())
    with pytest.raises(SweepError, match="cannot be read as the journal of a search") as caught:
        make(tmp_path)
    assert "\n" not in str(caught.value)


def test_torn_line_of_a_killed_process_does_not_damage_the_journal(tmp_path: Path) -> None:
    journal = journal_of_one_job(tmp_path)
    journal.write_bytes(journal.read_bytes() + b'{"op_code": 4, "wor')
    search = make(tmp_path)
    assert search.propose() is not None
    assert len(make(tmp_path).left_over()) == 2
