"""Users of an application, with the standard library: each has a cookie jar, and all use a few kept connections in
turn.

usage: client.py PORT CA USERS REQUESTS
Prints for each user who has served it, which must be one. Counts must rise by one each time.
"""

import http.client
import socket
import ssl
import sys
import urllib.request
from http.cookiejar import CookieJar

PORT, CA, USERS, REQUESTS = int(sys.argv[1]), sys.argv[2], int(sys.argv[3]), int(sys.argv[4])
context = ssl.create_default_context(cafile=CA)
context.set_alpn_protocols(["http/1.1"])


class Connection(http.client.HTTPSConnection):
    """To `a.test`, wherever that is."""

    opened = 0

    def connect(self):
        Connection.opened += 1
        stream = socket.create_connection(("127.0.0.1", PORT), timeout=20)
        self.sock = context.wrap_socket(stream, server_hostname="a.test")
        assert self.sock.selected_alpn_protocol() == "http/1.1"


def ask(connection, jar, path):
    request = urllib.request.Request(f"https://a.test:{PORT}{path}")
    jar.add_cookie_header(request)
    connection.request("GET", path, headers=dict(request.header_items()))
    response = connection.getresponse()
    text = response.read().decode()
    assert response.status == 200, (response.status, text)
    jar.extract_cookies(response, request)
    return text


connections = [Connection("a.test", PORT) for _ in range(3)]
jars = [CookieJar() for _ in range(USERS)]
names = [ask(connections[user % 3], jar, "/login") for user, jar in enumerate(jars)]
for count in range(1, REQUESTS + 1):
    for user, jar in enumerate(jars):
        text = ask(connections[(user + count) % 3], jar, "/count")
        assert text == f"{names[user]} {count}", (user, count, text)
assert Connection.opened == 3, "connections were kept"
print(" ".join(names))
