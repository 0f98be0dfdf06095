#!/usr/bin/env python3
"""Reference implementation of placement, version 1, and maker of its golden vectors.

Written from the module documentation of `src/placement/mod.rs` alone and sharing no code with the crate: where both
give the same answers, that page says all there is to know. The first half of this file is the format, in the order of
the page; the second half invents pools and draws and writes what the format answers, as `tests/golden/README.md` says.

    python3 tests/placement_reference.py            write tests/golden/cases.json and the vectors
    python3 tests/placement_reference.py --check    compare them; exit 1 with the first difference

Needs the `xxhash` module (Debian: python3-xxhash). Integers only: no float decides anything.
"""

import ipaddress
import json
import sys
from bisect import bisect_left
from fractions import Fraction
from itertools import islice
from math import gcd
from pathlib import Path

try:
    from xxhash import xxh3_64_intdigest
except ImportError:
    sys.exit("placement_reference.py needs the Python module xxhash: apt install python3-xxhash, then /usr/bin/python3")

VERSION = 1
MASK = 2**64 - 1
METHODS = ["hash", "ring", "maglev", "round_robin", "least_connections", "two_choices", "random"]  # numbered from 1
KEYED = METHODS[:3]
FLAT = ["least_connections", "two_choices"]  # these ignore locations


# ---- Conventions ----------------------------------------------------------------------------------------------------

