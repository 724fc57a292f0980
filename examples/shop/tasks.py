"""What the shop does for its messages: TASKS=shop.tasks."""

from collections import Counter
from collections.abc import Sequence
from http import HTTPStatus
from urllib.error import HTTPError

from peewee import EXCLUDED

from shop import mail
from shop.models import Booking, PageViews, Paid, View
from tasks import Message, Reject, task


@task(on="order.paid", model=Paid, transaction=True)
def book(message: Message) -> None:
    """Book an order: committed together with the end of the run, so exactly once."""
    paid: Paid = message.payload
    if paid.amount <= 0:
        raise Reject(f"order {paid.order} has the amount {paid.amount}")
    Booking.create(order=paid.order, amount=paid.amount)


@task(on="order.paid", model=Paid, autoretry_for=(OSError,), max_retries=8, retry_backoff=2, time_limit=30)
def send_receipt(message: Message) -> None:
    """Send a receipt: at least once, and the mail service knows by the message's id what it has sent already."""
    paid: Paid = message.payload
    try:
        mail.send(paid.customer, f"We received {paid.amount} for order {paid.order}.", idempotency_key=message.id)
    except HTTPError as error:
        if error.code == HTTPStatus.UNPROCESSABLE_ENTITY:
            raise Reject(f"the mail service does not take the address {paid.customer}") from error
        raise


@task(on="page.viewed", model=View, batch=500, transaction=True)
def count_views(messages: Sequence[Message]) -> None:
    """Count views: one statement for up to 500 messages, each of which is counted exactly once."""
    counts = Counter(message.payload.page for message in messages)
    rows = [{"page": page, "views": views} for page, views in sorted(counts.items())]  # sorted: nobody deadlocks
    total = {PageViews.views: PageViews.views + EXCLUDED.views}
    PageViews.insert_many(rows).on_conflict(conflict_target=[PageViews.page], update=total).execute()
