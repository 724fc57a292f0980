"""Tables of another version, without rights, or without a key: each command reports which, with its exit code."""

import functools
import uuid
from collections.abc import Callable

import psycopg2
import pytest

from tasks.store import connection, migrations, unique_keys
from tests.programs import ROOT
from tests.waiting import wait_until
from tests.world import World

_VERSION_9 = "WITH all_versions AS (DELETE FROM schema_version) INSERT INTO schema_version VALUES (9, 'never released')"
_COMMANDS = (["init"], ["init", "--check"], ["retention"], ["dead-letters", "list"])
_ROW = """
    INSERT INTO message (id, topic, "partition", "offset", produced_at) VALUES (%s, 't', 0, 0, now());
    INSERT INTO claim (id, topic) VALUES (%s, 't')
"""


def key(world: World, table: str) -> str:
    """The name of a table's primary key, or of what keeps its rows apart."""
    name = "SELECT conname FROM pg_constraint WHERE conrelid = %s::regclass AND contype IN ('p', 'x')"
    return str(world.sql(name, table)[0][0])


def drop(world: World, table: str) -> None:
    world.sql(f"ALTER TABLE {table} DROP CONSTRAINT {key(world, table)}")


def invalidate(world: World, table: str) -> None:
    world.sql("UPDATE pg_index SET indisvalid = false WHERE indexrelid = %s::regclass", key(world, table))


def narrow(world: World, table: str) -> None:
    """Make the primary key one of other columns."""
    drop(world, table)
    world.sql(f"ALTER TABLE {table} ADD PRIMARY KEY (key, used_at)")


def partial(world: World, table: str) -> None:
    drop(world, table)
    world.sql(f"CREATE UNIQUE INDEX ON {table} (key) WHERE used_at > '2020-01-01'")


@pytest.mark.parametrize("command", _COMMANDS, ids=" ".join)
def test_tables_of_a_newer_version_are_refused(ready: World, command: list[str]) -> None:
    ready.sql("INSERT INTO schema_version (version, summary) VALUES (99, 'of the future')")
    done = ready.run(*command)
    assert done.returncode == 5, done.stdout + done.stderr
    expected = f"the tables are of version 99, newer than this program's {migrations.VERSION}; use the matching version"
    assert expected in done.stderr


@pytest.mark.parametrize("command", _COMMANDS, ids=" ".join)
def test_tables_that_were_never_released_are_refused(ready: World, command: list[str]) -> None:
    ready.sql(_VERSION_9)
    done = ready.run(*command)
    assert done.returncode == 5, done.stdout + done.stderr
    assert (
        "the tables are of version 9, which no release had and none can upgrade; use an empty database" in done.stderr
    )


@pytest.mark.parametrize("command", [["init", "--check"], ["retention"], ["dead-letters", "list"]], ids=" ".join)
def test_a_missing_right_is_not_a_missing_table(ready: World, command: list[str]) -> None:
    name = ready.topic
    ready.sql(f"CREATE ROLE {name} LOGIN")
    done = ready.run(*command, database_url=ready.variables["DATABASE_URL"].replace("backend@", f"{name}@"))
    assert done.returncode == 4, done.stdout + done.stderr
    assert "permission denied for table schema_version" in done.stderr
    assert "--database-url / DATABASE_URL" in done.stderr


def test_a_missing_right_to_connect_is_refused_at_once(ready: World) -> None:
    name = ready.topic
    ready.sql(f"CREATE ROLE {name} LOGIN")
    ready.admin("REVOKE CONNECT ON DATABASE {database} FROM PUBLIC")
    done = ready.run("retention", database_url=ready.variables["DATABASE_URL"].replace("backend@", f"{name}@"))
    assert (done.returncode, "does not let the user" in done.stderr) == (4, True), done.stderr


