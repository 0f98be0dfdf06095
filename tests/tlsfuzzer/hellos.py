"""Conversations that end with the server's first answer: each is a name, the bytes, and the answers that are right."""

from wire import *

OLD, NEW = Hello(), Hello(modern=True)
BOTH = [("tls1.2", OLD), ("tls1.3", NEW)]
SERVED, DECODE, ILLEGAL = ["hello"], ["decode_error"], ["illegal_parameter"]
UNEXPECTED, OVERFLOW, VERSION = ["unexpected_message"], ["record_overflow"], ["protocol_version"]
FAILURE = ["handshake_failure"]
MALFORMED = DECODE + ILLEGAL
# The longest hello that is read, header included.
HELLO_MAX = 1 << 16
GREASE = [0x0A0A + 0x1010 * n for n in range(16)]


def truncated():
    for word, hello in BOTH:
        body = hello.body()
        bare = len(hello.body(with_extensions=False))
        for length in range(len(body)):
            # Without its extensions a hello is whole, but offers too little.
            right = DECODE if length != bare else SERVED + FAILURE + VERSION + ["missing_extension"]
            yield f"{word} to {length}", records(message(body[:length])), right


def padded():
    body = OLD.body()
    for fill in (0, 0xFF):
        for more in list(range(1, 41)) + [255, 256, 4096, 1 << 14, (1 << 16) - 1, 1 << 16, (1 << 17) + 512]:
            yield f"{more} of {fill:#x}", records(message(body + bytes([fill]) * more)), DECODE
    yield "to the longest message", records(message(body + bytes((1 << 24) - 1 - len(body)))), DECODE
    unknown = OLD.body(with_extensions=False) + u16(b"") + words([RENEGOTIATION]) + u16(b"\0")
    yield "an extension behind the extensions", records(message(unknown)), DECODE


def lengths():
    """One length of the hello is wrong by a little."""
    for word, hello in BOTH:
        body = hello.body()
        session, suites = 34, 35 + len(hello.session)
        compression = suites + 2 + len(hello.suites)
        extensions = compression + 1 + len(hello.compression)
        for name, at, width in [("session", session, 1), ("suites", suites, 2), ("compression", compression, 1),
                                ("extensions", extensions, 2)]:
            value = int.from_bytes(body[at:at + width], "big")
            for wrong in sorted({value - 2, value - 1, value + 1, value + 2, value + 16, 256 ** width - 1} - {value}):
                if 0 <= wrong < 256 ** width:
                    other = body[:at] + wrong.to_bytes(width, "big") + body[at + width:]
                    yield f"{word} {name} {wrong}", records(message(other)), MALFORMED
    for kind, right in OLD.extensions + MODERN:
        for word, hello in BOTH:
            if hello.get(kind) is None:
                continue
            for cut in range(len(right)):
                allowed = MALFORMED + (SERVED + FAILURE if kind in (EMS, RENEGOTIATION, PSK_MODES) and cut == 0 else [])
                yield f"{word} extension {kind} cut to {cut}", hello.has(kind, right[:cut]).wire(), allowed
            yield f"{word} extension {kind} and a byte", hello.has(kind, right + b"\0").wire(), MALFORMED


def fragments():
    for word, hello in BOTH:
        whole = hello.message()
        for size in list(range(1, 80)) + [len(whole) - 1, len(whole)]:
            yield f"{word} records of {size}", records(whole, size), SERVED
        for at in range(1, len(whole), 12):
            for name, kind, payload, right in [
                ("an empty record", HANDSHAKE, b"", UNEXPECTED), ("data", DATA, b"x", UNEXPECTED),
                ("a change of cipher", CCS, b"\1", UNEXPECTED), ("an alert", ALERT, b"\1\0", UNEXPECTED),
            ]:
                between = record(whole[:at]) + record(payload, kind) + record(whole[at:])
                yield f"{word} {name} at {at}", between, right


def overflow():
    body = OLD.message()
    for length in [(1 << 14) + more for more in list(range(1, 17)) + [255, 256, 257, 2048, 2049]] + [65535]:
        header = bytes([HANDSHAKE, 3, 1]) + length.to_bytes(2, "big")
        yield f"a first record of {length}", header + body + bytes(length - len(body)), OVERFLOW
        yield f"a second record of {length}", record(body[:9]) + header + body[9:] + bytes(length - len(body)), OVERFLOW
    yield "an empty record", record(b""), UNEXPECTED
    yield "an empty record before the hello", record(b"") + OLD.wire(), UNEXPECTED


