"""Conversations behind a handshake: records that are too long, empty, or of another kind, and what ALPN agreed on.

tlslite-ng makes the handshakes. Each conversation is a name, what is done in the session, and the answers that are
right: "served", or the alert that ends the session."""

import socket

from tlslite.api import HandshakeSettings, TLSConnection
from tlslite.errors import TLSAbruptCloseError, TLSRemoteAlert
from tlslite.messages import Message

from wire import ALERT, ALERTS, CCS, DATA, HANDSHAKE, PATIENCE_S, message, record

TLS12, TLS13 = (3, 3), (3, 4)
LIMIT = 1 << 14
GET = b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n"


class Session:
    """A connection with a complete handshake."""

    def __init__(self, address, version, alpn=None):
        self.socket = socket.create_connection(address, PATIENCE_S)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        settings = HandshakeSettings()
        settings.minVersion = settings.maxVersion = version
        self.tls = TLSConnection(self.socket)
        self.tls.handshakeClientCert(settings=settings, serverName="localhost", alpn=alpn)

    def send(self, payload, kind=DATA, padding=0):
        """One record, however long."""
        layer = self.tls._recordLayer
        layer.padding_cb = (lambda *_: bytearray(padding)) if padding else None
        for _ in layer.sendRecord(Message(kind, bytearray(payload))):
            pass

    def post(self, *sizes, padding=0):
        """A request with a body in records of these sizes."""
        self.send(b"POST / HTTP/1.1\r\nHost: localhost\r\nContent-Length: %d\r\n\r\n" % sum(sizes))
        for size in sizes:
            self.send(b"x" * size, padding=padding)

    def answer(self):
        try:
            data = bytes(self.tls.read(max=1 << 16, min=12))
            return "served" if data.startswith(b"HTTP/1.1 200") else f"data {data[:30]}"
        except TLSRemoteAlert as error:
            return ALERTS.get(error.description, f"alert {error.description}")
        except TLSAbruptCloseError:
            return "closed without a word"
        except ConnectionResetError:
            return "reset"
        except TimeoutError:
            return "silence"

    def close(self):
        self.socket.close()


SERVED, UNEXPECTED, OVERFLOW = ["served"], ["unexpected_message"], ["record_overflow"]
BAD = ["bad_record_mac"] + UNEXPECTED


def record_limits():
    for word, version in (("tls1.2", TLS12), ("tls1.3", TLS13)):
        for size in (1, 2, 255, 256, 4096, 8192, LIMIT - 1, LIMIT):
            yield f"{word} data of {size}", version, lambda s, size=size: s.post(size), SERVED
        for more in (1, 2, 3, 4, 15, 16, 17, 128, 254, 255, 256, 1024, 2048):
            right = OVERFLOW if version == TLS12 or more < 256 else OVERFLOW + BAD
            yield f"{word} data of 2^14+{more}", version, lambda s, more=more: s.post(LIMIT + more), right
        for count in (1, 2, 8):
            yield f"{word} {count} empty records of data", version, (
                lambda s, count=count: ([s.send(b"") for _ in range(count)], s.send(GET))), SERVED
        for size in (1, 100, 1000):
            yield f"{word} a body in records of {size}", version, lambda s, size=size: s.post(*[size] * 16), SERVED
    for size, padding in ((1, 1), (1, 255), (100, 1000), (1, LIMIT - 1), (LIMIT - 1, 1)):
        yield f"tls1.3 data of {size} and padding of {padding}", TLS13, (
            lambda s, size=size, padding=padding: s.post(size, padding=padding)), SERVED
    for size, padding in ((LIMIT, 1), (LIMIT - 100, 101), (1, LIMIT)):
        yield f"tls1.3 data of {size} and padding of {padding}", TLS13, (
            lambda s, size=size, padding=padding: s.post(size, padding=padding)), OVERFLOW


def record_kinds():
    for word, version in (("tls1.2", TLS12), ("tls1.3", TLS13)):
        for kind in (0, 1, 19, 25, 26, 64, 128, 255):
            if kind:
                yield f"{word} a record of type {kind}", version, lambda s, kind=kind: s.send(b"x", kind), UNEXPECTED
        yield f"{word} an empty handshake record", version, lambda s: s.send(b"", HANDSHAKE), UNEXPECTED
        yield f"{word} an empty alert", version, lambda s: s.send(b"", ALERT), UNEXPECTED + ["decode_error"]
        yield f"{word} a change of cipher", version, lambda s: s.send(b"\1", CCS), UNEXPECTED
        yield f"{word} a plaintext record", version, lambda s: s.socket.sendall(record(b"x" * 32, DATA)), BAD
        yield f"{word} bytes that are no record", version, (
            lambda s: s.socket.sendall(b"GET / HTTP/1.1\r\n\r\n" * 8)), BAD + OVERFLOW + ["decode_error", "protocol_version"]
        for kind in (2, 4, 8, 11, 12, 13, 14, 15, 16, 20, 254):
            yield f"{word} a message of type {kind}", version, (
                lambda s, kind=kind: s.send(message(bytes(4), kind), HANDSHAKE)), UNEXPECTED + ["decode_error"]
    yield "tls1.3 only padding", TLS13, lambda s: s.send(b"", 0), UNEXPECTED
    for update in (0, 1):
        yield f"tls1.3 a key update {update}", TLS13, (
            lambda s, update=update: ([_ for _ in s.tls.send_keyupdate_request(update)], s.send(GET))), SERVED
    for update in (2, 3, 255):
        yield f"tls1.3 a key update {update}", TLS13, (
            lambda s, update=update: s.send(message(bytes([update]), 24), HANDSHAKE)), ["illegal_parameter"]
    for length in (0, 2, 3):
        yield f"tls1.3 a key update of {length} bytes", TLS13, (
            lambda s, length=length: s.send(message(bytes(length), 24), HANDSHAKE)), ["decode_error"]


def agreed():
    for word, version in (("tls1.2", TLS12), ("tls1.3", TLS13)):
        for offered, chosen in (([], None), ([b"http/1.1"], b"http/1.1"), ([b"http/1.0"], b"http/1.0"),
                                ([b"http/1.0", b"http/1.1"], b"http/1.1"), ([b"h2", b"http/1.0"], b"http/1.0"),
                                ([b"h2", b"http/1.1"], b"http/1.1")):
            def talk(s, chosen=chosen):
                found = s.tls.session.appProto
                assert (bytes(found) if found else None) == chosen, f"agreed on {found}"
                version = b"1.0" if chosen == b"http/1.0" else b"1.1"
                s.send(GET.replace(b"1.1", version))
            yield f"{word} {offered}", version, talk, SERVED, offered
        for offered in ([b"h2"], [b"http/1."], [b"http/1.12"], [b"HTTP/1.1"], [b"http/1.1\0"], [b"\0"], [b"http/0.9"],
                        [b"x%d" % n for n in range(256)]):
            yield f"{word} {offered[:1]} of {len(offered)}", version, lambda s: None, ["no_application_protocol"], offered


GROUPS_OF_SESSIONS = [record_limits, record_kinds, agreed]
