"""The process of a bridge: waits for Kafka, then runs one member of the consumer group until it is stopped."""

import gc

from celery import Celery

from bridge.consumer import DRAIN_SECONDS, Bridge
from bridge.handover import Handover
from bridge.kafka.clients import new_consumer, wait_for_brokers
from bridge.maintenance import Maintenance
from bridge.stop_signal import StopSignal
from tasks.claim_store import RedisClaimStore
from tasks.config.settings import Settings
from tasks.observability import events, setup
from tasks.seal import of_deployment
from tasks.worker import persist

_STOP_SECONDS = DRAIN_SECONDS + 2
# New objects between two garbage collections. Each collection visits the thousands of records in memory, which never
# form cycles: with Python's default of 700 it took a seventh of this process's CPU time.
_COLLECT_AFTER = 50_000


def run(settings: Settings, app: Celery) -> None:
    """Run one member of the consumer group until SIGTERM or SIGINT. Raises Unavailable if Kafka never responds."""
    setup.exit_if_a_thread_fails()
    gc.set_threshold(_COLLECT_AFTER)
    stop = StopSignal(_STOP_SECONDS)
    stop.install()

    def keep_waiting(reason: str) -> bool:
        events.emit("service.unavailable", service="kafka", reason=reason)
        return not stop.requested

    consumer = wait_for_brokers(lambda: new_consumer(settings), keep_waiting)
    seal = of_deployment(settings)
    claims = RedisClaimStore(settings.redis_url or "", seal)
    handover = Handover(claims, app.tasks[persist.NAME].enqueue, seal, settings.batch_deadline_seconds)
    maintenance = Maintenance()
    maintenance.start()
    Bridge(settings, handover, consumer, stop).run()
    maintenance.stop()
