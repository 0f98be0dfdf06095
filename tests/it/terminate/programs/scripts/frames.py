"""Both ends of a WebSocket, which write down every frame that reaches them."""

import hashlib

import websockets


class Seen:
    def __init__(self, *arguments, **options):
        self.seen = []
        super().__init__(*arguments, **options)

    async def read_frame(self, max_size):
        frame = await super().read_frame(max_size)
        text = hashlib.sha256(frame.data).hexdigest()[:16]
        self.seen.append([int(frame.opcode), frame.fin, len(frame.data), text])
        return frame


class Client(Seen, websockets.WebSocketClientProtocol):
    pass


class Server(Seen, websockets.WebSocketServerProtocol):
    pass
