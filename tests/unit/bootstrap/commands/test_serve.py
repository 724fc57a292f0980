"""An address that cannot be listened on is one sentence with the settings to look at."""

import socket

import pytest

from bootstrap.commands import serve
from tasks.config import settings
from tasks.errors import ConfigurationError


def test_a_port_in_use_or_an_address_of_nobody_names_the_settings() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        with pytest.raises(ConfigurationError, match=r"--port / PORT\): Address already in use$"):
            serve.run(settings.load({"address": "127.0.0.1", "port": port}, {}), {})
    with pytest.raises(ConfigurationError, match="ADDRESS"):
        serve.run(settings.load({"address": "192.0.2.1"}, {}), {})