def test_a_table_that_somebody_dropped_is_named(ready: World) -> None:
    ready.sql("DROP TABLE dead_letter")
    for command in (["dead-letters", "list"], ["init"]):
        done = ready.run(*command)
        assert (done.returncode, 'relation "dead_letter" does not exist' in done.stderr) == (5, True), done.stderr


@pytest.mark.parametrize(
    "table",
    ["claim", "dead_letter", "idempotency_key", "bridge", "stopped_partition", "lost_records", "source", "span"],
)
def test_a_dropped_key_is_reported_and_made_again(ready: World, table: str) -> None:
    drop(ready, table)
    checked = ready.run("init", "--check")
    assert checked.returncode == 5
    assert f"unique key of {table} (" in checked.stdout
    done = ready.run("init")
    assert (done.returncode, f"unique key of {table} (" in done.stdout) == (0, True), done.stderr
    assert ready.run("init", "--check").returncode == 0


@pytest.mark.parametrize("damage", [invalidate, narrow, partial])
def test_a_key_that_does_not_hold_is_made_again(ready: World, damage: Callable[[World, str], None]) -> None:
    damage(ready, "idempotency_key")
    assert ready.run("init", "--check").returncode == 5
    assert ready.run("init").returncode == 0
    assert "nothing to do" in ready.run("init").stdout


def test_a_long_reader_is_waited_for_only_briefly(ready: World) -> None:
    drop(ready, "claim")
    reader = psycopg2.connect(ready.variables["DATABASE_URL"])
    reader.cursor().execute("SELECT count(*) FROM claim")
    done = ready.run("init", "--wait-seconds", "1")
    assert (done.returncode, "lock timeout" in done.stderr) == (3, True), done.stderr
    reader.close()
    assert ready.run("init").returncode == 0


def test_a_renamed_key_is_as_good(ready: World) -> None:
    ready.sql(f"ALTER INDEX {key(ready, 'claim')} RENAME TO renamed")
    ready.sql(f"ALTER TABLE dead_letter DROP CONSTRAINT {key(ready, 'dead_letter')}")
    ready.sql("CREATE UNIQUE INDEX made_by_hand ON dead_letter (id)")
    assert ready.run("init", "--check").returncode == 0


def test_rows_that_are_there_twice_are_counted_and_the_advice_works(ready: World) -> None:
    drop(ready, "claim")
    ids = [str(uuid.uuid4()) for _ in range(5)]
    for message_id in [*ids, *ids[:3], ids[0]]:
        ready.sql(_ROW, message_id, message_id)
    refused = ready.run("init")
    assert refused.returncode == 5
    assert f"3 key value(s) of {unique_keys.describe('claim')} are stored more than once" in refused.stderr
    ready.sql((ROOT / "docs" / "operations.md").read_text().split("```sql\n")[1].split("```")[0])
    assert ready.run("init").returncode == 0
    assert ready.ids() == set(ids)
    assert ready.count() == len(ids)


def test_the_mismatch_is_a_sentence(tables: World) -> None:
    with connection.database.connection_context():
        assert migrations.mismatch() is None
        drop(tables, "claim")
        assert "the unique key of claim (" in (migrations.mismatch() or "")
        tables.sql(_VERSION_9)
        assert "of version 9, which no release had and none can upgrade" in (migrations.mismatch() or "")
        tables.sql("DROP TABLE schema_version")
        assert migrations.mismatch() == "the tables are missing; run init"


def test_processes_that_run_on_say_once_what_is_wrong(ready: World) -> None:
    drop(ready, "claim")
    programs = [ready.serve(web_processes="1"), ready.consume("--only", "bridge")]
    for program in programs:
        lines = wait_until(functools.partial(program.lines, "schema.mismatch"), f"{program.name} says so")
        assert lines[0]["level"] == "error"
        assert "the unique key of claim (" in lines[0]["reason"]
    assert ready.run("init").returncode == 0
    for program in programs:
        wait_until(functools.partial(program.lines, "schema.match"), f"{program.name} sees that it was made", 40)
        assert len(program.lines("schema.mismatch")) == 1
