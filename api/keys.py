"""What an API key allows. Pure."""

import hmac
from typing import Literal

from tasks.config.parsers import ApiKey

Scope = Literal["read", "write", "operate"]


class Authorizer:
    """Decides what an API key allows; without any keys everything is allowed."""

    def __init__(self, keys: tuple[ApiKey, ...]) -> None:
        self._keys = keys

    def allows(self, secret: str | None, scope: Scope) -> bool | None:
        """Whether the key has the scope; None for an unknown key. Compares every key, in constant time."""
        if not self._keys:
            return True
        raw = (secret or "").encode()
        matching = [key for key in self._keys if hmac.compare_digest(key.secret.encode(), raw)]
        return any(scope in key.scopes for key in matching) if matching else None
