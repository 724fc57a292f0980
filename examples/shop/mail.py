"""Mails of the shop, sent by a mail service over HTTP."""

import logging
import os
import urllib.request

import orjson

_TIMEOUT_SECONDS = 10


def send(recipient: str, text: str, idempotency_key: str) -> None:
    """Send a mail; the service sends nothing for a key that it has seen. Raises OSError.

    Without MAIL_URL, the address of the service, the mail is only logged.
    """
    url = os.environ.get("MAIL_URL")
    if url is None:
        logging.getLogger(__name__).info("mail to %s: %s", recipient, text)
        return
    headers = {"Content-Type": "application/json", "Idempotency-Key": idempotency_key}
    request = urllib.request.Request(url, orjson.dumps({"to": recipient, "text": text}), headers)
    urllib.request.urlopen(request, timeout=_TIMEOUT_SECONDS).close()
