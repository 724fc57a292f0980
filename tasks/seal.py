"""Seals what bridges and workers exchange through Redis, so that who can write there can forge nothing."""

import hmac
from collections.abc import Mapping
from typing import Any

import orjson

from tasks.config.settings import Settings

FIELD = "seal"


class Seal:
    """HMAC-SHA-256 (RFC 2104) of fields and records."""

    def __init__(self, key: str) -> None:
        """Whoever knows `key` can seal."""
        self._key = key.encode()

    def of(self, fields: Mapping[str, Any], packed: bytes = b"") -> str:
        """The seal of `fields`, which are JSON values, without a seal among them, and of records."""
        unsealed = {name: value for name, value in fields.items() if name != FIELD}
        made = hmac.new(self._key, orjson.dumps(unsealed, option=orjson.OPT_SORT_KEYS), "sha256")
        made.update(packed)
        return made.hexdigest()

    def fits(self, fields: Mapping[str, Any], packed: bytes = b"") -> bool:
        """Whether the seal among `fields` is theirs and of `packed`."""
        return hmac.compare_digest(str(fields.get(FIELD, "")).encode(), self.of(fields, packed).encode())


def of_deployment(settings: Settings) -> Seal:
    """The seal of this deployment's bridges and workers, who know the same PostgreSQL."""
    return Seal(settings.seal_key or settings.database_url)
