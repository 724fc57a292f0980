"""`init` on real servers: creates, extends, warns, and changes nothing the second time."""

from concurrent.futures import ThreadPoolExecutor

import psycopg2

from bridge.kafka.cluster import Cluster
from tasks.store import migrations, schema
from tests.waiting import wait_until
from tests.world import World


def test_it_creates_topics_and_tables_and_then_finds_nothing_to_do(world: World) -> None:
    first = world.run("init")
    assert first.returncode == 0, first.stderr
    assert "created" in first.stdout
    second = world.run("init")
    assert second.returncode == 0
    assert "nothing to do" in second.stdout
    assert "created" not in second.stdout
    assert world.sql("SELECT max(version) FROM schema_version") == [(migrations.VERSION,)]


def test_check_changes_nothing_and_says_what_is_missing(world: World) -> None:
    checked = world.run("init", "--check")
    assert checked.returncode == 5
    assert "missing" in checked.stdout
    assert world.sql("SELECT to_regclass('message')") == [(None,)]
    world.init()
    assert world.run("init", "--check").returncode == 0


def test_partitions_are_extended_and_never_taken_away(ready: World) -> None:
    assert "extended" in ready.run("init", "--kafka-partitions", "5").stdout
    fewer = ready.run("init", "--kafka-partitions", "2")
    assert fewer.returncode == 0
    assert "has 5 partitions, not 2; kept" in fewer.stdout
    assert [topic.partitions for topic in Cluster(ready.settings()).topics([ready.topic])] == [5]


def test_another_replication_factor_is_a_warning(ready: World) -> None:
    done = ready.run("init", "--kafka-replication-factor", "3")
    assert done.returncode == 0
    assert "replication factor 1, not 3" in done.stdout


def test_more_replicas_than_brokers_names_the_setting(world: World) -> None:
    done = world.run("init", "--kafka-replication-factor", "3")
    assert done.returncode == 2
    assert "KAFKA_REPLICATION_FACTOR" in done.stderr


def test_two_at_once_are_safe(world: World) -> None:
    with ThreadPoolExecutor(2) as pool:
        both = list(pool.map(lambda _: world.run("init"), range(2)))
    assert [done.returncode for done in both] == [0, 0], both[0].stderr + both[1].stderr
    assert world.sql("SELECT count(*) FROM schema_version") == [(len(schema.MIGRATIONS),)]


def test_services_that_are_away_are_named_with_their_setting(world: World) -> None:
    kafka = world.run("init", "--wait-seconds", "4", kafka_brokers="127.0.0.1:1")
    assert kafka.returncode == 3
    assert "KAFKA_BROKERS" in kafka.stderr
    assert "init.waiting" in kafka.stdout
    database = world.run("init", "--wait-seconds", "1", database_url="postgresql://backend@127.0.0.1:1/backend")
    assert database.returncode == 3
    assert "DATABASE_URL" in database.stderr
    assert len(database.stderr.splitlines()) == 1


def test_wrong_database_or_user_is_refused_at_once(world: World) -> None:
    server = world.variables["DATABASE_URL"].rsplit("/", 1)[0]
    for url, said in (
        (f"{server}/nowhere", "no such database"),
        (server.replace("backend@", "stranger@") + "/backend", "does not know the user"),
    ):
        done = world.run("init", database_url=url)
        assert done.returncode == 4
        assert said in done.stderr


def test_no_right_to_create_tables_is_refused_at_once(world: World) -> None:
    name = world.topic
    world.sql(f"CREATE ROLE {name} LOGIN")
    done = world.run("init", database_url=world.variables["DATABASE_URL"].replace("backend@", f"{name}@"))
    assert done.returncode == 4
    assert "permission denied" in done.stderr


def test_the_index_of_payloads_comes_and_goes_as_wanted(ready: World) -> None:
    index = "SELECT to_regclass('message_payload') IS NOT NULL"
    assert ready.sql(index) == [(False,)]
    assert ready.run("init", "--check", payload_index="on").returncode == 5
    for wanted in ("on", "off"):
        assert ready.run("init", payload_index=wanted).returncode == 0
        assert ready.sql(index) == [(wanted == "on",)]
        assert "nothing to do" in ready.run("init", payload_index=wanted).stdout


_INSERT = (
    'INSERT INTO message (id, topic, "partition", "offset", produced_at) VALUES (gen_random_uuid(), \'t\', 0, 0, now())'
)


def test_the_index_of_payloads_is_made_while_others_write(ready: World) -> None:
    open_one = psycopg2.connect(ready.variables["DATABASE_URL"])
    open_one.cursor().execute(_INSERT)
    init = ready.start("init", payload_index="on")
    waits = "SELECT count(*) FROM pg_stat_activity WHERE query LIKE 'CREATE INDEX%%' AND wait_event_type = 'Lock'"
    wait_until(lambda: ready.sql(waits)[0][0], "init waits for the one that began before")
    ready.sql(f"SET lock_timeout = '2s'; {_INSERT}")
    second = ready.run("init", "--wait-seconds", "1", payload_index="on")
    assert (second.returncode, "another process" in second.stderr) == (3, True)
    open_one.commit()
    open_one.close()
    assert init.process.wait(30) == 0
    assert "nothing to do" in ready.run("init", payload_index="on").stdout


def test_an_index_that_was_broken_off_is_made_anew(ready: World) -> None:
    ready.variables["PAYLOAD_INDEX"] = "on"
    assert ready.run("init").returncode == 0
    ready.sql("UPDATE pg_index SET indisvalid = false WHERE indexrelid = 'message_payload'::regclass")
    assert ready.run("init", "--check").returncode == 5
    assert ready.run("init").returncode == 0
    assert "nothing to do" in ready.run("init").stdout


def test_settings_of_postgresql_that_break_or_slow_it_are_named(ready: World) -> None:
    checked = ready.run("init", "--check")
    assert (checked.returncode, "PostgreSQL's shared_buffers is 128MB: " in checked.stdout) == (0, True)
    assert "fsync" not in checked.stdout + ready.run("init").stdout
    try:
        ready.admin("ALTER SYSTEM SET fsync = off")
        ready.admin("SELECT pg_reload_conf()")
        wait_until(lambda: ready.sql("SHOW fsync") == [("off",)], "the server has read it")
        checked = ready.run("init", "--check")
        assert (checked.returncode, "PostgreSQL runs with fsync=off: " in checked.stdout) == (0, True)
    finally:
        ready.admin("ALTER SYSTEM RESET fsync")
        ready.admin("SELECT pg_reload_conf()")
