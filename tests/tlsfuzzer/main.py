"""Runs the conversations of hellos.py and sessions.py, or the scripts of a checkout of tlsfuzzer, against a listener.

Starts `sessile` and a backend on free ports of the loopback. Fails if a conversation fails that is not listed as
expected, or if more than LIMIT fail."""

import fnmatch
import http.server
import json
import os
import re
import subprocess
import sys
import tempfile
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

HERE = Path(__file__).resolve().parent
LIMIT = 130

# Runs a script of tlsfuzzer whose only common suite would be one with CBC, which rustls does not have.
SCRIPT = """
import runpy, sys
from tlslite.constants import CipherSuite
CipherSuite.TLS_ECDHE_RSA_WITH_AES_128_CBC_SHA = CipherSuite.TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256
sys.argv = sys.argv[1:]
runpy.run_path(sys.argv[0], run_name="__main__")
"""


class Backend(http.server.BaseHTTPRequestHandler):
    """Replies to everything, and reads bodies."""

    protocol_version = "HTTP/1.1"

    def do_GET(self):
        self.rfile.read(int(self.headers.get("Content-Length", 0)))
        # One write, so that the client gets one record.
        self.wfile.write(b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nok\n")

    do_POST = do_GET

    def log_message(self, *_):
        pass


class Server(http.server.ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 256

    def handle_error(self, *_):
        pass


class Front:
    """A listener that terminates TLS for `localhost` with an ECDSA and an RSA certificate."""

    def __init__(self, folder):
        self.folder = Path(folder)
        for name, key in (("ecdsa", ["ec", "-pkeyopt", "ec_paramgen_curve:P-256"]), ("rsa", ["rsa:2048"])):
            subprocess.run(
                ["openssl", "req", "-x509", "-nodes", "-newkey", *key, "-days", "2", "-subj", "/CN=localhost",
                 "-addext", "subjectAltName=DNS:localhost", "-keyout", f"{name}.key", "-out", f"{name}.pem"],
                cwd=folder, check=True, capture_output=True)
        self.backend = Server(("127.0.0.1", 0), Backend)
        threading.Thread(target=self.backend.serve_forever, daemon=True).start()
        (self.folder / "sessile.toml").write_text(f'''
[admin]
socket = "{folder}/admin.sock"
[log]
connections = false
[[listener]]
name = "l"
bind = "127.0.0.1:0"
tls = "terminate"
# The conversations speak HTTP/1.1.
http2 = false
pool = "p"
[[listener.certificate]]
cert = "{folder}/ecdsa.pem"
key = "{folder}/ecdsa.key"
[[listener.certificate]]
cert = "{folder}/rsa.pem"
key = "{folder}/rsa.key"
[[pool]]
name = "p"
http = true
[[pool.backend]]
name = "b"
address = "127.0.0.1:{self.backend.server_address[1]}"
[pool.check]
kind = "off"
''')
        program = os.environ["SESSILE"]
        self.log = open(self.folder / "err.log", "wb")
        self.process = subprocess.Popen([program, "run", "--config", str(self.folder / "sessile.toml")],
                                        stdout=subprocess.DEVNULL, stderr=self.log)
        self.address = self.wait(program)

    def wait(self, program):
        status = [program, "status", "--json", "--socket", f"{self.folder}/admin.sock"]
        for _ in range(200):
            found = subprocess.run(status, capture_output=True)
            if found.returncode == 0:
                bind = json.loads(found.stdout)["listeners"][0]["bind"][0]
                host, port = bind.rsplit(":", 1)
                return host, int(port)
            assert self.process.poll() is None, (self.folder / "err.log").read_text()
            time.sleep(0.05)
        sys.exit("sessile does not answer")

    def close(self):
        self.process.terminate()
        self.process.wait()
        self.backend.shutdown()


def expected(file):
    """Lines of `GROUP | NAME | ANSWER | REASON`, where NAME and ANSWER may hold `*`."""
    lines = [line for line in (HERE / file).read_text().splitlines() if line and not line.startswith("#")]
    return [[part.strip() for part in line.split(" | ", 3)] for line in lines]


class Results:
    """Counts conversations by group, and knows those that may fail."""

    def __init__(self, file):
        self.known, self.met = expected(file), set()
        self.count, self.failed, self.unexpected = 0, 0, []

    def fits(self, group, name, answer):
        for index, (known_group, known_name, known_answer, _) in enumerate(self.known):
            if group == known_group and fnmatch.fnmatchcase(name, known_name) and fnmatch.fnmatchcase(answer, known_answer):
                self.met.add(index)
                return True
        return False

    def group(self, group, found, seconds):
        """`found`: name, answer, and the answers that are right, of each conversation."""
        failures = [(name, answer, right) for name, answer, right in found if answer not in right]
        new = [failure for failure in failures if not self.fits(group, *failure[:2])]
        self.count, self.failed = self.count + len(found), self.failed + len(failures)
        self.unexpected += [(group, *failure) for failure in new]
        others = f", {len(new)} OTHERS FAIL" if new else ""
        print(f"{group:42} {len(found):5} conversations, {len(failures) - len(new):3} fail as expected{others} "
              f"({seconds:.0f} s)", flush=True)

    def end(self, whole):
        for group, name, answer, right in self.unexpected:
            print(f"{group} | {name} | {answer} | expected: {' or '.join(right)}")
        if whole:
            for index in sorted(set(range(len(self.known))) - self.met):
                print(f"does not fail any more: {' | '.join(self.known[index])}")
        print(f"{self.count} conversations, {self.failed} failed, {len(self.unexpected)} of them unexpectedly")
        sys.exit(1 if self.unexpected or self.failed > LIMIT or not self.count else 0)


def say_hello(address, wire):
    from wire import Line
    line = Line(address)
    try:
        line.send(wire)
        return line.answer()
    finally:
        line.close()


def hold_session(address, version, act, offered=None):
    from sessions import Session, TLSRemoteAlert
    from wire import ALERTS
    try:
        session = Session(address, version, offered or None)
    except TLSRemoteAlert as refused:
        return ALERTS.get(refused.description, f"alert {refused.description}")
    try:
        act(session)
        return session.answer()
    except AssertionError as wrong:
        return str(wrong)
    except (BrokenPipeError, ConnectionResetError):
        return session.answer()
    finally:
        session.close()


def conversations(front, wanted):
    from hellos import GROUPS_OF_HELLOS
    from sessions import GROUPS_OF_SESSIONS
    results = Results("expected.txt")
    chosen = lambda group: not wanted or any(group.__name__.startswith(word) for word in wanted)
    with ThreadPoolExecutor(8) as pool:
        for group in filter(chosen, GROUPS_OF_HELLOS):
            began, cases = time.monotonic(), list(group())
            answers = pool.map(lambda case: say_hello(front.address, case[1]), cases)
            found = [(name, answer, right) for (name, _, right), answer in zip(cases, answers)]
            results.group(group.__name__, found, time.monotonic() - began)
        for group in filter(chosen, GROUPS_OF_SESSIONS):
            began, cases = time.monotonic(), list(group())
            answers = pool.map(lambda case: hold_session(front.address, case[1], case[2], *case[4:]), cases)
            found = [(case[0], answer, case[3]) for case, answer in zip(cases, answers)]
            results.group(group.__name__, found, time.monotonic() - began)
    results.end(not wanted)


def scripts(front, checkout, wanted):
    """Runs the scripts that scripts.txt lists, with its options: `SCRIPT OPTIONS`."""
    results = Results("expected_scripts.txt")
    environment = os.environ | {"PYTHONPATH": checkout}
    lines = [line.split() for line in (HERE / "scripts.txt").read_text().splitlines() if line and line[0] != "#"]
    host, port = front.address
    def run(line):
        script = f"{checkout}/scripts/{line[0]}"
        command = [sys.executable, "-c", SCRIPT, script, "-h", host, "-p", str(port), *line[1:]]
        began = time.monotonic()
        try:
            said = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=600).stdout
        except subprocess.TimeoutExpired as late:
            said = (late.stdout or b"").decode()
        return said, time.monotonic() - began
    chosen = [line for line in lines if not wanted or any(line[0].startswith(word) for word in wanted)]
    with ThreadPoolExecutor(2) as pool:
        for line, (said, seconds) in zip(chosen, pool.map(run, chosen)):
            total = re.search(r"^TOTAL: (\d+)", said, re.M)
            listed = re.search(r"^FAILED:\n((?:\t.*\n?)*)", said, re.M)
            failed = [name.strip().strip("'\"") for name in listed.group(1).splitlines()] if listed else []
            found = [(name, "failed", ["passed"]) for name in failed]
            found += [("", "passed", ["passed"])] * (int(total.group(1)) - len(failed) if total else 0)
            if not total:
                found.append(("the script", "did not end", ["passed"]))
            results.group(" ".join([line[0].removesuffix(".py"), *line[1:]]), found, seconds)
    results.end(not wanted)


def main():
    with tempfile.TemporaryDirectory() as folder:
        front = Front(folder)
        try:
            checkout = os.environ.get("TLSFUZZER")
            if checkout:
                scripts(front, checkout, sys.argv[1:])
            else:
                conversations(front, sys.argv[1:])
        finally:
            front.close()


if __name__ == "__main__":
    main()
