"""With an order set, no later message of the same partition or key is stored before an earlier one."""

import random

import orjson
import pytest

from tests.world import World

_COUNT = 6_000

# Transactions of one key that ran at the same time, or the wrong way round, have xids out of the order of offsets.
_VIOLATIONS = """
    SELECT count(*) FROM (
        SELECT xmin::text::bigint AS stored_in,
               max(xmin::text::bigint) OVER (PARTITION BY "partition", {key} ORDER BY "offset") AS newest_before
        FROM message) earlier
    WHERE stored_in < newest_before
"""


@pytest.mark.parametrize(("ordering", "key"), [("partition", "topic"), ("key", "key")])
def test_it_is_stored_in_order_while_workers_fail(ready: World, ordering: str, key: str) -> None:
    chosen = random.Random(7)
    for _ in range(_COUNT // 100):
        ready.produce([orjson.dumps({"n": chosen.random()}) for _ in range(100)], key=b"k%d" % chosen.randrange(40))
    ready.sql(_REFUSE_SOME)
    pod = ready.consume(ordering=ordering, batch_records="20", log_level="info")
    ready.wait_for(_COUNT, 120)
    assert ready.sql(_VIOLATIONS.format(key=key)) == [(0,)]
    assert pod.lines("batch.redelivered"), "nothing failed, so nothing was put to the test"


# One batch in ten fails at its first attempt, as in a short outage: without order, the next one overtakes it.
_REFUSE_SOME = """
    CREATE SEQUENCE tries;
    CREATE FUNCTION refuse_some() RETURNS trigger LANGUAGE plpgsql AS $$
    BEGIN
        IF nextval('tries') % 10 = 0 THEN RAISE EXCEPTION 'away' USING ERRCODE = '57P01'; END IF;
        RETURN NULL;
    END $$;
    CREATE TRIGGER refuse AFTER INSERT ON message FOR EACH STATEMENT EXECUTE FUNCTION refuse_some();
"""