def record_types():
    for kind in set(range(256)) - {HANDSHAKE}:
        yield f"type {kind}", record(OLD.message(), kind), UNEXPECTED
    for major in set(range(256)) - {3}:
        yield f"version {major}.1", record(OLD.message(), version=bytes([major, 1])), VERSION
    for minor in range(0, 256, 15):
        yield f"version 3.{minor}", record(OLD.message(), version=bytes([3, minor])), SERVED


def message_types():
    for kind in set(range(256)) - {CLIENT_HELLO}:
        yield f"message {kind}", records(message(OLD.body(), kind)), UNEXPECTED
    for kind in (0, 2, 4, 5, 8, 11, 14, 16, 20, 24):
        yield f"empty message {kind}", records(message(b"", kind)), UNEXPECTED
    yield "sslv2 hello", bytes.fromhex("802e0103010015000000100100800300800600400200800400803b3c3d3e3f40414243444546"
                                       "4748494a"), UNEXPECTED + VERSION


def versions():
    for major, minor, right in [(0, 0, VERSION), (2, 0, VERSION), (3, 0, VERSION), (3, 1, VERSION), (3, 2, VERSION),
                                (3, 3, SERVED), (3, 4, SERVED), (3, 5, SERVED), (3, 254, SERVED), (4, 1, SERVED),
                                (6, 3, SERVED), (254, 254, SERVED)]:
        yield f"legacy {major}.{minor}", OLD.but(version=bytes([major, minor])).wire(), right
    for offered, right in [([0x0304], SERVED), ([0x0304, 0x0303], SERVED), ([0x0303, 0x0304], SERVED),
                           (GREASE + [0x0304], SERVED), ([0x7F1C, 0x0304], SERVED), ([0x0300], VERSION),
                           ([0x0301, 0x0302], VERSION), (GREASE, VERSION), ([0x0305], VERSION), ([0x7F1C], VERSION),
                           ([0x0304] * 2, SERVED + MALFORMED), (list(range(0x0400, 0x0460)) + [0x0304], SERVED)]:
        suites = words(TLS13_SUITES + TLS12_SUITES)
        name = " ".join(f"{version:x}" for version in offered[:3])
        yield f"supported {len(offered)}: {name}", NEW.but(suites=suites).has(VERSIONS, u8(words(offered))).wire(), right
    for body in [b"", b"\0", b"\1\3", b"\3\3\4\3", b"\2\3\4\0", b"\4\3\4"]:
        yield f"supported {body.hex()}", NEW.has(VERSIONS, body).wire(), MALFORMED


# Suites that no server should choose (RFC 9325), and numbers that are not assigned.
WEAK = [*range(0x0001, 0x001C), *range(0x001E, 0x0047), *range(0x0067, 0x006E), *range(0x0084, 0x008B),
        *range(0x0096, 0x00A8), 0x00FF, *range(0xC001, 0xC01A), *range(0xC023, 0xC02B), 0xC02D, 0xC02E, 0xC031, 0xC032,
        *range(0xC0A0, 0xC0B0)]


def ciphers():
    for suite in TLS12_SUITES:
        yield f"{suite:#06x}", OLD.but(suites=words([suite])).wire(), SERVED
    for suite in TLS13_SUITES:
        yield f"{suite:#06x}", NEW.but(suites=words([suite])).wire(), SERVED
    for suite in WEAK + GREASE + [0x5600, 0x7F00, 0xEEEE, 0xFFFF]:
        yield f"{suite:#06x}", OLD.but(suites=words([suite])).wire(), FAILURE
    for suite in TLS12_SUITES + GREASE[:4] + [0x0035, 0x1306, 0x13FF]:
        yield f"tls1.3 {suite:#06x}", NEW.but(suites=words([suite])).wire(), FAILURE
    for suite in TLS13_SUITES:
        yield f"tls1.2 {suite:#06x}", OLD.but(suites=words([suite])).wire(), FAILURE
    yield "none", OLD.but(suites=b"").wire(), MALFORMED + FAILURE
    yield "an odd length", OLD.but(suites=words(TLS12_SUITES) + b"\0").wire(), MALFORMED
    for count in (1, 256, 4096, 8000):
        many = words([0x5600 + n % 256 for n in range(count)] + TLS12_SUITES)
        yield f"{count} unknown ones first", OLD.but(suites=many).wire(), SERVED
    for group, right in [([29], SERVED), ([23], SERVED), ([24], SERVED), ([30], FAILURE), ([25], FAILURE),
                         ([256, 257], FAILURE), (GREASE[:3] + [23], SERVED), (list(range(1, 15)), FAILURE)]:
        yield f"groups {group[:4]}", OLD.has(GROUPS, u16(words(group))).wire(), right
    for scheme, right in [([0x0403], SERVED), ([0x0804], SERVED), ([0x0401], SERVED), ([0x0201], FAILURE),
                          ([0x0203], FAILURE), ([0x0101], FAILURE), ([0x0402], FAILURE), (GREASE[:3] + [0x0804], SERVED),
                          ([0xFE00 + n for n in range(200)] + [0x0804], SERVED), (GREASE[:2], FAILURE)]:
        yield f"signatures {scheme[:4]}", OLD.has(SIGNATURES, u16(words(scheme))).wire(), right
    fallback = words(TLS12_SUITES + [0x5600])
    yield "a fallback that is none (RFC 7507)", OLD.but(suites=fallback).wire(), ["inappropriate_fallback"]


