#!/usr/bin/env python3
"""Reference implementation of the keys of requests, and maker of their golden vectors.

Written from the page of `src/sticky/key.rs` alone and sharing no code with the crate: it reads the text of a request in
its own way, finds what each part of a key names there, and writes the bytes that placement hashes. The Rust side is
`src/pool/request_key/tests.rs`, which reads the same requests as a connection does.

    python3 tests/key_reference.py            write tests/golden/keys.json
    python3 tests/key_reference.py --check    compare it; exit 1 with the first difference
"""

import json
import random
import sys
from pathlib import Path

FILE = Path(__file__).parent / "golden" / "keys.json"
ABSENT = b"\x00"
TAGS = {"cookie": 6, "header": 7, "query": 8, "path": 9, "path_parameter": 10, "client_certificate": 11}


# ---- A request ------------------------------------------------------------------------------------------------------

class Request:
    def __init__(self, head):
        line, *fields = head.split("\r\n")
        target = line.split(" ")[1]
        if target.startswith(("http:", "https:")):
            behind = target.split("//", 1)[1]
            cut = min((behind.find(c) for c in "/?" if c in behind), default=len(behind))
            target = behind[cut:]
        elif target == "*":
            target = ""
        self.path, _, self.query = target.partition("?")
        pairs = (field.partition(":") for field in fields if field)
        self.fields = [(name.lower(), value.strip(" \t")) for name, _, value in pairs]

    def headers(self, name):
        return [value for known, value in self.fields if known == name.lower()]

    def cookies(self, name):
        values = []
        for pair in ";".join(self.headers("cookie")).split(";"):
            known, equals, value = pair.partition("=")
            if equals and known.strip(" \t") == name:
                value = value.strip(" \t")
                quoted = len(value) > 1 and value[0] == value[-1] == '"'
                values.append(value[1:-1] if quoted else value)
        return values

    def queries(self, name):
        pairs = (pair.partition("=") for pair in self.query.split("&"))
        return [value for known, _, value in pairs if known == name]

    def parameters(self, name):
        pieces = [piece.partition("=") for segment in self.path.split("/") for piece in segment.split(";")[1:]]
        return [value for known, _, value in pieces if known == name]

    def segments(self, count):
        return "".join("/" + segment for segment in self.path.split("/")[1:count + 1]).rstrip("/")


# ---- A key ----------------------------------------------------------------------------------------------------------

def found(word, request, subject):
    """The values of one part, the first that is not empty counts."""
    kind, _, name = word.partition(":")
    if kind == "client_certificate":
        return [subject or ""]
    if kind == "path":
        return [request.segments(int(name))]
    find = {"cookie": request.cookies, "header": request.headers, "query": request.queries,
            "path_parameter": request.parameters}
    return find[kind](name)


def part(word, request, subject, source):
    """The bytes of one part; none if it is absent."""
    if word == "source":
        return b"\x01" + bytes(map(int, source.split("."))) if source else b""
    value = next((value for value in found(word, request, subject) if value), None)
    if value is None:
        return b""
    value = value.encode("latin-1")
    return bytes([TAGS[word.partition(":")[0]]]) + len(value).to_bytes(2, "big") + value


def key(words, head, subject, source):
    """The bytes of a key; none if no part is present."""
    request = Request(head)
    parts = [next(filter(None, (part(one, request, subject, source) for one in word.split(" or "))), b"")
             for word in words]
    return b"".join(one or ABSENT for one in parts) if any(parts) else None


# ---- Vectors --------------------------------------------------------------------------------------------------------

WORDS = ["cookie:SID", "header:X-User", "header:mcp-session-id", "query:user", "query:u%73er", "path:1", "path:2",
         "path:5", "path_parameter:jsessionid", "client_certificate", "source"]
TARGETS = ["/", "*", "/a", "/a/", "/a//", "//a/b", "/a/b/c/d/e/f", "/a;jsessionid=5A.n1/b", "/a;v=1;jsessionid=/b;jsessionid=7",
           "/x?user=ann", "/x?user=&user=bob", "/x?u%73er=c&User=d&user", "/a/b?user=/c;jsessionid=9?user=2",
           "http://a.test", "http://a.test/a/b?user=e", "https://a.test?user=f", "/%41/b?user=%61+b"]
FIELDS = ["X-User: ann", "x-user:", "X-USER:  bob \t", "X-User: first, second", "Mcp-Session-Id: 1f-2e", "X_User: no",
          "Cookie: SID=1", "Cookie: a=b; SID=; SID=\"2\"; c=d", "cookie: sid=no;SID = 3 ", "Cookie: SID", "X-Other: SID=4"]
SUBJECTS = [None, "", "CN=ann,O=Example", "CN=b\\C3\\A9"]


def vectors():
    """The same in every run."""
    draw = random.Random(20261130)
    for number in range(400):
        chain = " or ".join(draw.sample(WORDS[:-1], draw.randint(1, 3))) + draw.choice(["", "", " or source"])
        words = [chain] + [word for word in draw.sample(WORDS, draw.randint(0, 2)) if word != chain]
        target = draw.choice(TARGETS)
        method = "OPTIONS" if target == "*" else "GET"
        fields = ["Host: a.test"] + draw.sample(FIELDS, draw.randint(0, 4))
        head = f"{method} {target} HTTP/1.1\r\n" + "".join(field + "\r\n" for field in fields) + "\r\n"
        subject, source = draw.choice(SUBJECTS), draw.choice([None, f"10.0.{number >> 8}.{number & 255}"])
        made = key(words, head, subject, source)
        yield {"key": words, "head": head, "subject": subject, "source": source, "bytes": made and made.hex()}


def text():
    return "[\n" + ",\n".join(json.dumps(vector) for vector in vectors()) + "\n]\n"


if __name__ == "__main__":
    if "--check" not in sys.argv:
        FILE.write_text(text())
    elif (stored := FILE.read_text()) != (made := text()):
        pairs = zip(stored.splitlines(), made.splitlines())
        sys.exit(next((f"{FILE.name}: {one}\nbut made: {other}" for one, other in pairs if one != other), "another length"))
