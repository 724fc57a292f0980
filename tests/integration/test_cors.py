"""Browsers on other origins: preflights need no key, requests do, and origins are compared exactly."""

import pytest
import requests

from tests.world import World

_SHOP = "https://shop.example"
_KEYS = "read+write:a-long-secret"
_PREFLIGHT = {
    "Access-Control-Request-Method": "POST",
    "Access-Control-Request-Headers": "authorization,content-type",
}


def _preflight(world: World, origin: str, path: str = "/messages") -> requests.Response:
    return requests.options(f"{world.url}{path}", headers={**_PREFLIGHT, "Origin": origin}, timeout=30)


def test_a_browser_may_use_an_api_that_has_keys(ready: World) -> None:
    ready.serve(api_keys=_KEYS, cors_origins=_SHOP)
    for path in ("/messages", "/messages/batch", "/messages/stream", "/stats", "/dead-letters", "/metrics"):
        preflight = _preflight(ready, _SHOP, path)
        assert preflight.status_code == 200, path
        assert preflight.headers["Access-Control-Allow-Origin"] == _SHOP
        assert "POST" in preflight.headers["Access-Control-Allow-Methods"]
        assert preflight.headers["Access-Control-Allow-Headers"] == "authorization, content-type"
    own = {"Origin": _SHOP, "Authorization": "Bearer a-long-secret"}
    accepted = requests.post(f"{ready.url}/messages", json={"n": 1}, headers=own, timeout=30)
    assert (accepted.status_code, accepted.headers["Access-Control-Allow-Origin"]) == (202, _SHOP)
    refused = requests.post(f"{ready.url}/messages", json={"n": 1}, headers={"Origin": _SHOP}, timeout=30)
    assert (refused.status_code, refused.headers["Access-Control-Allow-Origin"]) == (401, _SHOP)
    assert refused.json()["type"] == "/problems/unauthorized"


def test_an_origin_is_allowed_exactly(ready: World) -> None:
    ready.serve(cors_origins=f"{_SHOP},http://[::1]:3000,http://localhost:3000")
    for origin in (_SHOP, "http://[::1]:3000", "http://localhost:3000"):
        assert _preflight(ready, origin).headers["Access-Control-Allow-Origin"] == origin
    for origin in (f"{_SHOP}.evil", "https://shopXexample", f"{_SHOP}:8443", "http://shop.example", "http://::1:3000"):
        assert "Access-Control-Allow-Origin" not in _preflight(ready, origin).headers, origin
    for origin in ("http://1:3000", "null", f"x{_SHOP}", f"{_SHOP}/"):
        assert "Access-Control-Allow-Origin" not in _preflight(ready, origin).headers, origin


def test_an_asterisk_allows_every_origin(ready: World) -> None:
    ready.serve(cors_origins="*")
    for origin in (_SHOP, "https://anybody.example"):
        assert _preflight(ready, origin).headers["Access-Control-Allow-Origin"] in (origin, "*")


@pytest.mark.parametrize("origin", ["https://*.shop.example", f"{_SHOP}/"])
def test_what_is_not_an_origin_ends_serve(world: World, origin: str) -> None:
    done = world.run("serve", f"--cors-origins={origin}")
    assert done.returncode == 2
    assert f"{origin!r} is not an origin" in done.stderr + done.stdout
