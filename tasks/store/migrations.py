"""The tables as numbered migrations, applied in order, each exactly once, by one process at a time."""

from dataclasses import dataclass

import peewee

from tasks.errors import NotReady
from tasks.store import unique_keys
from tasks.store.connection import NO_TABLE, database, sqlstate

_LOCK = 0x6D657373_61676573  # advisory lock key: "messages" in ASCII


@dataclass(frozen=True)
class Migration:
    """A step of the schema. A released step is never changed; a further change gets a new number."""

    version: int
    summary: str
    sql: str


MIGRATIONS = (
    Migration(
        12,
        "the tables",
        """
        CREATE TABLE message (
            id uuid NOT NULL,
            topic text NOT NULL,
            "partition" integer NOT NULL,
            "offset" bigint NOT NULL,
            produced_at timestamptz,
            stored_at timestamptz NOT NULL DEFAULT now(),
            type text,
            key text,
            headers jsonb,
            payload jsonb,
            xact xid8 NOT NULL DEFAULT pg_current_xact_id()
        ) PARTITION BY RANGE (stored_at);
        -- Ids made from places: time-ordered UUIDs of version 8. Those of senders are found by their claims, which say
        -- when their messages were stored; they may be random, and a second index of them would double what they cost.
        CREATE INDEX message_id_from_place ON message (id) WHERE get_byte(uuid_send(id), 6) >> 4 = 8;
        -- Pages and time ranges; stored_at grows, so that new entries go to the index's right edge.
        CREATE INDEX message_stored_at ON message (stored_at, id);
        -- By a hash: a key may be longer than an entry of an index (2,704 bytes), like one that has its schema. Nothing
        -- else, so that the messages of a key are one entry with a list of places, an eighth of the size.
        CREATE INDEX message_key ON message (hashtextextended(key, 0)) WHERE key IS NOT NULL;
        -- The order of transactions, see tasks/store/feed.py; it grows, too.
        CREATE INDEX message_xact ON message (xact, id);

        -- Ids that came with their records: no other message of the topic may have one. Two topics have two producers,
        -- who need not know of each other's ids.
        CREATE TABLE claim (
            id uuid NOT NULL,
            topic text NOT NULL,
            stored_at timestamptz NOT NULL DEFAULT now(), -- that of the message, which says in which leaf it is
            PRIMARY KEY (id, topic)
        );
        CREATE INDEX claim_stored_at ON claim USING brin (stored_at);

        -- How many messages were stored, see tasks/store/statistics.py.
        CREATE TABLE message_count (
            precision text NOT NULL CHECK (precision IN ('exact', 'minute', 'hour')),
            at timestamptz NOT NULL,
            topic text NOT NULL,
            type text,
            other boolean NOT NULL,
            messages bigint NOT NULL
        );
        CREATE INDEX message_count_at ON message_count (at);
        CREATE INDEX message_count_exact ON message_count (at) WHERE precision = 'exact';
        CREATE INDEX message_count_minute ON message_count (at) WHERE precision = 'minute';

        CREATE TABLE dead_letter (
            id uuid PRIMARY KEY,
            message_id uuid,
            topic text NOT NULL,
            "partition" integer NOT NULL,
            "offset" bigint NOT NULL,
            produced_at timestamptz,
            dead_at timestamptz NOT NULL DEFAULT now(),
            reason text NOT NULL,
            detail text NOT NULL,
            key bytea,
            value bytea,
            headers jsonb,
            state text NOT NULL DEFAULT 'waiting' CHECK (state IN ('waiting', 'redriven', 'discarded')),
            handled_at timestamptz,
            note text
        );
        CREATE INDEX dead_letter_dead_at ON dead_letter (dead_at, id);
        -- Partial: what was handled long ago never slows down those who look at what waits, nor the other way round.
        CREATE INDEX dead_letter_waiting ON dead_letter (dead_at, id) WHERE state = 'waiting';
        CREATE INDEX dead_letter_handled ON dead_letter (handled_at, id) WHERE state <> 'waiting';
        -- Tells whether a message that is not stored is a dead letter.
        CREATE INDEX dead_letter_message_id ON dead_letter (message_id) WHERE message_id IS NOT NULL;

        -- A partition of a topic that was created once: a recreated topic has another id. See tasks/store/spans.py.
        CREATE TABLE source (
            id integer GENERATED ALWAYS AS IDENTITY UNIQUE CHECK (id < 524288),
            topic text NOT NULL,
            topic_id text NOT NULL,
            "partition" integer NOT NULL,
            first_offset bigint NOT NULL,
            registered_at timestamptz NOT NULL DEFAULT now(),
            PRIMARY KEY (topic, topic_id, "partition")
        );
        CREATE TABLE span (span int8range NOT NULL, EXCLUDE USING gist (span WITH &&));
        CREATE TABLE lost_records (
            topic text NOT NULL,
            "partition" integer NOT NULL,
            "group" text NOT NULL,
            first_offset bigint NOT NULL,
            last_offset bigint NOT NULL,
            noticed_at timestamptz NOT NULL,
            acknowledged_at timestamptz,
            note text,
            PRIMARY KEY (topic, "partition", "group", first_offset, noticed_at)
        );

        CREATE TABLE bridge (
            member text PRIMARY KEY,
            reported_at timestamptz NOT NULL,
            status jsonb NOT NULL
        );
        CREATE TABLE stopped_partition (
            topic text NOT NULL,
            "partition" integer NOT NULL,
            "group" text NOT NULL,
            reason text NOT NULL,
            limit_percent integer NOT NULL,
            stopped_at timestamptz NOT NULL,
            PRIMARY KEY (topic, "partition", "group")
        );
        CREATE TABLE idempotency_key (
            key uuid PRIMARY KEY,
            body bytea NOT NULL,
            used_at timestamptz NOT NULL DEFAULT now()
        );
        CREATE INDEX idempotency_key_used_at ON idempotency_key (used_at);
        """,
    ),
)
_YET_TO_COME = "xact >= pg_snapshot_xmax(pg_current_snapshot())"
VERSION = MIGRATIONS[-1].version
_FIRST = MIGRATIONS[0].version  # older tables were never part of a release


