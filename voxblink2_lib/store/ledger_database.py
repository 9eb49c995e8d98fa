"""The SQLite file of a ledger: opening, migration, transactions, names of errors."""

from __future__ import annotations

import os
import shutil
import sqlite3
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

from voxblink2_lib.errors import StoreDiskError, StoreError, StoreFullError
from voxblink2_lib.files import atomic_write, system_error
from voxblink2_lib.redaction import redact, redacted_source
from voxblink2_lib.store.lease import check_lease
from voxblink2_lib.store.ledger_checksums import forget_checksums, has_log, write_checksums
from voxblink2_lib.store.ledger_damage import damaged_ledger, is_damage, refuse_if_lost
from voxblink2_lib.store.ledger_schema import (
    ADD_DIGESTS,
    DROP_VIEWS,
    EARLIER,
    FIRST_FORMAT,
    FORMAT,
    GIVE_ID,
    HAS_DIGESTS,
    MIGRATE_1_TO_2,
    MIGRATE_2_TO_3,
    MIGRATE_3_TO_4,
    SCHEMA,
    VIEWS_OF_EARLIER,
    WITHOUT_FACTS,
)
from voxblink2_lib.store.lock import has_no_locks

# Tables of every format, and of this one.
_ALWAYS = {"facts", "jobs", "videos", "missing"}
_NOW = {*_ALWAYS, "sources", "verdicts", "witnesses", "attempts"}
# Of each format to the next; and up to one that is read as it is.
_STEPS_BEFORE = {FIRST_FORMAT: MIGRATE_1_TO_2, WITHOUT_FACTS: MIGRATE_2_TO_3}
_STEPS = {**_STEPS_BEFORE, "3": MIGRATE_3_TO_4}
# SQLite reports the second where the file that it maps beside the ledger finds no space.
_DISK_FULL = {sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR_SHMSIZE}
# Faults of the disk and the system, and not of the file: what its user can do.
_FAULTS = {
    sqlite3.SQLITE_IOERR: "check the disk, the system's messages as with 'dmesg', and 'ulimit -f'",
    sqlite3.SQLITE_PROTOCOL: "wait until the lock service of its file system answers",
    sqlite3.SQLITE_BUSY: "end the program that holds it",
}
# WAL takes locks, and a file that processes map: not every file system has both.
_NO_WAL = {
    sqlite3.SQLITE_CANTOPEN,  # the answer of a VFS that has no shared memory
    sqlite3.SQLITE_IOERR_SHMOPEN,
    sqlite3.SQLITE_IOERR_SHMMAP,
    sqlite3.SQLITE_IOERR_SHMLOCK,
}
_NO_LOCKS_VFS = "unix-dotfile"


