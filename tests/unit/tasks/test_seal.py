"""A seal fits what it was made of and nothing else."""

import pytest

from tasks.claim_check import Claim
from tasks.config import settings
from tasks.seal import Seal, of_deployment

CLAIM = Claim("b", 1, "orders", 3, 0, 9, 10, "reply", "id", 0).fields()


def test_it_travels_among_the_fields() -> None:
    seal = Seal("key")
    assert seal.fits({**CLAIM, "seal": seal.of(CLAIM, b"records")}, b"records")


@pytest.mark.parametrize("changed", [{"begin": 1}, {"reply_to": "x"}, {"seal": ""}, {"seal": None}, {"added": 1}])
def test_it_fits_no_other_fields(changed: dict[str, object]) -> None:
    seal = Seal("key")
    assert not seal.fits({**CLAIM, "seal": seal.of(CLAIM, b"records"), **changed}, b"records")


def test_it_fits_no_other_records_and_no_other_key() -> None:
    sealed = {**CLAIM, "seal": Seal("key").of(CLAIM, b"records")}
    assert not Seal("key").fits(sealed, b"record")
    assert not Seal("other").fits(sealed, b"records")


def test_bridges_and_workers_of_one_database_have_one_key() -> None:
    one, same, other = (of_deployment(settings.load({}, {"DATABASE_URL": f"postgresql://{n}/d"})) for n in "aab")
    assert one.of(CLAIM) == same.of(CLAIM) != other.of(CLAIM)
    given = [of_deployment(settings.load({}, {"DATABASE_URL": f"postgresql://{n}/d", "SEAL_KEY": "k"})) for n in "ab"]
    assert given[0].of(CLAIM) == given[1].of(CLAIM)
