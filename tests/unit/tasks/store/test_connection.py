"""What a process that was forked does with the connections of its parent."""

import threading

from tasks.store.connection import Database


def test_a_forked_process_waits_for_no_thread_of_its_parent() -> None:
    database = Database("postgresql://127.0.0.1/none")
    with database._lock, database._pool_lock:  # as of a thread that was connecting at the time of the fork
        forgets = threading.Thread(target=database.forget, daemon=True)
        forgets.start()
        forgets.join(5)
        assert not forgets.is_alive()
