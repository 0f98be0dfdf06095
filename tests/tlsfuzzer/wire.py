"""Bytes of TLS before encryption: records, handshake messages, hellos, and what a server says first.

Makes no handshake. A hello is built by hand, so that each of its lengths can be wrong."""

import socket

CCS, ALERT, HANDSHAKE, DATA = 20, 21, 22, 23
CLIENT_HELLO, SERVER_HELLO = 1, 2
PATIENCE_S = 15

# Alerts by their numbers on the wire (RFC 8446 section 6).
ALERTS = {
    0: "close_notify", 10: "unexpected_message", 20: "bad_record_mac", 22: "record_overflow", 40: "handshake_failure",
    42: "bad_certificate", 47: "illegal_parameter", 48: "unknown_ca", 49: "access_denied", 50: "decode_error",
    51: "decrypt_error", 70: "protocol_version", 71: "insufficient_security", 80: "internal_error",
    86: "inappropriate_fallback", 100: "no_renegotiation", 109: "missing_extension", 110: "unsupported_extension",
    112: "unrecognized_name", 116: "certificate_required", 120: "no_application_protocol",
}

SNI, GROUPS, FORMATS, SIGNATURES, ALPN, PADDING, EMS, TICKET = 0, 10, 11, 13, 16, 21, 23, 35
VERSIONS, PSK_MODES, SIGNATURES_CERT, KEY_SHARE, RENEGOTIATION = 43, 45, 50, 51, 0xFF01

TLS13_SUITES = [0x1301, 0x1302, 0x1303]
TLS12_SUITES = [0xC02B, 0xC02C, 0xCCA9, 0xC02F, 0xC030, 0xCCA8]  # ECDHE with ECDSA, then with RSA


def u8(data):
    return bytes([len(data)]) + data


def u16(data):
    return len(data).to_bytes(2, "big") + data


def words(numbers):
    return b"".join(number.to_bytes(2, "big") for number in numbers)


def record(payload, kind=HANDSHAKE, version=b"\x03\x01"):
    return bytes([kind]) + version + u16(payload)


def records(message, size=1 << 14):
    return b"".join(record(message[at:at + size]) for at in range(0, len(message), size))


def message(body, kind=CLIENT_HELLO, length=None):
    return bytes([kind]) + (len(body) if length is None else length).to_bytes(3, "big") + body


def names(*hosts, kind=0):
    return u16(b"".join(bytes([kind]) + u16(host) for host in hosts))


def protocols(*offered):
    return u16(b"".join(u8(name) for name in offered))


# A point of X25519 that any server can use: 9, the base point.
SHARE = u16(words([29]) + u16(b"\x09" + bytes(31)))

COMMON = [
    (SNI, names(b"localhost")),
    (GROUPS, u16(words([29, 23]))),
    (FORMATS, u8(b"\0")),
    (SIGNATURES, u16(words([0x0403, 0x0804, 0x0805, 0x0401, 0x0501, 0x0601]))),
    (EMS, b""),
    (RENEGOTIATION, u8(b"")),
]
MODERN = [(VERSIONS, u8(words([0x0304]))), (PSK_MODES, u8(b"\1")), (KEY_SHARE, SHARE)]


class Hello:
    """A ClientHello that a server of TLS 1.2 or 1.3 accepts, unless it is changed."""

    def __init__(self, modern=False, **changes):
        self.version = b"\x03\x03"
        self.session = bytes(32) if modern else b""
        self.suites = words(TLS13_SUITES if modern else TLS12_SUITES)
        self.compression = b"\0"
        self.extensions = list(COMMON + (MODERN if modern else []))
        vars(self).update(changes)

    def has(self, kind, body):
        """The same with this extension, in its old place if there was one."""
        at = [known for known, _ in self.extensions].index(kind) if self.get(kind) is not None else None
        extensions = list(self.extensions)
        if at is None:
            extensions.append((kind, body))
        else:
            extensions[at] = (kind, body)
        return self.but(extensions=extensions)

    def but(self, **changes):
        other = Hello()
        vars(other).update(vars(self) | changes)
        return other

    def get(self, kind):
        return next((body for known, body in self.extensions if known == kind), None)

    def body(self, with_extensions=True):
        extensions = b"".join(words([kind]) + u16(body) for kind, body in self.extensions)
        fixed = self.version + b"\x5a" * 32 + u8(self.session) + u16(self.suites) + u8(self.compression)
        return fixed + (u16(extensions) if with_extensions else b"")

    def message(self):
        return message(self.body())

    def wire(self, size=1 << 14):
        return records(self.message(), size)

    def padded_to(self, length):
        """The same with a padding extension that makes the message this long, header included."""
        return self.has(PADDING, bytes(length - len(self.has(PADDING, b"").message())))


class Line:
    """A TCP connection to the listener."""

    def __init__(self, address):
        self.socket = socket.create_connection(address, PATIENCE_S)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.rest = b""

    def send(self, data):
        try:
            self.socket.sendall(data)
        except (BrokenPipeError, ConnectionResetError):
            pass  # The answer says why.

    def take(self, length):
        while len(self.rest) < length:
            piece = self.socket.recv(65536)
            if not piece:
                return None
            self.rest += piece
        taken, self.rest = self.rest[:length], self.rest[length:]
        return taken

    def close(self):
        self.socket.close()

    def answer(self):
        """What the server says first: "hello", the name of an alert that ends the connection, or what went wrong."""
        try:
            header = self.take(5)
            if header is None:
                return "closed without a word"
            payload = self.take(int.from_bytes(header[3:5], "big"))
            if header[0] == HANDSHAKE and payload:
                return "hello" if payload[0] == SERVER_HELLO else f"message {payload[0]}"
            if header[0] != ALERT or payload is None or len(payload) != 2 or payload[0] != 2:
                return f"record {header.hex()} {(payload or b'').hex()}"
            said = ALERTS.get(payload[1], f"alert {payload[1]}")
            return said if self.take(1) is None else f"more behind {said}"
        except ConnectionResetError:
            return "reset"
        except TimeoutError:
            return "silence"
