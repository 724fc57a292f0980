"""A small shop: it books orders, sends receipts, and counts which pages are viewed."""
