"""`python -m shop`: creates the shop's tables where DATABASE_URL points, if they are missing."""

import os

from shop.models import TABLES
from tasks import database

if __name__ == "__main__":
    database.init(os.environ["DATABASE_URL"])
    with database.connection_context():
        database.create_tables(TABLES)
