"""PostgreSQL: the connection, the tables, and the queries of each table."""
