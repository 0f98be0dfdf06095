"""A server that sends everything back and writes down every frame that reaches it.

usage: websockets_server.py ADDRESS PORT
"""

import asyncio
import json
import sys

import frames
import websockets

ENDED = {}


def ended(name):
    """What a connection of this name has seen, once it is over."""
    return ENDED.setdefault(name, asyncio.get_running_loop().create_future())


async def serve(socket, path):
    name = path[1:]
    if name == "closes":
        await socket.close(4001, "the server has had enough")
        return
    if name.startswith("of/"):
        name = name[3:]
        await socket.send(json.dumps(await ended(name)))
        del ENDED[name]
        return
    if name == "pings":
        for size in (0, 1, 125):
            await asyncio.wait_for(await socket.ping(b"p" * size), 20)
        await socket.send("your turn")
    try:
        async for message in socket:
            if message == "in pieces":
                await socket.send(in_pieces())
            else:
                await socket.send(message)
    except websockets.ConnectionClosedError:
        pass
    ended(name).set_result({"frames": socket.seen, "code": socket.close_code, "reason": socket.close_reason})


async def in_pieces():
    for piece in ("", "one ", "two ", "", "three"):
        yield piece


async def main():
    options = {"create_protocol": frames.Server, "max_size": 1 << 40, "subprotocols": ["chat"], "ping_interval": None}
    async with websockets.serve(serve, sys.argv[1], int(sys.argv[2]), **options):
        await asyncio.Future()


asyncio.run(main())
