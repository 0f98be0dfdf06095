"""A client that waits until its WebSocket is closed, and prints the close codes that it and the server have got.

usage: websockets_until_closed.py URI PORT CA DIRECT: the URI over TLS at this port, DIRECT without the balancer
"""

import asyncio
import json
import ssl
import sys

import websockets

URI, PORT, CA, DIRECT = sys.argv[1:]


async def main():
    options = {"host": "127.0.0.1", "port": int(PORT), "server_hostname": "a.test"}
    options["ssl"] = ssl.create_default_context(cafile=CA)
    socket = await websockets.connect(URI + "/waits", subprotocols=["chat"], ping_interval=None, **options)
    await socket.send("hello " * 1_000)
    assert len(await socket.recv()) == 6_000
    print("open", socket.extensions[0].name, flush=True)
    await socket.wait_closed()
    print("client", socket.close_code, flush=True)
    async with websockets.connect(DIRECT + "/of/waits", subprotocols=["chat"]) as other:
        print("server", json.loads(await other.recv())["code"], flush=True)


asyncio.run(main())
