"""Where a study is kept: a journal in the folder of its sweep, or a database that several sweeps share."""

import importlib.util
import os
import re
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from filelock import BaseFileLock, FileLock

from hydra_sweeps.contract import SweepError, missing_extra
from hydra_sweeps.files import printable

try:
    import optuna
    from optuna.exceptions import StorageInternalError
    from optuna.storages import BaseStorage, JournalStorage, RDBStorage
    from optuna.storages.journal import JournalFileBackend
except ModuleNotFoundError as error:
    raise missing_extra("hydra/sweeper=optuna", "optuna", "optuna") from error

JOURNAL = "study.journal"


def open_storage(url: str | None, folder: Path) -> BaseStorage:
    """Return the storage at an SQLAlchemy URL; without one the journal in `folder`."""
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    return _open_journal(folder / JOURNAL) if url is None else _open_database(url)


def lock_of(folder: Path) -> BaseFileLock:
    """Return the lock of the journal in a folder, which the kernel releases when its process is killed.

    Optuna's own locks, which have another name, are files that remain in this case, and delay other processes
    by half a minute.
    """
    return FileLock(f"{folder.absolute() / JOURNAL}-lock")


def _open_journal(path: Path) -> BaseStorage:
    if path.exists() and not path.is_file():
        raise SweepError(f"{path} is not a file.")
    lock: Any = lock_of(path.parent)
    try:
        with lock:
            # A killed process may have left a part of a line: Optuna would append the next one to it.
            if path.exists() and (content := path.read_bytes()) and not content.endswith(b"\n"):
                os.truncate(path, content.rfind(b"\n") + 1)
        storage = JournalStorage(JournalFileBackend(str(path.absolute()), lock))
        storage.get_all_studies()
        return storage
    except OSError:
        raise
    except Exception as error:  # the file may be a stranger's, and Optuna raises what its content leads to
        reason = printable(" ".join(str(error).split())[:200])
        raise SweepError(
            f"{path} cannot be read as the journal of a search ({type(error).__name__} {reason}). Remove it "
            "to search anew."
        ) from error


def _open_database(url: str) -> BaseStorage:
    from sqlalchemy.exc import ArgumentError, SQLAlchemyError
    from sqlalchemy.pool import NullPool

    options: dict[str, Any] = {}
    if url.startswith("sqlite"):
        options["timeout"] = 60  # seconds to wait while another process writes
    if re.match(r"postgres(ql)?(\+psycopg)?://", url):
        if importlib.util.find_spec("psycopg") is None:
            raise missing_extra(f"hydra.sweeper.storage={shown(url)}", "psycopg", "postgresql")
        url = re.sub(r"^\w+(\+psycopg)?://", "postgresql+psycopg://", url)
        options["connect_timeout"] = 10
    # No pool of connections: a server may close one that is idle for an epoch, and limits their number.
    engine = {"poolclass": NullPool, "connect_args": options}
    for tries_left in reversed(range(10)):
        try:
            return RDBStorage(url, engine_kwargs=engine)
        except ArgumentError as error:
            raise SweepError(
                f"hydra.sweeper.storage={shown(url)} is not a database URL, such as sqlite:///study.db or "
                "postgresql://user:password@host/database; null keeps a file in the sweep's folder."
            ) from error
        except ImportError as error:
            raise SweepError(f"hydra.sweeper.storage={shown(url)} needs its driver: {error}") from error
        except (SQLAlchemyError, StorageInternalError) as error:
            # Two processes that start on an empty database both create its tables, and one of them fails.
            if not tries_left or not re.search("(?i)already exists|duplicate|unique constraint", str(error)):
                raise
        time.sleep(0.3)
    raise AssertionError


@contextmanager
def reached(url: str | None) -> Iterator[None]:
    """Raise `SweepError` if the database at `url` cannot be reached in the block."""
    try:
        yield
    except Exception as error:
        if url is None or isinstance(error, SweepError):
            raise
        from sqlalchemy.exc import SQLAlchemyError

        cause: BaseException | None = error
        while cause is not None and not isinstance(cause, SQLAlchemyError):
            cause = cause.__cause__
        if cause is None:
            raise
        said = str(getattr(cause, "orig", None) or cause).strip().split("\n")[0]
        raise SweepError(f"hydra.sweeper.storage={shown(url)} cannot be used: {said}") from error


def shown(url: str) -> str:
    """Return a URL, valid or not, without its password."""
    return re.sub(r"(password=)[^&]*", r"\1***", re.sub(r"//([^:/@]*):.*@", r"//\1:***@", url))
