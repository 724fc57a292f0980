"""Errors of PostgreSQL are reported as they are: access denied, missing tables, a query that takes too long."""

import pytest
import requests

from tests.world import World

_PATHS = ("/messages", f"/messages/{'0' * 8}-0000-0000-0000-{'0' * 12}", "/messages/export", "/dead-letters")


@pytest.fixture
def denied(ready: World) -> World:
    """A world whose API connects to PostgreSQL as a user without rights."""
    user = f"u{ready.topic}"
    ready.sql(f"CREATE USER {user}")
    ready.serve(database_url=ready.variables["DATABASE_URL"].replace("//backend@", f"//{user}@"))
    return ready


def test_denied_access_is_a_problem_that_says_so(denied: World) -> None:
    for path in (*_PATHS, "/messages/stream"):
        answer = requests.get(f"{denied.url}{path}", timeout=30)
        assert (answer.status_code, answer.json()["type"]) == (503, "/problems/unavailable"), path
        assert answer.json()["title"] == "PostgreSQL denies access"
    service = requests.get(f"{denied.url}/health/ready", timeout=30).json()["services"]["postgresql"]
    assert not service["ok"] and service["reason"].startswith("access denied: permission denied for table")
    for path in ("/stats", "/topics"):
        answer = requests.get(f"{denied.url}{path}", timeout=30)
        assert answer.status_code == 200
        assert "PostgreSQL: access denied" in answer.json()["problems"][0]
    assert not denied.programs[0].lines("request.failed")


def test_missing_tables_are_a_problem_that_names_init(world: World) -> None:
    program = world.serve()
    for path in _PATHS:
        answer = requests.get(f"{world.url}{path}", timeout=30)
        assert (answer.status_code, answer.json()["title"]) == (503, "Tables are missing"), path
        assert "run init" in answer.json()["detail"]
    service = requests.get(f"{world.url}/health/ready", timeout=30).json()["services"]["postgresql"]
    assert service["reason"] == "the tables are missing: run init"
    assert not program.lines("request.failed")
