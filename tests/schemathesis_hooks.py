"""What schemathesis has to be told: how a batch of lines is written."""

from typing import Any

import orjson
import schemathesis


@schemathesis.serializer("application/x-ndjson")
def lines(context: Any, value: Any) -> Any:
    """Lines as they are; what else it makes up, as one line of JSON."""
    return value.encode(errors="replace") if isinstance(value, str) else orjson.dumps(value, default=str)
