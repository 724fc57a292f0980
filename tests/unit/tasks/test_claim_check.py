"""What travels between bridge and workers comes out as it went in."""

from typing import NamedTuple

import orjson
from hypothesis import given
from hypothesis import strategies as st

from tasks.claim_check import Claim, halves, pack, unpack
from tasks.message import Record

CLAIM = Claim("b", 1, "orders", 3, 0, 9, 10, "reply", "id", 0)

records = st.lists(
    st.builds(
        Record,
        st.just("orders"),
        st.just(3),
        st.integers(0, 2**63 - 1),
        st.integers(0, 2**45),
        st.none() | st.binary(max_size=20),
        st.none() | st.binary(max_size=50),
        st.lists(st.tuples(st.text(max_size=5), st.none() | st.binary(max_size=5)), max_size=3).map(tuple),
    ),
    max_size=20,
)


@given(records)
def test_records_come_out_as_they_went_in(made: list[Record]) -> None:
    assert unpack(CLAIM, pack(made)) == made


@given(records)
def test_halves_are_the_whole_in_order(made: list[Record]) -> None:
    first, second = halves(CLAIM, pack(made))
    assert first + second == made
    assert len(second) - len(first) in (0, 1)


def test_what_the_kafka_client_returns_needs_no_conversion() -> None:
    class Polled(NamedTuple):
        headers: list[tuple[str, bytes]]
        value: bytes
        key: bytes
        timestamp: int
        offset: int
        serialized_value_size: int

    assert unpack(CLAIM, pack([Polled([("h", b"1")], b"v", b"k", 5, 7, 1)])) == [
        Record("orders", 3, 7, 5, b"k", b"v", (("h", b"1"),))
    ]


def test_a_claim_survives_celerys_json() -> None:
    assert Claim(**orjson.loads(orjson.dumps(CLAIM.fields()))) == CLAIM


def test_another_attempt_lies_under_another_key() -> None:
    assert Claim(**{**CLAIM.fields(), "attempt": 2}).key != CLAIM.key


def test_an_old_worker_understands_what_a_newer_bridge_says_more() -> None:
    assert Claim.of({**CLAIM.fields(), "said by": "a newer version"}) == CLAIM
