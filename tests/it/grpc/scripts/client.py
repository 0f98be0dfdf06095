"""Calls of Python's gRPC client; says as JSON what came. Arguments: what to do, address, file of authorities or "-".

With authorities the name of the server is a.test, and the connection has TLS; without it, it is HTTP/2 by prior
knowledge.
"""

import collections
import json
import sys
import time

import grpc

what, address, authorities, *more = sys.argv[1:]
PATIENCE = 20


def connect(*options):
    options = [
        ("grpc.use_local_subchannel_pool", 1),
        ("grpc.enable_http_proxy", 0),
        ("grpc.max_receive_message_length", -1),
        ("grpc.max_send_message_length", -1),
        # Pings, whatever the connection carries.
        ("grpc.keepalive_time_ms", 200),
        ("grpc.keepalive_permit_without_calls", 1),
        ("grpc.http2.max_pings_without_data", 0),
        *options,
    ]
    if authorities == "-":
        return grpc.insecure_channel(address, options)
    trust = grpc.ssl_channel_credentials(open(authorities, "rb").read())
    return grpc.secure_channel(address, trust, [("grpc.ssl_target_name_override", "a.test"), *options])


channel = connect()


def unary(method, request=b"", on=channel, **options):
    return on.unary_unary(f"/test.Calls/{method}")(request, timeout=PATIENCE, **options)


def say(said):
    print(json.dumps(said), flush=True)


def fields(metadata):
    return [[key, value.hex() if isinstance(value, bytes) else value] for key, value in metadata or ()]


def failure(error):
    own = [pair for pair in fields(error.trailing_metadata()) if pair[0].startswith("x-why")]
    return {"code": error.code().name, "text": error.details(), "trailers": own}


def failure_of(call):
    """What becomes of a call that has to fail, and the messages before."""
    messages = []
    try:
        for message in call:
            messages.append(message.decode())
    except grpc.RpcError as error:
        return failure(error) | {"messages": messages}
    return {"code": "OK", "messages": messages}


def kinds():
    collected = channel.stream_unary("/test.Calls/Collect")((b"x" * n for n in range(50)), timeout=PATIENCE)
    counted = [m.decode() for m in channel.unary_stream("/test.Calls/Count")(b"50", timeout=PATIENCE)]
    chatted, sent = [], []

    def requests():
        # Each message waits for the answer to the one before: neither way may be held back until its end.
        for number in range(20):
            sent.append(number)
            yield b"%d" % number
            deadline = time.monotonic() + PATIENCE
            while len(chatted) < len(sent) and time.monotonic() < deadline:
                time.sleep(0.001)

    for answer in channel.stream_stream("/test.Calls/Chat")(requests(), timeout=PATIENCE):
        chatted.append(answer.decode())
    return {
        "unary": unary("Unary", b"hello").decode(),
        "empty": unary("Unary").decode(),
        "packed": len(unary("Unary", b"z" * 100_000, compression=grpc.Compression.Gzip)),
        "collected": collected.decode(),
        "counted": counted,
        "chatted": chatted,
    }


def metadata():
    own = (
        ("x-given", "one"),
        ("x-given", "two, three"),
        ("x-given-bin", bytes(range(256))),
        ("x-given-bin", b""),
        ("x-given-more-bin", b"\x00"),
    )
    call = channel.unary_unary("/test.Calls/Metadata").with_call
    reply, done = call(b"", metadata=own, timeout=PATIENCE)
    given = lambda pairs: [pair for pair in fields(pairs) if pair[0].startswith("x-given")]
    return {
        "sent": fields(own),
        "seen": json.loads(reply),
        "initial": given(done.initial_metadata()),
        "trailing": given(done.trailing_metadata()),
    }


def fails():
    failures = {}
    for code, text in [
        ("NOT_FOUND", "no such thing"),
        ("UNAVAILABLE", "50% caf\u00e9\nnext"),
        ("UNAUTHENTICATED", "log in"),
        ("DATA_LOSS", "x" * 2000),
        ("ABORTED", ""),
    ]:
        request = f"{code} {text}".encode()
        failures[code] = {"text": text, "seen": []}
        try:
            unary("Fail", request)
        except grpc.RpcError as error:
            failures[code]["seen"].append(failure(error))
        late = channel.unary_stream("/test.Calls/FailLate")(request, timeout=PATIENCE)
        failures[code]["seen"].append(failure_of(late))
    try:
        unary("None")
    except grpc.RpcError as error:
        failures["unknown"] = failure(error)
    return failures | {"after": unary("Unary", b"after").decode()}


def parallel():
    calls = [channel.unary_unary("/test.Calls/Meet").future(b"", timeout=PATIENCE) for _ in range(100)]
    return collections.Counter(call.result().decode() for call in calls)


def code():
    """The status of one call of each kind."""
    calls = [
        lambda: unary("Unary"),
        lambda: channel.stream_unary("/test.Calls/Collect")(iter([b"x"]), timeout=PATIENCE),
        lambda: next(channel.unary_stream("/test.Calls/Count")(b"1", timeout=PATIENCE)),
        lambda: next(channel.stream_stream("/test.Calls/Chat")(iter([b"x"]), timeout=PATIENCE)),
    ]
    codes = []
    for call in calls:
        try:
            call()
            codes.append("OK")
        except grpc.RpcError as error:
            codes.append(error.code().name)
    return codes


def one_after_the_other():
    return collections.Counter(unary("Unary").decode() for _ in range(int(more[0])))


def for_a_while():
    names = collections.Counter()
    end = time.monotonic() + float(more[0])
    while time.monotonic() < end:
        names[unary("Unary").decode()] += 1
    return names


def channels():
    names = []
    for _ in range(int(more[0])):
        with connect() as own:
            names.append({unary("Unary", on=own).decode().strip() for _ in range(5)})
    return {"mixed": sum(len(own) > 1 for own in names), "names": collections.Counter(min(own) for own in names)}


def large():
    body = bytes(range(256)) * (4 << 12)
    reply = unary("Unary", body)
    chatted = channel.stream_stream("/test.Calls/Chat")(iter([body] * 3), timeout=PATIENCE)
    return {
        "length": len(body),
        "unary": reply.split(b" ", 1)[1] == body,
        "chatted": [answer.split(b" ", 1)[1] == body for answer in chatted],
    }


def deadline():
    began = time.monotonic()
    try:
        channel.unary_unary("/test.Calls/Wait")(b"", timeout=0.7)
        code = "OK"
    except grpc.RpcError as error:
        code = error.code().name
    return {"code": code, "took": time.monotonic() - began, "after": unary("Unary", b"after").decode()}


def cancel():
    call = channel.unary_stream("/test.Calls/Endless")(b"")
    first = next(call).decode()
    call.cancel()
    return {"first": first, "code": failure_of(call)["code"], "after": unary("Unary", b"after").decode()}


def stream():
    """A stream, message by message, as long as it goes on; then another call, once a line comes on standard input."""
    call = channel.unary_stream("/test.Calls/Endless")(b"")
    try:
        for message in call:
            say({"message": message.decode()})
        say({"code": "OK"})
    except grpc.RpcError as error:
        say(failure(error))
    sys.stdin.readline()
    return {"next": unary("Unary", b"next").decode()}


say(globals()[what]())
