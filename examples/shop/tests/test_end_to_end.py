"""The tasks of the shop on a real backend: from HTTP and Kafka to their tables."""

import pytest

from shop.models import TABLES, Booking, PageViews
from shop.tasks import book, count_views, send_receipt
from shop.tests.mail_service import MailService
from tasks import database
from tasks.testing import Backend

_VIEWS = 90


@pytest.fixture(autouse=True)
def _tables(backend: Backend) -> None:
    database.create_tables(TABLES)


def test_a_paid_order_is_booked_once_and_its_receipt_is_retried(backend: Backend, mail_service: MailService) -> None:
    mail_service.failures["eve@example.com"] = [503]
    order = {"type": "order.paid", "order": 7, "customer": "eve@example.com", "amount": "20.50"}
    outcomes = backend.outcomes(backend.publish(order))
    assert {name: outcome.state for name, outcome in outcomes.items()} == {book.name: "done", send_receipt.name: "done"}
    assert [(booking.order, float(booking.amount)) for booking in Booking.select()] == [(7, 20.5)]
    first, second = mail_service.keys("eve@example.com")
    assert first == second


def test_an_order_without_an_amount_is_rejected(backend: Backend) -> None:
    outcomes = backend.outcomes(
        backend.publish({"type": "order.paid", "order": 8, "customer": "fay@example.com", "amount": 0})
    )
    assert (outcomes[book.name].state, outcomes[book.name].error) == ("failed", "Reject: order 8 has the amount 0")
    assert outcomes[send_receipt.name].state == "done"
    assert not Booking.select().where(Booking.order == 8)


def test_a_receipt_is_sent_once_more_on_demand(backend: Backend, mail_service: MailService) -> None:
    call = send_receipt.delay(order=7, customer="gil@example.com", amount="20.50")
    assert backend.outcomes(call)[send_receipt.name].state == "done"
    assert mail_service.keys("gil@example.com") == [str(call)]


def test_each_view_from_kafka_is_counted_once(backend: Backend) -> None:
    views = [{"type": "page.viewed", "page": f"/{number % 3}"} for number in range(_VIEWS)]
    for place in [backend.produce(view) for view in views]:
        assert backend.outcomes(place)[count_views.name].state == "done"
    assert [row.views for row in PageViews.select().order_by(PageViews.page)] == [_VIEWS // 3] * 3
