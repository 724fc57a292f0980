"""What the tests of the shop share: the plugin, a mail service, and the settings of the backend that tests start."""

from collections.abc import Iterator

import pytest

from shop.tests.mail_service import MailService

pytest_plugins = ["tasks.testing"]


@pytest.fixture(scope="session")
def mail_service() -> Iterator[MailService]:
    with MailService() as service:
        yield service


@pytest.fixture(scope="session")
def backend_settings(mail_service: MailService) -> dict[str, str]:
    return {"TASKS": "shop.tasks", "MAIL_URL": mail_service.url}
