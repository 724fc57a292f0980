"""Redis is killed, and with it every worker process that holds a batch: the pod works on once Redis is back."""

import signal

import psycopg2

from tests.waiting import wait_until
from tests.world import NEVER, World, events, signalled

_COUNT = 3_000
_BLOCKED = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'"


def test_nothing_is_lost_and_the_workers_read_on(ready: World) -> None:
    made = events(_COUNT)
    pod = ready.consume(batch_records="100", batch_deadline_seconds=NEVER)
    server = ready.stack.servers["valkey"]
    with psycopg2.connect(ready.variables["DATABASE_URL"]) as blocker, blocker.cursor() as cursor:
        cursor.execute("LOCK TABLE message")
        ready.produce(list(made.values()))
        wait_until(lambda: ready.sql(_BLOCKED) == [(2,)], "both worker processes wait for the table")
        server.kill()
        for process in pod.child("-m tasks").children():
            signalled(process, signal.SIGKILL)
        wait_until(lambda: len(pod.lines("batch.failed")) >= 2, "their parent knows")
        server.restart()
    blocker.close()
    ready.wait_for(_COUNT)
    ready.holds_exactly(made)
    ready.all_committed()
    assert pod.stop() == 0
