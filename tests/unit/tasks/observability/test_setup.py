"""A process does not go on without one of its threads."""

import subprocess
import sys

from tasks.errors import EXIT_FAILED

_PROGRAM = """
import threading
from tasks.observability import setup

def fail():
    raise ValueError("unexpected")

setup.exit_if_a_thread_fails()
threading.Thread(target=fail, name="of-a-test").start()
threading.Event().wait(60)
"""


def test_a_thread_that_fails_ends_the_process_with_a_log_line() -> None:
    ended = subprocess.run([sys.executable, "-c", _PROGRAM], stdout=subprocess.PIPE, text=True, timeout=50)
    assert ended.returncode == EXIT_FAILED
    assert "thread.failed thread=of-a-test" in ended.stdout
    assert "ValueError: unexpected" in ended.stdout