def compression():
    for word, hello in BOTH:
        yield f"{word} none", hello.but(compression=b"").wire(), MALFORMED
        for methods in (b"\1", b"\x40", b"\1\x40", bytes(range(1, 256))):
            yield f"{word} {len(methods)} without null from {methods[0]}", hello.but(compression=methods).wire(), ILLEGAL
    for methods in (b"\0\1", b"\1\0", b"\0\x40", bytes(range(256))[:255]):
        yield f"tls1.2 {len(methods)} with null from {methods[0]}", OLD.but(compression=methods).wire(), SERVED
        yield f"tls1.3 {len(methods)} with null from {methods[0]}", NEW.but(compression=methods).wire(), ILLEGAL
    for length in (0, 1, 16, 31, 32):
        yield f"session of {length}", OLD.but(session=bytes(length)).wire(), SERVED
    for length in (33, 34, 48, 64, 128, 255):
        yield f"session of {length}", OLD.but(session=bytes(length)).wire(), MALFORMED


def alpn():
    for offered, right in [([b"http/1.1"], SERVED), ([b"http/1.0"], SERVED), ([b"h2", b"http/1.1"], SERVED),
                           ([b"http/1.1"] * 2, SERVED + ILLEGAL), ([b"x" * 255, b"http/1.1"], SERVED),
                           ([b"h2"], None), ([b"http/1."], None), ([b"http/1.12"], None), ([b"HTTP/1.1"], None),
                           ([b"http/1.1\0"], None), ([b"\0"], None), ([b"http/0.9"], None), ([b"x"], None)]:
        # TLS 1.3 refuses a protocol behind its ServerHello: see sessions.py.
        for word, hello in BOTH[:2 if right else 1]:
            wire = hello.has(ALPN, protocols(*offered)).wire()
            yield f"{word} {[name[:12] for name in offered]}", wire, right or ["no_application_protocol"]
    for count in (16, 256, 1024):
        many = [b"x%d" % n for n in range(count)]
        yield f"tls1.2 {count} names", OLD.has(ALPN, protocols(*many)).wire(), ["no_application_protocol"]
        for word, hello in BOTH:
            yield f"{word} {count} names and ours", hello.has(ALPN, protocols(*many, b"http/1.1")).wire(), SERVED
    list_ = protocols(b"http/1.1", b"h2")
    broken = {"no list": b"", "an empty list": u16(b""), "an empty name": protocols(b""),
              "an empty name in front": protocols(b"", b"http/1.1"), "an empty name behind": protocols(b"http/1.1", b""),
              "a byte behind": list_ + b"\0", "ff": b"\xff" * 4}
    broken |= {f"cut to {length}": list_[:length] for length in range(1, len(list_))}
    broken |= {f"a length of {length}": length.to_bytes(2, "big") + list_[2:]
               for length in (0, 1, 8, 9, 10, 11, 13, 14, 255, 65535)}
    broken |= {f"a name of {length}": u16(bytes([length]) + list_[3:]) for length in (0, 7, 9, 10, 13, 255)}
    for name, body in broken.items():
        for word, hello in BOTH:
            yield f"{word} {name}", hello.has(ALPN, body).wire(), MALFORMED


