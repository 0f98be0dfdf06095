"""A client that does what the protocol allows and prints everything that it and the server have seen of it.

usage: websockets_client.py URI [PORT CA]: PORT and CA if the host of the URI is to be looked for there, over TLS
"""

import asyncio
import json
import random
import ssl
import sys

import frames
import websockets
from websockets.extensions.permessage_deflate import ClientPerMessageDeflateFactory

URI = sys.argv[1]
MIB = 1 << 20


def connect(path, **options):
    if len(sys.argv) > 2:
        options |= {"host": "127.0.0.1", "port": int(sys.argv[2]), "server_hostname": "a.test"}
        options["ssl"] = ssl.create_default_context(cafile=sys.argv[3])
    # What compression comes to depends on how much reaches it at once, so it is on only where it is looked at.
    options = {"compression": None, "max_size": None, "ping_interval": None} | options
    return websockets.connect(URI + path, create_protocol=frames.Client, subprotocols=["chat"], **options)


def tell(what, *facts):
    print(what, *map(json.dumps, facts), flush=True)


async def tell_all(name, socket):
    """All frames of a connection that is over, from both ends."""
    tell(name, "client", socket.seen, socket.close_code, socket.close_reason)
    async with connect(f"/of/{name}") as other:
        tell(name, "server", json.loads(await other.recv()))


async def echoes(name, messages, **options):
    async with connect(f"/{name}", **options) as socket:
        tell(name, "agreed", socket.subprotocol, [repr(extension) for extension in socket.extensions])
        for message in messages:
            await socket.send(message)
            whole = message if isinstance(message, (str, bytes)) else type(message[0])().join(message)
            assert await socket.recv() == whole, name
        await socket.close(4000, "bye, \u00fc")
    await tell_all(name, socket)


async def main():
    noise = random.Random(7)
    lengths = (0, 1, 125, 126, 65_535, 65_536, MIB, 16 * MIB)
    await echoes("binary", [noise.randbytes(length) for length in lengths])
    await echoes("text", ["", "a", "\u00fc" * 100, "\U0001f40c" * 50_000])
    await echoes("fragments", [["a", "", "b" * 100_000, "c"], [noise.randbytes(70_000) for _ in range(20)]])
    deflate = [ClientPerMessageDeflateFactory(server_max_window_bits=12, client_max_window_bits=12)]
    await echoes("deflate", ["again and again " * 10_000, b"\0" * MIB, ["x" * 1000] * 5], extensions=deflate)
    await echoes("alone", ["again and again " * 1_000] * 2, extensions=[
        ClientPerMessageDeflateFactory(server_no_context_takeover=True, client_no_context_takeover=True)])

    async with connect("/pieces") as socket:
        await socket.send("in pieces")
        assert await socket.recv() == "one two three"
    await tell_all("pieces", socket)

    # First the server pings, then the client; a pong that nobody asked for is nothing.
    async with connect("/pings") as socket:
        assert await socket.recv() == "your turn"
        await socket.pong(b"unasked")
        pongs = [await socket.ping(bytes([number]) * number) for number in (0, 1, 125)]
        await asyncio.wait_for(asyncio.gather(*pongs), 20)
        await socket.send("after")
        assert await socket.recv() == "after"
    await tell_all("pings", socket)

    async with connect("/closes") as socket:
        await socket.wait_closed()
    tell("closes", socket.seen, socket.close_code, socket.close_reason)

    # An end without goodbye is none with it.
    socket = await connect("/breaks")
    await socket.send("last words")
    assert await socket.recv() == "last words"
    socket.transport.abort()
    await socket.wait_closed()
    await tell_all("breaks", socket)


asyncio.run(main())
