"""JSON values as strictly as PostgreSQL's jsonb takes them."""

from typing import Any

import orjson

from tasks.errors import BadRecord


def parse(value: bytes) -> Any:
    """The JSON value in `value`. Raises BadRecord: invalid_utf8, not_json, nul."""
    try:
        parsed = orjson.loads(value)
    except orjson.JSONDecodeError as error:
        raise BadRecord(*_why_not_json(value, error)) from None
    if b"\\u0000" in value and _holds_nul(parsed):
        raise BadRecord("nul", "PostgreSQL cannot store the character U+0000 in JSON")
    return parsed


def _why_not_json(value: bytes, error: orjson.JSONDecodeError) -> tuple[str, str]:
    try:
        value.decode()
    except UnicodeDecodeError as not_text:
        return "invalid_utf8", f"byte {not_text.start} is not UTF-8"
    return "not_json", str(error)


def _holds_nul(parsed: Any) -> bool:
    waiting = [parsed]  # a list instead of recursion: the value may be 1,024 levels deep
    while waiting:
        value = waiting.pop()
        if isinstance(value, str):
            if "\0" in value:
                return True
        elif isinstance(value, dict):
            waiting += value.keys()
            waiting += value.values()
        elif isinstance(value, list):
            waiting += value
    return False
