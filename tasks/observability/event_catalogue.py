"""What can be logged: every event, with its severity and its meaning."""

import logging
from dataclasses import dataclass


@dataclass(frozen=True)
class Event:
    """Something that can happen: a dotted name, a severity, and a sentence with its meaning."""

    name: str
    level: int
    meaning: str


def _catalogue(*events: Event) -> dict[str, Event]:
    return {event.name: event for event in events}


CATALOGUE = _catalogue(
    Event("process.started", logging.INFO, "The process has read its settings and starts its work"),
    Event("process.stopping", logging.INFO, "The process was asked to stop and finishes its work in flight"),
    Event("process.stopped", logging.INFO, "The process has finished"),
    Event("process.failed", logging.ERROR, "The process ends because of an error"),
    Event("program.exited", logging.WARNING, "A program of the pod exited unexpectedly; supervisord restarts it"),
    Event("program.output", logging.INFO, "A line of output of another program in the pod, such as Redis"),
    Event("pod.failed", logging.ERROR, "A program of the pod keeps failing, so the pod ends"),
    Event("init.waiting", logging.INFO, "init waits for a service that does not respond yet"),
    Event("init.done", logging.INFO, "init changed something, or found it up to date"),
    Event("init.warning", logging.WARNING, "init found a difference that it does not change"),
    Event("message.accepted", logging.INFO, "Kafka acknowledged a message received over HTTP"),
    Event("messages.accepted", logging.INFO, "Kafka acknowledged messages of a batch received over HTTP"),
    Event("message.unacknowledged", logging.ERROR, "Kafka did not acknowledge a message in time"),
    Event("request.rejected", logging.INFO, "The response to a request was a problem"),
    Event("request.failed", logging.ERROR, "A request failed because of an unexpected error"),
    Event("api.open", logging.WARNING, "No API keys are set: every client that can reach the API may use all of it"),
    Event(
        "schema.mismatch",
        logging.ERROR,
        "The tables do not match this version of the program, or a unique key is missing; the process continues",
    ),
    Event("schema.match", logging.INFO, "The tables match this version of the program again"),
    Event("service.unavailable", logging.WARNING, "A service does not respond; the process waits and retries"),
    Event("service.available", logging.INFO, "A service that was unavailable responds again"),
    Event("monitoring.denied", logging.WARNING, "Redis denies a worker its channels; Celery's own tools do not see it"),
    Event("run.retrying", logging.WARNING, "A run of a users' task failed, and will be retried"),
    Event("task.paused", logging.ERROR, "Too many runs of a users' task failed; it runs nothing until it is resumed"),
    Event("task.unregistered", logging.WARNING, "No message runs these tasks, because init has not registered them"),
    Event("task.called", logging.INFO, "A call of a users' task was accepted over HTTP"),
    Event("run.expired", logging.WARNING, "A call of a users' task was not run before it expired"),
    Event("run.failed", logging.ERROR, "A run of a users' task failed, and will not be retried"),
    Event(
        "execution.failed",
        logging.WARNING,
        "Runs of a users' task were interrupted, by an outage of PostgreSQL or by another process; they continue",
    ),
    Event("run.stuck", logging.ERROR, "A users' function did not end long after its time limit; its process ends"),
    Event("dispatch.failed", logging.WARNING, "The users' tasks cannot be dispatched, as a service does not respond"),
    Event("partitions.assigned", logging.INFO, "The consumer group assigned partitions to this bridge"),
    Event("partitions.revoked", logging.INFO, "The consumer group revoked partitions from this bridge"),
    Event(
        "partitions.paused", logging.INFO, "Backpressure lasted; partitions are paused in Kafka while polling continues"
    ),
    Event(
        "records.lost",
        logging.ERROR,
        "Kafka deleted records before the group read them: retention, or somebody, was faster",
    ),
    Event(
        "records.missing",
        logging.ERROR,
        "PostgreSQL lacks records that it had stored: it was restored, or a standby lagged; they are read again",
    ),
    Event(
        "partition.rewound",
        logging.WARNING,
        "Kafka returned records from before the expected offset: a log was truncated; known records change nothing",
    ),
    Event("topic.missing", logging.ERROR, "A configured topic does not exist; the others are read"),
    Event("topic.available", logging.INFO, "A topic that was missing exists again"),
    Event("topic.recreated", logging.WARNING, "A topic was deleted and created again; it is read from its start"),
    Event("batch.handed_over", logging.INFO, "The bridge handed a batch to Celery"),
    Event(
        "batch.forged",
        logging.ERROR,
        "A batch in Redis is not of a bridge with our SEAL_KEY, DATABASE_URL and version; it is ignored",
    ),
    Event(
        "result.forged",
        logging.ERROR,
        "A result in Redis is not of a worker with our SEAL_KEY and DATABASE_URL; it is ignored",
    ),
    Event("batch.redelivered", logging.WARNING, "The bridge handed a batch to Celery again"),
    Event("batch.split", logging.WARNING, "The bridge split a batch that killed its worker into two halves"),
    Event("batch.stored", logging.INFO, "A worker committed a batch to PostgreSQL"),
    Event("batch.failed", logging.WARNING, "A worker could not store a batch; it will be redelivered"),
    Event("batch.stale", logging.INFO, "A worker received an attempt that has been replaced by a newer one"),
    Event("message.stored", logging.DEBUG, "A message of a batch is in PostgreSQL"),
    Event("message.duplicate", logging.INFO, "A sender sent a message again; it stays stored once"),
    Event("record.dead_lettered", logging.WARNING, "A record was stored in dead_letter"),
    Event("bridge.backpressure", logging.WARNING, "The bridge has stopped reading, for the given reason"),
    Event(
        "retention.postponed",
        logging.WARNING,
        "Old messages are read all the time, as by pg_dump, or tasks have not run for them; a later run drops them",
    ),
    Event("maintenance.failed", logging.WARNING, "A bridge cannot maintain the tables; it tries again"),
    Event("bridge.resumed", logging.INFO, "The bridge reads again"),
    Event(
        "thread.failed", logging.ERROR, "A thread ended with an unexpected error; the process exits, to be restarted"
    ),
    Event("bridge.stuck", logging.ERROR, "The bridge makes no progress and exits, to be restarted"),
    Event(
        "worker.stuck", logging.ERROR, "Tasks are queued but the workers take none; their parent exits, to be restarted"
    ),
    Event(
        "partition.quarantined",
        logging.ERROR,
        "Too many of a partition's records became dead letters; the group has stopped reading it",
    ),
    Event("partition.released", logging.WARNING, "The group reads a quarantined partition again"),
    Event("dead_letter.redriven", logging.DEBUG, "Kafka acknowledged a redriven dead letter"),
    Event("dead_letter.redrive_failed", logging.WARNING, "A dead letter could not be redriven; it is still waiting"),
    Event("retention.done", logging.INFO, "Old messages and handled dead letters were deleted, or only counted"),
    Event("offset.committed", logging.DEBUG, "The bridge committed an offset"),
    Event("offset.commit_failed", logging.WARNING, "Kafka rejected an offset commit; the records may be read again"),
    Event(
        "metrics.not_shared", logging.WARNING, "The metrics of this process are not exported: its file is not writable"
    ),
    Event("log", logging.INFO, "A log line of a library"),
)
