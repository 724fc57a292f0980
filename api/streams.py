"""Bodies that are read piece by piece while their client receives them, without holding a connection for it."""

from collections.abc import Iterable, Iterator

from api.postgresql import Connections

SENT_AT_ONCE = 64_000  # that a slow client must read in time, or it is disconnected


def read(pieces: Iterator[bytes], connections: Connections) -> Iterator[bytes]:
    """The same pieces, each read in a transaction of its own. Raises what `Connections.transaction` raises."""
    while True:
        with connections.transaction():
            piece = next(pieces, None)
        if piece is None:
            return
        yield piece


def parts(pieces: Iterable[bytes]) -> Iterator[bytes]:
    """The same bytes in parts that a slow client can read in time: small pieces are joined, large ones divided."""
    waiting = bytearray()
    for piece in pieces:
        waiting += piece
        if len(waiting) < SENT_AT_ONCE:
            continue
        for start in range(0, len(waiting), SENT_AT_ONCE):
            yield bytes(waiting[start : start + SENT_AT_ONCE])
        waiting.clear()
    yield bytes(waiting)
