#!/usr/bin/python3
"""A DNS server on 127.0.0.1:53 that knows one name: `app.example` is 127.0.0.1. All other names do not exist."""

import socket
import struct

A, NO_SUCH_NAME = 1, 3
KNOWN = b"\x03app\x07example\x00"

server = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
server.bind(("127.0.0.1", 53))
while True:
    query, client = server.recvfrom(512)
    # One question: labels, each behind its length, an empty one at the end; then type and class.
    end = query.index(b"\0", 12) + 5
    name, kind = query[12 : end - 4].lower(), struct.unpack("!H", query[end - 4 : end - 2])[0]
    answers = [b"\xc0\x0c" + struct.pack("!HHIH", A, 1, 60, 4) + bytes([127, 0, 0, 1])] if (name, kind) == (KNOWN, A) else []
    code = 0 if name == KNOWN else NO_SUCH_NAME
    head = query[:2] + struct.pack("!HHHHH", 0x8180 | code, 1, len(answers), 0, 0)
    server.sendto(head + query[12:end] + b"".join(answers), client)
