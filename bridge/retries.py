"""What to do with a batch that was not stored: the decisions of recovery. Pure."""

import random
from typing import Literal

from tasks.claims import Result

_FIRST_SECONDS = 0.1
_LONGEST_SECONDS = 2.0  # the cause may end at any time, and messages wait

_KILLS_OF_THE_GUILTY = 3  # once may be chance: the kernel, or a person, can kill any process

Verdict = Literal["done", "again", "split", "bury"]


def verdict(result: Result, records: int, kills: int) -> Verdict:
    """What becomes of a batch of `records` after `result`; `kills`: workers it ended, this one included.

    A batch that ended its worker is halved until the record that does it stands alone; that one is
    buried when it did so again and again. Any other failure passes by itself, so the batch is handed
    over again, without end.
    """
    if result.outcome == "stored":
        return "done"
    if result.outcome == "failed":
        return "again"
    if records > 1:
        return "split"
    return "bury" if kills >= _KILLS_OF_THE_GUILTY else "again"


def backoff(attempt: int, jitter: float | None = None) -> float:
    """Seconds to wait before the try after `attempt` (1 is the first): doubling, bounded, spread by half.

    `jitter` in [0, 1) stands for chance in tests. "Equal jitter" in the AWS Architecture Blog,
    "Exponential Backoff And Jitter" (2015).
    """
    longest = min(_FIRST_SECONDS * 2.0 ** min(attempt - 1, 10), _LONGEST_SECONDS)
    return longest / 2 * (1 + (random.random() if jitter is None else jitter))
