"""What to do with a batch after an attempt: the decisions of recovery. Pure."""

import random
from typing import Literal

from tasks.claim_check import Result

_FIRST_SECONDS = 0.1
_LONGEST_SECONDS = 2.0  # the cause may end at any time, and messages wait

_KILLS_BEFORE_DEAD_LETTER = 3  # one may be chance: the kernel, or a person, can kill any process

Decision = Literal["done", "retry", "split", "dead_letter"]


def decide(result: Result, records: int, kills: int) -> Decision:
    """What happens to a batch of `records` after `result`; `kills` counts the workers it killed, this one included.

    A batch that killed its worker is split until the record that does it is alone; that record is dead-lettered after
    it did so again. Every other failure is temporary, so the batch is redelivered without limit.
    """
    if result.outcome == "stored":
        return "done"
    if result.outcome == "failed":
        return "retry"
    if records > 1:
        return "split"
    return "dead_letter" if kills >= _KILLS_BEFORE_DEAD_LETTER else "retry"


def backoff(attempt: int, jitter: float | None = None) -> float:
    """Seconds to wait before the attempt after `attempt` (1 is the first): doubling, bounded, with jitter.

    `jitter` in [0, 1) replaces chance in tests. This is "Equal Jitter" of the AWS Architecture Blog,
    "Exponential Backoff And Jitter" (2015).
    """
    longest = min(_FIRST_SECONDS * 2.0 ** min(attempt - 1, 10), _LONGEST_SECONDS)
    return longest / 2 * (1 + (random.random() if jitter is None else jitter))
