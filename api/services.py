"""The services of the application: one typed object, and how views get it."""

from collections.abc import Callable
from dataclasses import dataclass

from flask import Flask, current_app

from api.feed import Feed
from api.keys import Authorizer
from api.limits import Limits
from api.readiness import Readiness
from bridge.kafka.lag import Lags
from bridge.kafka.publisher import Publisher
from tasks.config.settings import Settings

_KEY = "services"


@dataclass(frozen=True)
class Services:
    """Everything that views use and that exists as long as the application."""

    settings: Settings
    publisher: Publisher
    lags: Lags
    feed: Feed
    limits: Limits
    authorizer: Authorizer
    readiness: Readiness
    serving: Callable[[], bool]  # False once the process has been asked to stop: long responses end then


def register(app: Flask, wired: Services) -> None:
    """Give `app` its services."""
    app.extensions[_KEY] = wired


def services() -> Services:
    """The services of the application that handles the current request."""
    wired: Services = current_app.extensions[_KEY]
    return wired
