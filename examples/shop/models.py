"""What the shop receives, and the tables that it keeps beside those of the backend.

The tables are Peewee models on `tasks.database`, so what a task with `transaction=True` writes to them is committed
together with the end of its run. `python -m shop` creates them.
"""

from decimal import Decimal

import msgspec
from peewee import BigIntegerField, DecimalField, Model, TextField

from tasks import database


class Paid(msgspec.Struct):
    """The payload of `order.paid`."""

    order: int
    customer: str
    amount: Decimal


class View(msgspec.Struct):
    """The payload of `page.viewed`."""

    page: str


class Booking(Model):
    """An order that was paid."""

    order = BigIntegerField(primary_key=True)
    amount = DecimalField(max_digits=12, decimal_places=2)

    class Meta:
        """In which database it is."""

        database = database
        table_name = "shop_booking"


class PageViews(Model):
    """How often a page was viewed."""

    page = TextField(primary_key=True)
    views = BigIntegerField()

    class Meta:
        """In which database it is."""

        database = database
        table_name = "shop_page_views"


TABLES = (Booking, PageViews)
