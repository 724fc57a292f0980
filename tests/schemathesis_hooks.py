"""What schemathesis has to know: how NDJSON is written, and that it need not wait long."""

from typing import Any

import orjson
import schemathesis


@schemathesis.serializer("application/x-ndjson")
def lines(context: Any, value: Any) -> Any:
    """Lines as they are; what else it makes up, as one line of JSON."""
    return value.encode(errors="replace") if isinstance(value, str) else orjson.dumps(value, default=str)


@schemathesis.hook
def map_query(context: Any, query: Any) -> Any:
    """Wait a moment where it would wait for ten seconds: most ids it makes up are never stored."""
    wait = query.get("wait") if query else None
    if isinstance(wait, int | float) and 0.1 < wait <= 10:
        return {**query, "wait": 0.1}
    return query