class LedgerDatabase:
    """A connection to a ledger, whose SQLite errors are raised as :class:`StoreError`.

    Args:
        connection: without an isolation level, so that no transaction begins by itself.
        path: the file, for messages.
    """

    def __init__(self, connection: sqlite3.Connection, path: Path) -> None:
        self._connection = connection
        self._path = path
        self._is_changed = False
        self._is_writing = False
        self._original: sqlite3.Connection | None = None  # of format 1, while its copy is read

    @property
    def path(self) -> Path:
        """The file, for messages."""
        return self._path

    @classmethod
    def open(cls, path: Path, *, readonly: bool, is_copy: bool = False) -> LedgerDatabase:
        """Open a ledger; for writing, create or migrate it first where necessary.

        Raises:
            StoreError: the file has another format, or cannot be created.
            StoreDamagedError: it is not a ledger, or lost one whose shards are still there.
        """
        if path.is_dir():
            raise StoreError(f"The ledger {path} cannot be opened: a folder is in its place.")
        if not (path.exists() and path.stat().st_size):
            refuse_if_lost(path)
            if not readonly:
                make_ledger(path)
        uri = _uri(path, readonly=readonly, is_copy=is_copy)
        if not readonly and _NO_LOCKS_VFS in uri:
            # Left by a process that was killed: whoever has the lease is the only one who writes.
            shutil.rmtree(f"{path}.lock", ignore_errors=True)
        try:
            connection = _connected(uri)
            if not readonly:
                connection = _with_journal(connection, uri)
        except sqlite3.Error as error:
            raise as_store_error(error, path) from error
        database = cls(_with_functions(connection), path)
        try:
            database._check_tables()
            if not readonly:
                database._prepare_for_writing()
            database._check_format()
        except BaseException:
            database.close()
            raise
        return database

    def _check_tables(self) -> None:
        """Check that it is a ledger, before what it lacks is made."""
        self._read_tables()
        names = self._tables
        needed = _ALWAYS if "facts" not in names or self.fact("format") != FORMAT else _NOW
        if lacking := sorted(needed - names):
            raise damaged_ledger(self._path, f"it has no table {lacking[0]}")

    def _prepare_for_writing(self) -> None:
        with self._named_errors():
            # The part files are the truth; losing the last rows in a power cut costs nothing,
            # since the next run reads the parts.
            self._connection.execute("pragma synchronous = normal")
            # What is replaced leaves no trace in the file.
            self._connection.execute("pragma secure_delete = on")
            # A run may be refused after this: an earlier format is changed when it is written.
            if self.fact("format") == FORMAT:
                ((tables,),) = self.query("pragma schema_version")
                self._make_tables()
                if self.query("pragma schema_version") != [(tables,)]:
                    self._before_change()
            if has_log(self._path):  # it may be merged into the file
                self._before_change()

    def _before_change(self) -> None:
        """Remove the checksums, which are written again when the file is closed."""
        if not self._is_changed:
            forget_checksums(self._path)
            self._is_changed = True

    def _read_copy(self) -> None:
        copy = _with_functions(sqlite3.connect("", isolation_level=None))  # a temporary file
        self._original, self._connection = self._connection, copy
        with self._named_errors():
            self._original.backup(copy)
            self._bring_up_to_date(_STEPS_BEFORE)

    def _migrate(self) -> None:
        self._before_change()
        if self._original is not None:
            self._connection.close()
            self._connection, self._original = self._original, None
        self._connection.executescript(DROP_VIEWS)
        self._bring_up_to_date(_STEPS)

    def _bring_up_to_date(self, steps: Mapping[str, str]) -> None:
        """Bring an earlier format to a later one in steps, each whole or not at all."""
        if not self.query(HAS_DIGESTS):
            self._connection.execute(ADD_DIGESTS)
        while script := steps.get(self.fact("format") or ""):
            self._connection.executescript(script)
        self._read_tables()

    def _check_format(self) -> None:
        if self.fact("format") == FIRST_FORMAT:
            self._read_copy()
        version = self.fact("format")
        if version not in {*EARLIER, FORMAT}:
            raise StoreError(
                f"The ledger {self._path} has format {version}, this version reads formats 1 to "
                f"{FORMAT}. Use the version of voxblink2 that made the store, or another store."
            )
        if version in EARLIER:
            with self._named_errors():
                self._connection.executescript(VIEWS_OF_EARLIER)

    def close(self) -> None:
        """Close the file."""
        for connection in filter(None, (self._connection, self._original)):
            connection.close()
        if self._is_changed:
            write_checksums(self._path)

    def set_function(self, name: str, arguments: int, function: Callable[..., bool]) -> None:
        """Let statements call a function."""
        self._connection.create_function(name, arguments, function)

    def vacuum(self) -> None:
        """Write the file anew, without what its free pages and its log still hold."""
        self._before_change()
        with self._named_errors():
            self._connection.execute("vacuum")
            self._connection.execute("pragma wal_checkpoint(truncate)")

    def problem(self) -> str:
        """Return the first rule of SQLite's that the file breaks; an empty text if none."""
        ((problem,),) = self.query("pragma integrity_check(1)")
        return "" if problem == "ok" else str(problem)

    def configs(self) -> list[str]:
        """Return the configurations that have jobs or videos, sorted."""
        names = {name for table in ("jobs", "videos") for (name,) in self.query(_configs(table))}
        return sorted(names - {None})

    @contextmanager
    def _named_errors(self) -> Iterator[None]:
        try:
            yield
        except sqlite3.Error as error:
            raise as_store_error(error, self._path) from error

    def rows(self, sql: str, *values: Any) -> Iterator[tuple[Any, ...]]:
        """Yield the rows of a query one by one."""
        with self._named_errors():
            yield from self._connection.execute(sql, values)

    def query(self, sql: str, *values: Any, **named: Any) -> list[tuple[Any, ...]]:
        """Return the rows of a query, with its values in order or by their names."""
        with self._named_errors():
            return self._connection.execute(sql, named or values).fetchall()

    def fact(self, name: str) -> str | None:
        """Return the value of a row of the table ``facts``, or ``None``."""
        rows = self.query("select value from facts where name = ?", name)
        return rows[0][0] if rows else None

    @contextmanager
    def transaction(self) -> Iterator[sqlite3.Connection]:
        """Commit what the body writes, or nothing of it if the body raises.

        Inside another one, it is a part of that.
        """
        if self._is_writing:
            yield self._connection
            return
        with self._named_errors():
            try:
                if self.fact("format") in EARLIER:
                    self._migrate()
                self._before_change()
                self._connection.execute("begin immediate")
                self._is_writing = True
                self._connection.execute(GIVE_ID)
                yield self._connection
                check_lease(self._path.parent)
                self._connection.execute("commit")
            except BaseException:
                if self._connection.in_transaction:
                    self._connection.execute("rollback")
                raise
            finally:
                self._is_writing = False

    def _is_within(self) -> bool:
        return self._connection.in_transaction

    def _read_tables(self) -> None:
        self._tables = {name for (name,) in self.query("select name from sqlite_master")}

    def has_table(self, name: str) -> bool:
        """Return whether there is a table, which a ledger that is only read may lack."""
        return name in self._tables

    def _make_tables(self) -> None:
        """Make the tables that are lacking."""
        self._connection.executescript(SCHEMA)
        self._read_tables()

    @contextmanager
    def snapshot(self) -> Iterator[None]:
        """Read one state of the file throughout the body, whatever a run writes meanwhile."""
        if self._is_within():
            yield
            return
        self.query("begin")
        try:
            yield
        finally:
            self._connection.rollback()  # nothing was written