def version() -> int:
    """The version of the tables; 0 if there are none. Raises peewee.DatabaseError."""
    try:
        return int(database.execute_sql("SELECT coalesce(max(version), 0) FROM schema_version").fetchone()[0])
    except peewee.ProgrammingError as error:
        if sqlstate(error) != NO_TABLE:
            raise
        return 0


def require_latest() -> None:
    """Raises NotReady if the tables are missing, older or newer than this program; and peewee.DatabaseError."""
    reason = _other_version(version())
    if reason is not None:
        raise NotReady(reason)


def require_upgradable() -> None:
    """Raises NotReady if the tables are newer than this program, or too old to upgrade; and peewee.DatabaseError."""
    if (there := version()) > VERSION or 0 < there < _FIRST:
        raise NotReady(_other_version(there))


def mismatch() -> str | None:
    """Why the tables do not match this program, as a sentence; None if they match. Raises peewee.DatabaseError."""
    reason = _other_version(version())
    if reason is not None:
        return reason
    missing = ", ".join(map(unique_keys.describe, unique_keys.missing()))
    return f"the unique key of {missing} is missing, so rows can be stored twice; run init" if missing else None


def _other_version(there: int) -> str | None:
    if there > VERSION:
        return f"the tables are of version {there}, newer than this program's {VERSION}; use the matching version"
    if 0 < there < _FIRST:
        return f"the tables are of version {there}, which no release had and none can upgrade; use an empty database"
    if there < VERSION:
        return f"the tables are {f'of version {there}, not {VERSION}' if there else 'missing'}; run init"
    return None


def restored() -> bool:
    """Whether messages have numbers of future transactions, as after restoring a dump of another server."""
    return bool(database.execute_sql(f"SELECT EXISTS (SELECT FROM message WHERE {_YET_TO_COME})").fetchone()[0])


def renumber() -> None:
    """Give those messages a number before all others, so that the stream treats them as old."""
    database.execute_sql(f"UPDATE message SET xact = '0' WHERE {_YET_TO_COME}")


def upgrade() -> list[Migration]:
    """Apply the missing migrations, all or none; concurrent processes take turns. Returns those applied.

    Raises NotReady if the tables are newer than this program, or too old; and peewee.DatabaseError.
    """
    with database.atomic():
        database.execute_sql("SELECT pg_advisory_xact_lock(%s)", (_LOCK,))
        database.execute_sql(
            "CREATE TABLE IF NOT EXISTS schema_version"
            " (version integer PRIMARY KEY, summary text NOT NULL, applied_at timestamptz NOT NULL DEFAULT now())"
        )
        require_upgradable()
        missing = [step for step in MIGRATIONS if step.version > version()]
        for step in missing:
            database.execute_sql(step.sql)
            database.execute_sql(
                "INSERT INTO schema_version (version, summary) VALUES (%s, %s)", (step.version, step.summary)
            )
        return missing
