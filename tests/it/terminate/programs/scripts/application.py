"""An application that keeps its sessions in its own memory: whoever comes with one it does not know is told so.

usage: application.py ADDRESS PORT NAME
"""

import itertools
import sys
from http.cookies import SimpleCookie
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

ADDRESS, PORT, NAME = sys.argv[1], int(sys.argv[2]), sys.argv[3]
numbers = itertools.count(1)
sessions = {}


class Application(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True

    def do_GET(self):
        morsel = SimpleCookie(self.headers.get("Cookie", "")).get("SID")
        session = morsel.value if morsel else None
        if self.path == "/login":
            session = f"{NAME}-{next(numbers)}"
            sessions[session] = 0
            self.answer(200, NAME, ("Set-Cookie", f"SID={session}; Path=/; HttpOnly"))
        elif session not in sessions:
            self.answer(403, f"{NAME} does not know {session}")
        else:
            sessions[session] += 1
            self.answer(200, f"{NAME} {sessions[session]}")

    def answer(self, status, text, *fields):
        body = text.encode()
        self.send_response(status)
        for name, value in fields:
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        pass


ThreadingHTTPServer.daemon_threads = True
ThreadingHTTPServer((ADDRESS, PORT), Application).serve_forever()
