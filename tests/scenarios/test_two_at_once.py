"""Redis is killed, and with it every worker process that holds a batch: the pod works on once Redis is back."""

import signal
from functools import partial

import psycopg2

from tests.clients import events
from tests.programs import NEVER, Program, signalled
from tests.waiting import wait_until
from tests.world import World

_COUNT = 3_000
_TIMES = 3  # after the first, Celery has reconnected
_BLOCKED = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'"


def _more_failed(pod: Program, count: int) -> bool:
    return len(pod.lines("batch.failed")) >= count


def test_nothing_is_lost_and_the_workers_read_on(ready: World) -> None:
    made = events(_COUNT * _TIMES)
    values = list(made.values())
    pod = ready.consume(batch_records="100", batch_deadline_seconds=NEVER)
    server = ready.stack.servers["valkey"]
    for time in range(_TIMES):
        failed = len(pod.lines("batch.failed"))
        with psycopg2.connect(ready.variables["DATABASE_URL"]) as blocker, blocker.cursor() as cursor:
            cursor.execute("LOCK TABLE message")
            ready.produce(values[time * _COUNT : (time + 1) * _COUNT])
            wait_until(lambda: ready.sql(_BLOCKED) == [(2,)], "both worker processes wait for the table")
            server.kill()
            for process in pod.child("-m tasks").children():
                signalled(process, signal.SIGKILL)
            wait_until(partial(_more_failed, pod, failed + 2), "their parent knows")
            server.restart()
        blocker.close()
        ready.wait_for((time + 1) * _COUNT)
    ready.holds_exactly(made)
    ready.all_committed()
    assert pod.stop() == 0
