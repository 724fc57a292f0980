"""The processes of the API spread over the cores evenly, or not at all, also after one of them was lost."""

import os

import pytest

from tests.programs import Program
from tests.waiting import wait_until
from tests.world import World

CORES = sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else []
pytestmark = pytest.mark.skipif(not CORES, reason="only Linux keeps a process on a core")


def _cores(program: Program) -> list[int]:
    """The cores of each process except the first, which only supervises the others."""
    return sorted(core for process in program.family()[1:] for core in process.cpu_affinity())


def test_each_core_has_a_process_of_its_own_again_after_one_was_killed(ready: World) -> None:
    program = ready.serve(web_processes=str(len(CORES)))
    wait_until(lambda: _cores(program) == CORES, "each has a core")
    lost = program.family()[1]
    lost.kill()
    wait_until(lambda: lost not in program.family() and _cores(program) == CORES, "its core has a process again")


def test_where_some_cores_would_have_more_processes_than_others_none_is_kept_on_one(ready: World) -> None:
    program = ready.serve(web_processes=str(len(CORES) + 1))
    if len(CORES) > 1:
        wait_until(lambda: _cores(program) == sorted(CORES * (len(CORES) + 1)), "each may use every core")
