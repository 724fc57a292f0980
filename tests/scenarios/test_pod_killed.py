"""A whole pod, its Redis too, killed while an early batch is not stored and later ones are: nothing is lost."""

from tests.clients import events
from tests.programs import ABSENT
from tests.waiting import wait_until
from tests.world import World

_COUNT = 5_000

# One record cannot be stored while the gate is shut, for a temporary reason: its batch is redelivered.
_GATE = """
    CREATE TABLE gate ();
    CREATE FUNCTION pass_gate() RETURNS trigger LANGUAGE plpgsql AS $$
    BEGIN
        IF to_regclass('gate') IS NOT NULL THEN RAISE EXCEPTION 'away' USING ERRCODE = '57P01'; END IF;
        RETURN NULL;
    END $$;
    CREATE TRIGGER gate AFTER INSERT ON message FOR EACH ROW
        WHEN ((NEW.payload ->> 'number') = '150') EXECUTE FUNCTION pass_gate();
"""


def test_what_lies_below_later_batches_is_read_again(ready: World) -> None:
    made = events(_COUNT)
    ready.produce(list(made.values()), partition=0)
    ready.sql(_GATE)
    pod = ready.consume(redis_url=ABSENT, batch_records="100")
    ready.wait_for(_COUNT - 100)
    wait_until(lambda: pod.lines("batch.redelivered"), "the first batch is tried again")
    pod.end()
    ready.sql("DROP TABLE gate")
    ready.consume(redis_url=ABSENT)
    ready.wait_for(_COUNT)
    ready.holds_exactly(made)
