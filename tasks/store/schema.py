"""The tables, as numbered migrations."""

from dataclasses import dataclass


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
    Migration(
        13,
        "the users' tasks",
        """
        -- See tasks/store/task_registry.py. A task whose patterns changed has a new row.
        CREATE TABLE task (
            id integer GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
            name text NOT NULL,
            topic text,
            patterns text[],
            registered_at timestamptz NOT NULL DEFAULT now(),
            xact xid8 NOT NULL DEFAULT pg_current_xact_id(),
            retired_at timestamptz,
            retired_xact xid8
        );
        CREATE UNIQUE INDEX task_name ON task (name) WHERE retired_at IS NULL;

        -- See tasks/store/chunks.py. No foreign key: its check would lock the task's row in every batch.
        CREATE TABLE chunk (
            id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
            task integer NOT NULL,
            topic text NOT NULL,
            "partition" integer NOT NULL,
            first_offset bigint NOT NULL,
            next_offset bigint NOT NULL,
            stored_at timestamptz NOT NULL DEFAULT now(),
            messages integer NOT NULL,
            bytes bigint NOT NULL, -- of the whole batch, so of no less than its messages
            owner text,
            token text,
            claims integer NOT NULL DEFAULT 0,
            suspect bigint,
            kills integer NOT NULL DEFAULT 0
        );
        CREATE INDEX chunk_task ON chunk (task, id);
        CREATE INDEX chunk_token ON chunk (token) WHERE token IS NOT NULL;

        -- See tasks/store/runs.py.
        CREATE TABLE run (
            id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
            task text NOT NULL,
            message_id uuid NOT NULL,
            topic text NOT NULL,
            "partition" integer NOT NULL,
            "offset" bigint NOT NULL,
            stored_at timestamptz NOT NULL,
            state text NOT NULL CHECK (state IN ('retrying', 'failed', 'discarded')),
            attempts integer NOT NULL,
            error text NOT NULL,
            traceback text NOT NULL,
            changed_at timestamptz NOT NULL DEFAULT now(),
            due_at timestamptz,
            owner text,
            token text,
            kills integer NOT NULL DEFAULT 0,
            note text
        );
        CREATE INDEX run_due ON run (task, due_at) WHERE state = 'retrying';
        CREATE INDEX run_token ON run (token) WHERE token IS NOT NULL;
        CREATE INDEX run_state ON run (state, id);
        CREATE INDEX run_stored_at ON run (stored_at) WHERE state = 'retrying';

        CREATE TABLE replay (
            task text NOT NULL,
            begin_at timestamptz NOT NULL,
            end_at timestamptz NOT NULL
        );
        CREATE INDEX replay_task ON replay (task, begin_at);
        CREATE TABLE paused_task (
            name text PRIMARY KEY,
            reason text NOT NULL,
            limit_percent integer,
            paused_at timestamptz NOT NULL DEFAULT now()
        );
        CREATE TABLE task_worker (
            name text PRIMARY KEY,
            beat_at timestamptz NOT NULL
        );
        """,
    ),
    Migration(
        14,
        "calls of the users' tasks, tasks that were renamed, and what their workers report",
        """
        -- See tasks/store/calls.py. A call is a run without a message: it has no place in Kafka, but a payload.
        ALTER TABLE run
            ALTER topic DROP NOT NULL, ALTER "partition" DROP NOT NULL, ALTER "offset" DROP NOT NULL,
            ALTER error SET DEFAULT '', ALTER traceback SET DEFAULT '',
            ADD payload text, ADD headers text, ADD expires_at timestamptz, ADD result text,
            DROP CONSTRAINT run_state_check,
            ADD CONSTRAINT run_state_check
                CHECK (state IN ('waiting', 'retrying', 'failed', 'discarded', 'expired', 'done'));
        CREATE UNIQUE INDEX run_call ON run (message_id) WHERE topic IS NULL;
        DROP INDEX run_due;
        CREATE INDEX run_due ON run (task, due_at) WHERE state IN ('waiting', 'retrying');
        DROP INDEX run_stored_at;
        ALTER TABLE task ADD aliases text[] NOT NULL DEFAULT '{}';
        CREATE INDEX run_stored_at ON run (stored_at) WHERE state = 'retrying' AND topic IS NOT NULL;
        CREATE INDEX run_failed ON run (task, id) WHERE state = 'failed';
        ALTER TABLE task_worker ADD tasks text[] NOT NULL DEFAULT '{}', ADD failure text;
        """,
    ),
)
