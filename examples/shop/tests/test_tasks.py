"""The tasks of the shop on messages in memory. Its tables are in SQLite, and no server is needed but for mails."""

from collections.abc import Iterator
from decimal import Decimal

import pytest
from peewee import SqliteDatabase

from shop.models import TABLES, Booking, PageViews, Paid
from shop.tasks import book, count_views, send_receipt
from shop.tests.mail_service import MailService
from tasks import Reject
from tasks.testing import message, run_task


@pytest.fixture(autouse=True)
def _tables() -> Iterator[None]:
    database = SqliteDatabase(":memory:")
    with database.bind_ctx(TABLES):
        database.create_tables(TABLES)
        yield
    database.close()


@pytest.fixture
def mails(mail_service: MailService, monkeypatch: pytest.MonkeyPatch) -> MailService:
    monkeypatch.setenv("MAIL_URL", mail_service.url)
    return mail_service


def _paid(**changed: object) -> dict[str, object]:
    return {"type": "order.paid", "order": 7, "customer": "ada@example.com", "amount": "20.50", **changed}


def test_a_paid_order_is_booked() -> None:
    assert run_task(book, message(_paid())).state == "done"
    assert Booking.get_by_id(7).amount == Decimal("20.50")


def test_a_task_is_a_function() -> None:
    with pytest.raises(Reject, match="order 7 has the amount 0"):
        book(message(Paid(7, "ada@example.com", Decimal(0))))


@pytest.mark.parametrize(("changed", "error"), [({"amount": 0}, "the amount 0"), ({"amount": None}, r"\$.amount")])
def test_an_order_without_an_amount_fails_at_once(changed: dict[str, object], error: str) -> None:
    outcome = run_task(book, message(_paid(**changed)))
    assert outcome.state == "failed"
    assert error.replace("\\", "") in outcome.error


def test_the_mail_service_is_asked_again_with_the_same_key(mails: MailService) -> None:
    mails.failures["bob@example.com"] = [503]
    order = _paid(customer="bob@example.com")
    first = run_task(send_receipt, message(order, id="5f0a7bc2-9e0e-4a3c-8f4e-3c0b9c1d2e3f"))
    assert (first.state, first.attempt, first.error) == (
        "retrying",
        1,
        "HTTPError: HTTP Error 503: Service Unavailable",
    )
    second = run_task(send_receipt, message(order, id="5f0a7bc2-9e0e-4a3c-8f4e-3c0b9c1d2e3f", attempt=2))
    assert (second.state, second.attempt) == ("done", 2)
    assert mails.keys("bob@example.com") == ["5f0a7bc2-9e0e-4a3c-8f4e-3c0b9c1d2e3f"] * 2


def test_a_receipt_is_given_up_after_nine_attempts(mails: MailService) -> None:
    mails.failures["cyd@example.com"] = [500, 500]
    assert run_task(send_receipt, message(_paid(customer="cyd@example.com"), attempt=8)).state == "retrying"
    assert run_task(send_receipt, message(_paid(customer="cyd@example.com"), attempt=9)).state == "failed"


def test_an_address_that_does_not_exist_is_rejected(mails: MailService) -> None:
    mails.failures["nobody"] = [422]
    outcome = run_task(send_receipt, message(_paid(customer="nobody")))
    assert (outcome.state, outcome.error) == ("failed", "Reject: the mail service does not take the address nobody")


def test_views_are_counted_without_those_that_do_not_fit() -> None:
    views = [message({"type": "page.viewed", "page": page}) for page in ("/", "/cart", "/")]
    misfit = message({"type": "page.viewed", "page": 7})
    assert [outcome.state for outcome in run_task(count_views, [*views, misfit])] == ["done"] * 3 + ["failed"]
    run_task(count_views, views[:1])
    assert {row.page: row.views for row in PageViews.select()} == {"/": 3, "/cart": 1}
