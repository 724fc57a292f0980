"""TLS in front of a server without it, like stunnel or HAProxy: for PostgreSQL and Valkey of the local stack."""

import asyncio
import contextlib
import ssl
import threading
from collections.abc import Mapping
from types import TracebackType

import trustme

_SSL_REQUEST_BYTES = 8


class Terminator:
    """Listens on one port for each certificate and hands on to `port`. A context manager; `ports` by name.

    `starttls`: clients ask in plain text for TLS first, as those of PostgreSQL do.
    """

    def __init__(self, port: int, certificates: Mapping[str, trustme.LeafCert], starttls: bool) -> None:
        self._port = port
        self._certificates = certificates
        self._starttls = starttls
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self.ports: dict[str, int] = {}

    def __enter__(self) -> "Terminator":
        self._thread.start()
        asyncio.run_coroutine_threadsafe(self._listen(), self._loop).result(10)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(10)

    async def _listen(self) -> None:
        for name, certificate in self._certificates.items():
            context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
            certificate.configure_cert(context)

            async def serve(
                reader: asyncio.StreamReader, writer: asyncio.StreamWriter, context: ssl.SSLContext = context
            ) -> None:
                with contextlib.suppress(OSError, asyncio.IncompleteReadError):
                    await self._serve(reader, writer, context)
                writer.close()

            at_once = None if self._starttls else context
            server = await asyncio.start_server(serve, "127.0.0.1", 0, ssl=at_once)
            self.ports[name] = server.sockets[0].getsockname()[1]

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, context: ssl.SSLContext) -> None:
        if self._starttls:
            await reader.readexactly(_SSL_REQUEST_BYTES)
            writer.write(b"S")
            await writer.start_tls(context)
        await splice(reader, writer, self._port)


async def splice(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, port: int) -> None:
    """Connect a client to the server on `port` of this machine until one of them ends."""
    server_reader, server_writer = await asyncio.open_connection("127.0.0.1", port)
    both = [asyncio.create_task(_pump(reader, server_writer)), asyncio.create_task(_pump(server_reader, writer))]
    await asyncio.wait(both, return_when=asyncio.FIRST_COMPLETED)
    for pump in both:
        pump.cancel()
    server_writer.close()


async def _pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with contextlib.suppress(OSError):
        while data := await reader.read(1 << 16):
            writer.write(data)
            await writer.drain()
