"""A TCP proxy to a server that is some milliseconds away: half of the round trip in each direction."""

import argparse
import asyncio
from functools import partial

_PIECE_BYTES = 1 << 18


def main() -> None:
    """Forward until the process is ended; prints the port first."""
    parser = argparse.ArgumentParser(prog="bench.slow_link", description=__doc__)
    parser.add_argument("port", type=int, help="that of the server, on this host")
    parser.add_argument("milliseconds", type=float, help="a round trip")
    options = parser.parse_args()
    asyncio.run(_serve(options.port, options.milliseconds / 2000))


async def _serve(port: int, seconds: float) -> None:
    server = await asyncio.start_server(partial(_connect, port, seconds), "127.0.0.1", 0)
    print(server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()


async def _connect(
    port: int, seconds: float, client_reader: asyncio.StreamReader, client_writer: asyncio.StreamWriter
) -> None:
    server_reader, server_writer = await asyncio.open_connection("127.0.0.1", port)
    await asyncio.gather(
        _forward(client_reader, server_writer, seconds), _forward(server_reader, client_writer, seconds)
    )


async def _forward(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, seconds: float) -> None:
    loop = asyncio.get_running_loop()
    try:
        while piece := await reader.read(_PIECE_BYTES):
            loop.call_later(seconds, writer.write, piece)
    except ConnectionError:
        pass
    loop.call_later(seconds, writer.close)


if __name__ == "__main__":
    main()