def server_names():
    host = names(b"localhost")
    broken = {"no list": b"", "an empty list": u16(b""), "a byte behind": host + b"\0", "ff": b"\xff" * 4,
              "an entry without a length": u16(b"\0"), "an entry longer than the list": u16(b"\0\xff\xff" + b"a")}
    broken |= {f"cut to {length}": host[:length] for length in range(1, len(host))}
    broken |= {f"a length of {length}": length.to_bytes(2, "big") + host[2:] for length in (0, 1, 2, 3, 11, 13, 65535)}
    for name, body in broken.items():
        for word, hello in BOTH:
            yield f"{word} {name}", hello.has(SNI, body).wire(), MALFORMED
    for word, hello in BOTH:
        yield f"{word} two names", hello.has(SNI, names(b"localhost", b"www.localhost")).wire(), MALFORMED
        yield f"{word} a name of another type", hello.has(SNI, names(b"x", kind=9)).wire(), SERVED + MALFORMED
        unknown = SERVED + ["unrecognized_name"]
        for other in (b"example.org", b"a" * 63 + b".test", b"xn--bcher-kva.example", b"127.0.0.1", b"LOCALHOST"):
            yield f"{word} {other[:12]}", hello.has(SNI, names(other)).wire(), unknown
        for odd in (b"local\0host", b"local\x07host", "local\u0105host".encode(), b"\x1b[31mBAD", b"*.localhost",
                    b"localhost:443", b"[::1]", b".", b"a..b", b"a" * 64 + b".test", b"a" * 255):
            # A name that is no host name is refused, or taken for no name.
            yield f"{word} {odd[:12]}", hello.has(SNI, names(odd)).wire(), unknown + ILLEGAL


def extensions():
    for word, hello in BOTH:
        for kind, body in hello.extensions + [(ALPN, protocols(b"http/1.1")), (80, b""), (PADDING, b"")]:
            twice = hello.has(kind, body)
            twice = twice.but(extensions=twice.extensions + [(kind, body)])
            yield f"{word} {kind} twice", twice.wire(), MALFORMED
        for kind in [2, 3, 4, 6, 7, 8, 9, 12, 17, 18, 20, 22, 24, 25, 26, 28, 34, 36, 37, 46, 52, 80, 1000, 13172, 65037,
                     65535] + GREASE[:4]:
            for body in (b"", b"\0", bytes(64)):
                # Some of these have a format, and may be refused; none may be met by silence.
                right = SERVED + (MALFORMED if kind in (17, 18, 20, 28, 65037) else [])
                yield f"{word} {kind} of {len(body)}", hello.but(extensions=[(kind, body), *hello.extensions]).wire(), right
        for count in (64, 256, 1024, 2048):
            many = [(0x1000 + n, b"") for n in range(count)]
            yield f"{word} {count} unknown ones", hello.but(extensions=hello.extensions + many).wire(), SERVED
        for kind in (SNI, GROUPS, SIGNATURES, ALPN):
            yield f"{word} {kind} empty", hello.has(kind, b"").wire(), MALFORMED
    for missing, right in [(KEY_SHARE, ["missing_extension"] + FAILURE), (GROUPS, ["missing_extension"]),
                           (SIGNATURES, ["missing_extension"])]:
        kept = [(kind, body) for kind, body in NEW.extensions if kind != missing]
        yield f"tls1.3 without {missing}", NEW.but(extensions=kept).wire(), right
    shares = {"an empty share": u16(words([29]) + u16(b"")), "a short share": u16(words([29]) + u16(bytes(31))),
              "a long share": u16(words([29]) + u16(bytes(33))), "a zero share": u16(words([29]) + u16(bytes(32))),
              "a point that is none": u16(words([23]) + u16(b"\4" + bytes(64)))}
    for name, body in shares.items():
        groups = body[2:4]
        yield f"tls1.3 {name}", NEW.has(GROUPS, u16(groups)).has(KEY_SHARE, body).wire(), MALFORMED
    yield "tls1.3 a share of an unknown group", NEW.has(KEY_SHARE, u16(words([0x5A5A]) + u16(b"\0"))).wire(), SERVED
    yield "tls1.3 no share (a retry)", NEW.has(KEY_SHARE, u16(b"")).wire(), SERVED


def large():
    sizes = [1 << 10, 1 << 12, *range((1 << 13) - 4, (1 << 13) + 5), *range((1 << 14) - 8, (1 << 14) + 1)]
    sizes += [*range((1 << 14) + 1, (1 << 14) + 20), 3 << 13, 1 << 15, (1 << 15) + 1, 3 << 14, (1 << 16) - 256]
    for word, hello in BOTH:
        for size in sizes:
            right = SERVED if size <= HELLO_MAX else DECODE
            yield f"{word} {size} bytes", hello.padded_to(size).wire(), right
            if size % 4096 == 0:
                yield f"{word} {size} bytes in records of 1000", hello.padded_to(size).wire(1000), right
    for length in ((1 << 17) + 512, 1 << 20, (1 << 24) - 1):
        yield f"a hello of {length} bytes", record(message(OLD.body(), length=length)), DECODE


GROUPS_OF_HELLOS = [truncated, padded, lengths, fragments, overflow, record_types, message_types, versions, ciphers,
                    compression, alpn, server_names, extensions, large]