def _configs(table: str) -> str:
    """Return a query for the configurations in a table, which takes a look for each of them."""
    return (
        f"with recursive names (config) as (select min(config) from {table} union all "  # noqa: S608  # a constant
        f"select (select min(config) from {table} where config > names.config) from names "
        "where names.config is not null) select config from names"
    )


def _with_functions(connection: sqlite3.Connection) -> sqlite3.Connection:
    """Let statements hide secrets, which earlier versions stored."""
    for function in (redact, redacted_source):
        connection.create_function(function.__name__, 1, function, deterministic=True)
    return connection


def make_ledger(path: Path) -> None:
    """Write an empty ledger, whole or not at all: others may open it at any moment.

    Raises:
        StoreError: the file cannot be written.
    """
    try:
        with tempfile.TemporaryDirectory() as folder:
            draft = Path(folder) / path.name
            with closing(sqlite3.connect(draft, isolation_level=None)) as connection:
                # Here, since only a file that nobody else has open changes its mode for certain.
                connection.execute("pragma journal_mode = wal")
                connection.executescript(SCHEMA)
            forget_checksums(path)
            with atomic_write(path) as file:
                file.write(draft.read_bytes())
    except (OSError, sqlite3.Error) as error:
        made = StoreError(f"The ledger {path} cannot be made: {error}.")
        raise system_error(error, path) or made from error


def _uri(path: Path, *, readonly: bool, is_copy: bool) -> str:
    uri = f"{path.resolve().as_uri()}?mode={'ro' if readonly else 'rw'}"
    if has_no_locks(path.parent):
        uri += f"&vfs={_NO_LOCKS_VFS}"
    if is_copy or (readonly and not os.access(path.parent, os.W_OK)):
        # SQLite needs to write beside a file in WAL mode even to read it. Without permission to
        # write, the file can be read as it is, unless a writer has rows outside of it just now.
        log = Path(f"{path}-wal")
        if not log.exists() or not log.stat().st_size:
            uri += "&immutable=1"
    return uri


def _connected(uri: str) -> sqlite3.Connection:
    return sqlite3.connect(uri, uri=True, timeout=60, isolation_level=None)


def _with_journal(connection: sqlite3.Connection, uri: str) -> sqlite3.Connection:
    """Return a connection in WAL mode, in which others read meanwhile, where that is possible."""
    try:
        # A new ledger has this mode; one that was copied with SQLite's tools may not.
        connection.execute("pragma journal_mode = wal")
        return connection
    except sqlite3.Error as error:
        connection.close()
        if error.sqlite_errorcode not in _NO_WAL:
            raise
    with closing(_connected(uri)) as alone:
        # Whoever has the file alone reads what is in WAL mode without locks and shared memory.
        alone.execute("pragma locking_mode = exclusive")
        alone.execute("pragma journal_mode = delete")
    return _connected(uri)


def as_store_error(error: sqlite3.Error, path: Path) -> StoreError:
    """Return an error of SQLite as a :class:`StoreError`, or as one of its subclasses."""
    if is_damage(error):
        return damaged_ledger(path, error)
    code = getattr(error, "sqlite_errorcode", 0)
    if code in _DISK_FULL:
        return StoreFullError(
            f"No space is left for the ledger {path}. Everything finished is kept: free some "
            "space and run the same command again."
        )
    if remedy := _FAULTS.get(code & 0xFF):  # the rest of the number tells what was done
        return StoreDiskError(
            f"The ledger {path} cannot be used: {error} ({error.sqlite_errorname}). Everything "
            f"finished is kept: {remedy}, and run the same command again."
        )
    if code & 0xFF == sqlite3.SQLITE_CANTOPEN:
        return StoreError(
            f"The ledger {path} cannot be opened: {error}. Check its folder, the permissions "
            "there, and the limit of open files ('ulimit -n')."
        )
    return StoreError(f"The ledger {path} cannot be used: {error}.")
