"""A function that hangs in a thread ends its process, and what ends in time does not."""

import subprocess
import sys
import threading

from tasks.declaration import Message, Options, Task
from tasks.errors import EXIT_FAILED
from tasks.worker import attempt
from tasks.worker.time_limits import GRACE_SECONDS, OfThreads
from tests.programs import ROOT

_HANGS = f"""
import threading
from tasks.worker.time_limits import OfThreads
limits = OfThreads()
called = threading.Event()
def call():
    limits.begin("a", -{GRACE_SECONDS} - 1)
    called.set()
    threading.Event().wait()
threading.Thread(target=call, daemon=True).start()
called.wait()
limits.check()
"""


def test_a_function_that_hangs_in_a_thread_ends_the_process() -> None:
    done = subprocess.run([sys.executable, "-c", _HANGS], cwd=ROOT, timeout=60, capture_output=True, text=True)
    assert (done.returncode, "run.stuck task=a" in done.stdout) == (EXIT_FAILED, True), done


def test_functions_that_have_ended_are_not_watched() -> None:
    limits = OfThreads()
    limits.begin("a", -GRACE_SECONDS - 1)
    limits.end()
    limits.check()


def test_a_thread_that_is_to_exit_is_a_failed_run() -> None:
    def leave(message: Message) -> None:
        sys.exit(3)

    message = Message(
        id="1", type=None, key=None, topic="t", partition=0, offset=0, time=None, headers={}, payload=None
    )
    errors: list[Exception | None] = []
    attempt.prepare_process(OfThreads())
    thread = threading.Thread(target=lambda: errors.append(attempt.call(Task("t", leave, Options(on="*")), [message])))
    thread.start()
    thread.join()
    assert [repr(error) for error in errors] == ["RuntimeError('it raised SystemExit')"]