def u(bits, number):
    """An unsigned integer as big-endian bytes."""
    return number.to_bytes(bits // 8, "big")


def scale(h, n):
    """Maps a 64-bit `h` evenly onto 0 .. n-1."""
    return h * n >> 64


# ---- Key ------------------------------------------------------------------------------------------------------------

ABSENT = b"\x00"


def source(text, prefix_v4, prefix_v6):
    """The part for a client address; a v4-mapped v6 address is the v4 address."""
    address = ipaddress.ip_address(text)
    address = getattr(address, "ipv4_mapped", None) or address
    tag, bits, prefix = (b"\x01", 32, prefix_v4) if address.version == 4 else (b"\x02", 128, prefix_v6)
    return tag + u(bits, int(address) >> (bits - prefix) << (bits - prefix))


def sni(name):
    return b"\x03" + u(16, len(name)) + name.lower().encode("ascii")


def tlv(value):
    return b"\x04" + u(16, len(value)) + value


def named_range(name):
    return b"\x05" + name.encode()


# ---- Logarithm ------------------------------------------------------------------------------------------------------

C1, C2, C3, C4 = 0xB8AA3B295C17F0BB, 0x5C551D94AE0BF85D, 0x3D8E13B87407FAE9, 0x2E2A8ECA5705FC2E


def log2_table_entry(j):
    """2^63 * log2(j / 256) rounded down, bit by bit: squaring a number in 1 .. 2 shifts its logarithm left by one.

    With 320 bits behind the point, the 63 squarings leave more than 250 of them exact.
    """
    point, result = 320, 0
    x = j << (point - 8)
    for _ in range(63):
        x = x * x >> point
        bit = x >> (point + 1)
        x >>= bit
        result = result << 1 | bit
    return result


T = {j: log2_table_entry(j) for j in range(256, 512)}


def hi(a, b):
    return a * b >> 64


def minus_log2(h):
    """L(h): -log2(h / 2^64) in units of 2^-57."""
    x = h | 1
    e = 64 - x.bit_length()
    m = x << e
    j, z = m >> 55, m & (2**55 - 1)
    r = hi(z << 9, 2**64 // j)
    y = hi(r, C1 - hi(r, C2 - hi(r, C3 - hi(r, C4))))
    return (e + 1 << 57) - (T[j] + y >> 6)


# ---- Tree and methods -----------------------------------------------------------------------------------------------

class Node:
    """A leaf (`children` is None) or a group."""

    def __init__(self, name, weight, child_hash, children=None):
        self.name, self.weight, self.hash, self.children = name, weight, child_hash, children
        self.table = None  # points of a ring, entries of a maglev table: made when first needed

    def usable(self, up):
        return self.name in up if self.children is None else any(child.usable(up) for child in self.children)


class Pool:
    """A pool as `cases.json` describes it, and where its keys belong."""

    def __init__(self, case):
        self.method, self.parameter, self.members = case["method"], case["parameter"], case["members"]
        self.seed = int(case["seed"], 16)
        placed = [member for member in self.members if member["weight"] > 0]
        self.trees = [self.group("", [(self.location(m), m) for m in placed if m["backup"] == backup])
                      for backup in (False, True)]

    def location(self, member):
        return [] if self.method in FLAT else member["location"]

    def h(self, data):
        return xxh3_64_intdigest(data, self.seed)

    def p(self, a, b):
        return self.h(u(64, a) + u(64, b))

    def group(self, name, below):
        """The group `name` of the members in `below`: pairs of what remains of the location, and the member."""
        children, inner = [], {}
        for location, m in below:
            if location:
                inner.setdefault(location[0], []).append((location[1:], m))
            else:
                children.append(Node(m["name"], m["weight"], self.h(b"\x01" + m["name"].encode())))
        children += [self.group(level, members) for level, members in inner.items()]
        children.sort(key=lambda child: (child.name.encode(), child.children is not None))
        return Node(name, sum(child.weight for child in children), self.h(b"\x02" + name.encode()), children)

    def digest(self):
        data = u(32, VERSION) + u(8, METHODS.index(self.method) + 1) + u(32, self.parameter) + u(64, self.seed)
        data += u(32, len(self.members))
        for m in sorted(self.members, key=lambda m: m["name"].encode()):
            name = m["name"].encode()
            data += u(32, len(name)) + name + u(16, m["weight"]) + u(8, int(m["backup"])) + u(32, len(m["location"]))
            for level in m["location"]:
                data += u(32, len(level.encode())) + level.encode()
        return xxh3_64_intdigest(data, 0)

    def place(self, draw, up, leases=None):
        """The name of the member for this draw among the names in `up`, or None."""
        node = next((tree for tree in self.trees if tree.usable(up)), None)
        if node is None:
            return None
        while node.children is not None:
            usable = [child for child in node.children if child.usable(up)]
            node = getattr(self, "by_" + self.method)(node, draw, usable, leases)
            if self.method == "round_robin":
                draw = self.subticket(draw, usable, node)
            else:
                draw = self.h(b"\x03" + u(64, draw) + u(64, node.hash))
        return node.name

    def order(self, draw, up, leases=None):
        """The candidate order: placing again and again, each answer made unusable for the next."""
        up = set(up)
        while (name := self.place(draw, up, leases)) is not None:
            yield name
            up.remove(name)

    # Each method chooses one of the usable children of a group, given in rank order, never none. Fractions are exact;
    # of equals `min` takes the first.

    def by_hash(self, group, draw, usable, _):
        def score(child):
            h = self.p(draw, child.hash)
            return Fraction(minus_log2(h), child.weight), -h
        return min(usable, key=score)

    def ring_points(self, group):
        if group.table is None:
            group.table = sorted((self.p(child.hash, i) >> 24, rank) for rank, child in enumerate(group.children)
                                 for i in range(self.parameter * child.weight))
        return group.table

    def by_ring(self, group, draw, usable, _):
        points = self.ring_points(group)
        start = bisect_left(points, (draw >> 24, 0))
        owners = (group.children[rank] for _, rank in points[start:] + points[:start])
        return next(owner for owner in owners if owner in usable)

    def maglev_table(self, group):
        if group.table is None:
            size, free, table = self.parameter, self.parameter, [None] * self.parameter
            heaviest = max(child.weight for child in group.children)
            entry = [scale(self.p(child.hash, 0), size) for child in group.children]
            skip = [1 + scale(self.p(child.hash, 1), size - 1) for child in group.children]
            credit = [0] * len(group.children)
            while free:
                for rank, child in enumerate(group.children):
                    credit[rank] += child.weight
                    if free and credit[rank] >= heaviest:
                        credit[rank] -= heaviest
                        while table[entry[rank]] is not None:
                            entry[rank] = (entry[rank] + skip[rank]) % size
                        table[entry[rank]] = child
                        free -= 1
            group.table = table
        return group.table

    def by_maglev(self, group, draw, usable, _):
        owner = self.maglev_table(group)[scale(draw, self.parameter)]
        return owner if owner in usable else self.by_hash(group, draw, usable, None)

    @staticmethod
    def slot(ticket, usable):
        """The slot of a ticket, the sum W of the reduced weights, and their common divisor."""
        divisor = gcd(*(child.weight for child in usable))
        total = sum(child.weight for child in usable) // divisor
        step = 1
        if total != len(usable):
            step = max(1, scale(0x9E3779B97F4A7C15, total))
            while gcd(step, total) != 1:
                step += 1
        return ticket % total * step % total, total, divisor

    def by_round_robin(self, group, ticket, usable, _):
        slot, _, divisor = self.slot(ticket, usable)
        return self.interval(slot * divisor, usable)

    def subticket(self, ticket, usable, chosen):
        slot, total, divisor = self.slot(ticket, usable)
        start = sum(child.weight for child in usable[:usable.index(chosen)]) // divisor
        return (ticket // total * (chosen.weight // divisor) + slot - start) & MASK

    @staticmethod
    def interval(at, usable):
        """Who owns `at`, where the usable children own consecutive intervals as long as their weights."""
        for child in usable:
            if at < child.weight:
                return child
            at -= child.weight
        raise AssertionError("beyond the last interval")

    def by_random(self, group, draw, usable, _):
        return self.interval(scale(draw, sum(child.weight for child in usable)), usable)

    @staticmethod
    def least_loaded(leaves, leases):
        """The leaf with the smallest (leases + 1) / weight, of equals the first."""
        return min(leaves, key=lambda leaf: Fraction(leases[leaf.name] + 1, leaf.weight))

    def by_two_choices(self, group, draw, usable, leases):
        first = self.by_random(group, self.p(draw, 0), usable, None)
        rest = [leaf for leaf in usable if leaf is not first]
        second = [self.by_random(group, self.p(draw, 1), rest, None)] if rest else []
        return self.least_loaded([first] + second, leases)

    def by_least_connections(self, group, ticket, usable, leases):
        start = ticket % len(group.children)
        round_once = group.children[start:] + group.children[:start]
        return self.least_loaded([leaf for leaf in round_once if leaf in usable], leases)


# ---- Golden vectors: pools ------------------------------------------------------------------------------------------

class Stream:
    """SplitMix64: all that is invented here comes from it, so every run writes the same files."""

    def __init__(self, state):
        self.state = state

    def next(self):
        self.state = z = self.state + 0x9E3779B97F4A7C15 & MASK
        z = (z ^ z >> 30) * 0xBF58476D1CE4E5B9 & MASK
        z = (z ^ z >> 27) * 0x94D049BB133111EB & MASK
        return z ^ z >> 31

    def below(self, n):
        return scale(self.next(), n)

    def pick(self, items):
        return items[self.below(len(items))]


def member(name, weight=1, location="", backup=False):
    return {"name": name, "weight": weight, "location": location.split("/") if location else [], "backup": backup}


def many(stream):
    """Forty members of any weight, anywhere; every eighth is a backup."""
    places = ["", "", "r1", "r1/h1", "r1/h2", "r2/h1", "r2/h1/s", "r3"]
    return [member(f"{i * 7 % 40:02}", stream.below(257), stream.pick(places), i % 8 == 0) for i in range(40)]


EQUAL = [member(name) for name in "dbeac"]
WEIGHTS = [member(n, w) for n, w in [("e", 256), ("a", 1), ("Z", 3), ("c", 0), ("b", 100), ("f", 7), ("d", 100)]]
LEVELS = [  # a leaf beside a group of its name, equal level names apart, empty and long levels, one not in ASCII
    member("f", 4), member("dc1", 2), member("a", 1, "dc1/h1"), member("b", 3, "dc1/h1"), member("c", 2, "dc1/h2"),
    member("d", 5, "dc2/h1"), member("e", 1, "dc2/h1/rack-0123456789"), member("g", 0, "dc3"),
    member("h", 7, "größe"), member("i", 2, "L" * 100), member("j", 2, "M" * 200 + "/" + "N" * 300),
]
BACKUP = [
    member("z", 1, "", True), member("a", 1, "dc1"), member("x", 3, "dc1", True), member("b", 2, "dc2"),
    member("y", 1, "dc2/h1", True), member("v", 2, "dc2/h2", True), member("w", 0, "", True),
]
# Found by search: with seed 11 and this draw the two of each pair have scores closer than one in 2^35, so
# that their order needs every term of the logarithm.
NEAR_DRAW = 0x5E551E
NEAR = [member(pair[:4], int(pair[5:])) for pair in (
    "wo6q:1 p7nk:3  plkh:3 iiei:1  nuir:3 o3hu:1  koa3:2 lt38:5  q9qr:5 w2hx:2  d1tu:5 fynd:2  jsil:5 e9x2:2 "
    "xhvb:1 uclu:2  ruci:1 tscx:2  p87v:2 lg0e:1  qbm0:2 pgdl:1").split()]
# name, members, down, seed, prefix_v4, prefix_v6, ring points, maglev table size, lines
SHAPES = [
    ("equal", EQUAL, [], 0, 32, 64, 160, 65537, 1600),
    ("equal-down", EQUAL, ["b", "d"], 0, 24, 64, 1, 251, 1200),
    ("weights", WEIGHTS, [], 0xFF, 24, 56, 16, 4093, 1600),
    ("weights-down", WEIGHTS, ["e", "Z"], 0xFF, 20, 48, 160, 65537, 1200),
    ("levels", LEVELS, [], 0x0123456789ABCDEF, 32, 128, 40, 1021, 1300),
    ("levels-down", LEVELS, ["c", "e", "f"], MASK, 29, 61, 160, 251, 1400),
    ("backup", BACKUP, ["a"], 1, 32, 64, 160, 1021, 600),
    ("backup-only", BACKUP, ["b", "z", "a"], 1, 32, 64, 160, 1021, 900),
    ("many", many(Stream(40)), ["03", "08", "14", "21", "22", "39"], 2**63, 32, 64, 5, 8191, 400),
    ("many-small", many(Stream(41)), ["00"], 7, 8, 32, 1, 7, 100),
    ("near", NEAR, [], 11, 32, 64, 160, 251, 20),
    ("one", [member("a", 256, "dc1")], [], 5, 32, 64, 160, 251, 20),
    ("none", BACKUP, list("abvwxyz"), 5, 0, 0, 160, 251, 20),
    ("short-prefix", EQUAL, [], 6, 0, 1, 160, 251, 40),
]


# ---- Golden vectors: lines ------------------------------------------------------------------------------------------

def draw_of(text, case, pool):
    """What an INPUT means."""
    if text[0] == "#":
        return int(text[1:], 16)
    if text[0] == "x":
        return pool.h(bytes.fromhex(text[1:]))
    return pool.h(source(text, case["prefix_v4"], case["prefix_v6"]))


def edges(pool, up, stream):
    """Draws at and beside the borders where an answer changes: points of a ring, entries of a table, intervals."""
    root, draws = pool.trees[0], [NEAR_DRAW, 0, 1, MASK]
    if pool.method == "ring" and root.children:
        points = pool.ring_points(root)
        for position, _ in points[:1] + points[-1:] + [stream.pick(points) for _ in range(8)]:
            draws += [(position << 24) - 1, position << 24, (position + 1 << 24) - 1, position + 1 << 24]
    n = {"maglev": pool.parameter, "random": sum(child.weight for child in root.children)}.get(pool.method)
    for _ in range(10 if n else 0):
        border = -(-(stream.below(n) << 64) // n)  # the least draw that is scaled to this number
        draws += [border - 1, border]
    return [draw & MASK for draw in draws]


def address(stream):
    """A client address as text: v4, v4-mapped or v6, most with bits that the prefix cuts off."""
    kind = stream.below(20)
    v4 = str(ipaddress.IPv4Address(stream.next() >> 32))
    if kind < 9:
        return v4
    if kind < 11:
        return "::ffff:" + v4
    if kind < 12:  # almost v4-mapped
        return str(ipaddress.IPv6Address(stream.pick([0, 0xFFFE, 0x1FFFF]) << 32 | stream.next() >> 32))
    bits = 0x20010DB8 << 32 | stream.next() >> 32
    return str(ipaddress.IPv6Address(bits << 64 | (stream.next() if kind == 19 else 0)))


def whole_key(stream):
    """A key of other parts than one source, as hexadecimal digits."""
    label = f"{stream.next() >> 44:x}"
    part = stream.pick([
        ABSENT, sni(label + ".Example"), tlv(u(64, stream.next())[stream.below(9):]), named_range("r" + label),
        ABSENT + tlv(b"v"), source(address(stream), 24, 64) + sni(label), sni("a") + ABSENT + sni(label),
        tlv(label.encode() * 30) if stream.below(8) == 0 else tlv(b"")])
    return "x" + part.hex()


def inputs(case, pool, up, count, stream):
    """The INPUTs of a case: the borders first; then keys, tickets in a row and from anywhere, or random numbers."""
    made = [f"#{draw:x}" for draw in edges(pool, up, stream)]
    for i in range(count):
        if case["method"] in KEYED:
            made.append(whole_key(stream) if i % 16 == 15 else address(stream))
        elif case["method"] in ("round_robin", "least_connections") and i % 4:
            made.append(f"#{i:x}")
        else:
            made.append(f"#{stream.next():x}")
    return made


def lease(stream, i):
    """Mostly few leases, so that loads are often equal; now and then very many."""
    return stream.below(2**32 if i % 100 == 99 else 4 if i % 5 else 300)


def make(case, down, count, stream):
    """The text of the vectors of a case."""
    pool, lines = Pool(case), []
    up = {m["name"] for m in case["members"]} - set(down)
    case["digest"] = f"{pool.digest():016x}"
    for i, text in enumerate(inputs(case, pool, up, count, stream)):
        leases = {m["name"]: lease(stream, i) for m in case["members"]} if case["method"] in FLAT else None
        order = pool.order(draw_of(text, case, pool), up, leases)
        names = list(islice(order, None if i % 50 == 0 else 3 if i % 10 == 0 else 1))  # few whole candidate orders
        fields = [text] + ([",".join(map(str, leases.values()))] if leases else []) + [">".join(names) or "-"]
        lines.append(" ".join(fields) + "\n")
    return "".join(lines)


def cases_json(cases):
    """JSON with a line for each member, so that differences can be read."""
    texts = []
    for case in cases:
        lines = [f"      {json.dumps(field)}: {json.dumps(value)}" for field, value in case.items()]
        members = ",\n".join("        " + json.dumps(m) for m in case["members"])
        lines[list(case).index("members")] = f'      "members": [\n{members}\n      ]'
        texts.append("    {\n" + ",\n".join(lines) + "\n    }")
    return f'{{\n  "version": {VERSION},\n  "cases": [\n' + ",\n".join(texts) + "\n  ]\n}\n"


def golden_files():
    """All files by name: `cases.json`, then the vectors in the order of the cases."""
    cases, vectors = [], {}
    for number, method in enumerate(METHODS):
        for shape, members, down, seed, v4, v6, points, size, count in SHAPES:
            if shape == "near" and method != "hash" or shape == "short-prefix" and method not in KEYED:
                continue
            name = f"{method.replace('_', '-')}-{shape}"
            cases.append({
                "name": name, "method": method, "parameter": {"ring": points, "maglev": size}.get(method, 0),
                "seed": f"{seed:016x}", "prefix_v4": v4, "prefix_v6": v6, "members": members, "down": down})
            vectors[name + ".txt"] = make(cases[-1], down, count, Stream(number << 32 | len(cases)))
        made = sum(vectors[case["name"] + ".txt"].count("\n") for case in cases if case["method"] == method)
        assert made >= 10_000, f"only {made} lines for {method}"
    files = {"cases.json": cases_json(cases), **vectors}
    assert sum(map(len, files.values())) < 2_000_000, "too large"
    return files


def page_examples():
    """What the page says in numbers, as far as the vectors do not."""
    assert source("192.0.2.77", 24, 64) == source("::ffff:192.0.2.77", 24, 64) == bytes.fromhex("01c0000200")
    assert source("2001:db8:1:2:3::4", 32, 64) + sni("a.example") == bytes.fromhex(
        "02 20010db8000100020000000000000000 03 0009 612e6578616d706c65")
    assert T[256] == 0 and T[511] < 2**63 and minus_log2(MASK) >= 1 and minus_log2(0) == minus_log2(1) == 2**63


def difference(directory, files):
    """The first difference between what is committed and what would be written, or None."""
    for name, text in files.items():
        path = directory / name
        if not path.is_file():
            return f"{name} is missing"
        found, wanted = path.read_bytes().split(b"\n"), text.encode().split(b"\n")
        for number in range(max(len(found), len(wanted))):
            a, b = (lines[number] if number < len(lines) else None for lines in (found, wanted))
            if a != b:
                return f"{name}:{number + 1}: is {a!r}, should be {b!r}"
    strange = sorted({path.name for path in directory.glob("*.txt")} - set(files))
    return f"{strange[0]} belongs to no case" if strange else None


def main(arguments):
    if arguments not in ([], ["--check"]):
        sys.exit(__doc__)
    page_examples()
    directory, files = Path(__file__).parent / "golden", golden_files()
    if not arguments:
        for name, text in files.items():
            (directory / name).write_bytes(text.encode())
        for path in directory.glob("*.txt"):
            if path.name not in files:
                path.unlink()
    if found := difference(directory, files):
        sys.exit(found)
    lines = sum(text.count("\n") for name, text in files.items() if name != "cases.json")
    print(f"{len(files) - 1} cases, {lines} placements, {sum(map(len, files.values()))} bytes")


if __name__ == "__main__":
    main(sys.argv[1:])
