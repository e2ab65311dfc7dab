"""Where a study is kept: a journal in the folder of its sweep, or a database that several sweeps share."""

import json
import os
import time
from pathlib import Path
from typing import Any

import optuna
from filelock import BaseFileLock, FileLock
from optuna.exceptions import StorageInternalError
from optuna.storages import BaseStorage, JournalStorage, RDBStorage
from optuna.storages.journal import JournalFileBackend

from hydra_sweeps.contract import SweepError
from hydra_sweeps.files import printable

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
    lock: Any = lock_of(path.parent)
    try:
        with lock:
            content = path.read_bytes() if path.exists() else b""
            # A killed process may have left a part of a line: Optuna would append the next one to it.
            if not content.endswith(b"\n"):
                content = content[: content.rfind(b"\n") + 1]
                if path.exists():
                    os.truncate(path, len(content))
            for line in content.splitlines()[-1:]:  # which Optuna does not check
                json.loads(line)
        return JournalStorage(JournalFileBackend(str(path.absolute()), lock))
    except OSError:
        raise
    except Exception as error:  # the file may be a stranger's, and Optuna raises what its content leads to
        reason = printable(" ".join(str(error).split())[:200])
        raise SweepError(
            f"{path} cannot be read as the journal of a search ({type(error).__name__} {reason}). Remove it "
            "to search anew."
        ) from error


def _open_database(url: str) -> BaseStorage:
    from sqlalchemy.exc import DBAPIError
    from sqlalchemy.pool import NullPool

    url = url.replace("postgresql://", "postgresql+psycopg://", 1)
    # No pool of connections: a server may close one that is idle for an epoch, and limits their number.
    engine: dict[str, Any] = {"poolclass": NullPool}
    if url.startswith("sqlite"):
        engine["connect_args"] = {"timeout": 60}  # seconds to wait while another process writes
    try:
        return RDBStorage(url, engine_kwargs=engine)
    except (DBAPIError, StorageInternalError):
        # Two processes that start on an empty database both create its tables, and one of them fails.
        time.sleep(1)
        return RDBStorage(url, engine_kwargs=engine)
