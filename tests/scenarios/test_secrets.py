"""A secret that is given as a flag shows in no process list: `ps` shows a flag for as long as its process runs."""

import pytest

from tests.programs import ABSENT
from tests.waiting import wait_until
from tests.world import World


@pytest.mark.parametrize(("command", "sign"), [("serve", "process.started"), ("consume", "partitions.assigned")])
def test_no_process_shows_the_address_of_the_database(ready: World, command: str, sign: str) -> None:
    secret = ready.variables["DATABASE_URL"]
    program = ready.start(command, f"--database-url={secret}", database_url=ABSENT, redis_url=ABSENT)
    wait_until(lambda: program.lines(sign), "it works")
    shown = [" ".join(process.cmdline()) for process in program.family()]
    assert any(command in line for line in shown)
    assert not any(secret in line for line in shown)
