"""A gRPC server with a method for each kind of call. Arguments: name, address, and for TLS certificate and key.

Messages are bytes as they are. Each call is said on standard output as a line of JSON, when it begins and when it ends.
The health service says what the file `health` of the working directory has: `SERVICE=STATUS` in each line, where the
server as a whole has no name.
"""

import json
import os
import signal
import sys
import threading
import time
from concurrent import futures

import grpc

name, address, *tls = sys.argv[1:]
NAME = name.encode()
STATUSES = {"UNKNOWN": 0, "SERVING": 1, "NOT_SERVING": 2, "SERVICE_UNKNOWN": 3}
speaking = threading.Lock()
meeting = threading.Barrier(100)


def say(**what):
    with speaking:
        print(json.dumps(what), flush=True)


def fields(metadata):
    """Pairs of a metadata, with bytes in hexadecimal."""
    return [[key, value.hex() if isinstance(value, bytes) else value] for key, value in metadata]


def begin(method, context):
    """Says that a call has begun, and says its end once it is over."""
    said = fields(context.invocation_metadata())
    say(begun=method, peer=context.peer(), remaining=context.time_remaining(), metadata=said)
    done = threading.Event()
    context.add_callback(lambda: say(ended=method, cancelled=not done.is_set()))
    return done


def unary(request, context):
    begin("Unary", context).set()
    return NAME + b" " + request


def meet(_request, context):
    """Answers when a hundred calls are there."""
    begin("Meet", context).set()
    meeting.wait(15)
    return NAME


def collect(requests, context):
    done = begin("Collect", context)
    lengths = [len(request) for request in requests]
    done.set()
    return b"%s %d %d" % (NAME, len(lengths), sum(lengths))


def count(request, context):
    done = begin("Count", context)
    for number in range(int(request)):
        yield b"%s %d" % (NAME, number)
    done.set()


def chat(requests, context):
    done = begin("Chat", context)
    for request in requests:
        yield NAME + b" " + request
    done.set()


def endless(_request, context):
    """Sends a message each 20 ms until the call is over."""
    begin("Endless", context)
    number = 0
    while context.is_active():
        yield b"%s %d" % (NAME, number)
        number += 1
        time.sleep(0.02)


def wait(_request, context):
    """Answers never."""
    begin("Wait", context)
    while context.is_active():
        time.sleep(0.01)
    return b""


def fail(request, context):
    begin("Fail", context).set()
    code, text = request.decode().split(" ", 1)
    context.set_trailing_metadata((("x-why", "so"), ("x-why-bin", b"\x00\xff")))
    context.abort(grpc.StatusCode[code], text)


def fail_late(request, context):
    """Sends three messages, then a status."""
    begin("FailLate", context).set()
    for number in range(3):
        yield b"%s %d" % (NAME, number)
    fail(request, context)


def metadata(_request, context):
    """Gives back the metadata that begin with `x-`, in front of the message and behind it, and says them in it."""
    begin("Metadata", context).set()
    own = tuple(pair for pair in context.invocation_metadata() if pair[0].startswith("x-given"))
    context.send_initial_metadata(own)
    context.set_trailing_metadata(own)
    return json.dumps(fields(own)).encode()


def health(request, context):
    # HealthCheckRequest { string service = 1; }
    if request[:1] not in (b"", b"\n") or request and request[1] != len(request) - 2:
        context.abort(grpc.StatusCode.INVALID_ARGUMENT, f"not a HealthCheckRequest: {request!r}")
    service = request[2:].decode()
    say(check=service, remaining=context.time_remaining(), peer=context.peer())
    with open("health", encoding="utf-8") as file:
        statuses = dict(line.split("=", 1) for line in file.read().splitlines())
    if service not in statuses:
        context.abort(grpc.StatusCode.NOT_FOUND, "no such service")
    # HealthCheckResponse { ServingStatus status = 1; }
    return bytes([8, STATUSES[statuses[service]]])


calls = {
    "Unary": grpc.unary_unary_rpc_method_handler(unary),
    "Meet": grpc.unary_unary_rpc_method_handler(meet),
    "Collect": grpc.stream_unary_rpc_method_handler(collect),
    "Count": grpc.unary_stream_rpc_method_handler(count),
    "Chat": grpc.stream_stream_rpc_method_handler(chat),
    "Endless": grpc.unary_stream_rpc_method_handler(endless),
    "Wait": grpc.unary_unary_rpc_method_handler(wait),
    "Fail": grpc.unary_unary_rpc_method_handler(fail),
    "FailLate": grpc.unary_stream_rpc_method_handler(fail_late),
    "Metadata": grpc.unary_unary_rpc_method_handler(metadata),
}
check = {"Check": grpc.unary_unary_rpc_method_handler(health)}
server = grpc.server(
    futures.ThreadPoolExecutor(max_workers=128),
    handlers=[
        grpc.method_handlers_generic_handler("test.Calls", calls),
        grpc.method_handlers_generic_handler("grpc.health.v1.Health", check),
    ],
    options=[
        ("grpc.so_reuseport", 0),
        ("grpc.max_receive_message_length", -1),
        ("grpc.max_send_message_length", -1),
        # With its GOAWAY in two phases.
        *(("grpc.max_connection_age_ms", int(age)) for age in [os.environ.get("MAX_CONNECTION_AGE_MS")] if age),
        # Pings, whatever the connection carries.
        ("grpc.keepalive_time_ms", 200),
        ("grpc.http2.max_pings_without_data", 0),
        ("grpc.http2.min_ping_interval_without_data_ms", 10),
    ],
)
if tls:
    certificate, key = (open(file, "rb").read() for file in tls)
    bound = server.add_secure_port(address, grpc.ssl_server_credentials([(key, certificate)]))
else:
    bound = server.add_insecure_port(address)
if bound == 0:
    sys.exit(f"cannot listen at {address}")
stopped = threading.Event()
signal.signal(signal.SIGTERM, lambda *_: stopped.set())
server.start()
stopped.wait()
server.stop(5).wait()
