"""Two PostgreSQL servers, a primary and its standby, behind one address that can be switched."""

import asyncio
import contextlib
import signal
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from bootstrap.localstack.binaries import postgresql
from bootstrap.localstack.ports import free_port
from bootstrap.localstack.process import ServerProcess
from bootstrap.localstack.stack import Stack, not_as_root
from tests.clients import execute
from tests.terminator import splice
from tests.waiting import wait_until

_OLDER_TRANSACTIONS = (
    "SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'client backend' AND xact_start < %s::timestamptz"
)


class Forwarder:
    """Connects each new client to `target`, a port of this machine; older ones keep their server.

    A context manager; `port` is where it listens.
    """

    def __init__(self, target: int) -> None:
        self.target = target
        self.port = 0
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)

    def __enter__(self) -> "Forwarder":
        self._thread.start()
        asyncio.run_coroutine_threadsafe(self._listen(), self._loop).result(10)
        return self

    def __exit__(self, *_: object) -> None:
        asyncio.run_coroutine_threadsafe(self._disconnect(), self._loop).result(10)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(10)

    async def _disconnect(self) -> None:
        tasks = asyncio.all_tasks() - {asyncio.current_task()}
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _listen(self) -> None:
        server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.port = server.sockets[0].getsockname()[1]

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError, asyncio.CancelledError):
            await splice(reader, writer, self.target)
        writer.close()


class Pair:
    """A primary, its standby, and the address in front of them."""

    def __init__(self, primary: int, standby: int, forwarder: Forwarder) -> None:
        self._primary, self._standby = primary, standby
        self.forwarder = forwarder

    def synchronize(self) -> None:
        """Let commits on the primary wait until the standby has them, from now on."""
        state = "SELECT sync_state FROM pg_stat_replication WHERE state = 'streaming'"
        wait_until(lambda: _sql(self._primary, state), "the standby streams")
        self._set("synchronous_standby_names", "*")
        wait_until(lambda: _sql(self._primary, state) == [("sync",)], "the standby is synchronous")

    def catch_up(self) -> None:
        """Wait until the standby has all that the primary has committed."""
        behind = "SELECT count(*) FROM pg_stat_replication WHERE replay_lsn >= pg_current_wal_insert_lsn()"
        wait_until(lambda: _sql(self._primary, behind) == [(1,)], "the standby has all")

    def part(self) -> None:
        """Let the standby receive nothing more."""
        detach(self._standby)
        streams = "SELECT count(*) FROM pg_stat_replication"
        wait_until(lambda: _sql(self._primary, streams) == [(0,)], "the standby is on its own")

    def fail_over(self) -> None:
        """Demote the primary, whose sessions stay open, promote the standby, and switch the address."""
        self._set("default_transaction_read_only", "on")
        shown = "SHOW default_transaction_read_only"
        # The server tells its sessions before it lets new ones see the setting.
        wait_until(lambda: _sql(self._primary, shown) == [("on",)], "the primary refuses writes")
        now = _sql(self._primary, "SELECT clock_timestamp()::text")[0][0]
        wait_until(lambda: self._is_idle_since(now), "transactions that began before are over")
        promote(self._standby)
        self.forwarder.target = self._standby
        self._set("synchronous_standby_names", "")

    def sessions(self, database: str) -> int:
        """How many sessions the old primary has in a database."""
        count = "SELECT count(*) FROM pg_stat_activity WHERE datname = %s"
        return int(_sql(self._primary, count, database)[0][0])

    def _is_idle_since(self, moment: str) -> bool:
        return _sql(self._primary, _OLDER_TRANSACTIONS, moment) == [(0,)]

    def _set(self, name: str, value: str) -> None:
        _sql(self._primary, f"ALTER SYSTEM SET {name} = '{value}'")
        _sql(self._primary, "SELECT pg_reload_conf()")


@contextmanager
def pair(stack: Stack, directory: Path) -> Iterator[Pair]:
    """The two servers; `stack`, whose PostgreSQL is the primary, then has their common address."""
    primary = port_of(stack)
    port = free_port()
    data = directory / "standby"
    base_backup(primary, data)
    server = standby(data, port)
    server.start()
    try:
        server.wait()
        with Forwarder(primary) as forwarder:
            stack.variables["DATABASE_URL"] = f"postgresql://backend@127.0.0.1:{forwarder.port}/backend"
            yield Pair(primary, port, forwarder)
    finally:
        server.stop()


def base_backup(port: int, data: Path) -> None:
    """Copy the running server at `port` into the directory `data`, which then is a standby's."""
    place = ["-h", "127.0.0.1", "-p", str(port), "-U", "backend", "-D", str(data)]
    options = ["--write-recovery-conf", "--checkpoint=fast", "--no-sync"]
    copied = subprocess.run([f"{postgresql()}/pg_basebackup", *place, *options], capture_output=True)
    assert copied.returncode == 0, copied.stderr


def standby(data: Path, port: int) -> ServerProcess:
    """The server of a base backup, at `port`; start it."""
    place = ["-h", "127.0.0.1", "-p", str(port)]
    run = [*not_as_root(), f"{postgresql()}/postgres", "-D", str(data), *place, "-k", ""]
    ready = [f"{postgresql()}/pg_isready", "-q", *place]
    log = data.with_suffix(".log")
    return ServerProcess("standby", run, log, lambda: subprocess.run(ready).returncode == 0, signal.SIGINT)


def detach(port: int) -> None:
    """Let the standby at `port` receive nothing more."""
    _sql(port, "ALTER SYSTEM SET primary_conninfo = ''")
    _sql(port, "SELECT pg_reload_conf()")
    receivers = "SELECT count(*) FROM pg_stat_wal_receiver"
    wait_until(lambda: _sql(port, receivers) == [(0,)], "the standby receives nothing more")


def promote(port: int) -> None:
    """Make the standby at `port` a primary."""
    _sql(port, "SELECT pg_promote(true, 30)")


def port_of(stack: Stack) -> int:
    """The port of a stack's PostgreSQL."""
    return int(stack.variables["DATABASE_URL"].rsplit("/", 1)[0].rsplit(":", 1)[1])


def _sql(port: int, statement: str, *values: Any) -> list[tuple[Any, ...]]:
    return execute(f"postgresql://backend@127.0.0.1:{port}/postgres", statement, *values)
