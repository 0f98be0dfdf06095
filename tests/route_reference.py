#!/usr/bin/env python3
"""Reference implementation of the routes of requests, and maker of random tables with requests for them.

Written from `config/reference.toml` and the manual alone and sharing no code with the crate: each route that holds for a
request gets a rank by its own words, and the highest rank wins. `tests/it/routes/reference.rs` reads what this prints, one
JSON object a line: a configuration, and requests with the number of the route that each must take (0: the default pool).
No two routes of a table tie.

    python3 tests/route_reference.py COUNT    print so many tables, the same in every run
"""

import ipaddress
import json
import random
import sys

LABELS = ["a", "b", "shop", "a-b"]
SEGMENTS = ["", "api", "apis", "v1", "a", "%61", ".", "a;b=c"]
METHODS = ["GET", "POST", "PUT", "PURGE"]
FIELDS = ["X-Version", "x-kind", "X_Kind"]
VALUES = ["1", "2", "a b", "1, 2"]


# ---- A route --------------------------------------------------------------------------------------------------------

def host_rank(patterns, host):
    """Exact names first, then the longest wildcard, then routes for any host."""
    if not patterns:
        return (0, 0)
    ranks = [(0, 0)]
    for pattern in patterns:
        if host is not None and pattern == host:
            ranks.append((2, 0))
        elif host is not None and pattern.startswith("*.") and host.endswith(pattern[1:]) and host != pattern[1:]:
            ranks.append((1, len(pattern)))
    return max(ranks) if len(ranks) > 1 else None


def path_rank(patterns, path):
    """The longer path, of equal ones the exact one, then routes for any path."""
    if not patterns:
        return (0, 0)
    ranks = []
    for pattern in patterns:
        exact, text = pattern.startswith("="), pattern.removeprefix("=")
        below = path.startswith(text if text.endswith("/") else text + "/")
        if path == text or (below and not exact):
            ranks.append((len(text), exact))
    return max(ranks, default=None)


def source_rank(networks, client):
    if not networks:
        return 0
    lengths = [1 + ipaddress.ip_network(network).prefixlen for network in networks if client in ipaddress.ip_network(network)]
    return max(lengths, default=None)


def rank(route, request):
    """The rank of a route for a request; None where a condition does not hold."""
    names = [(name.lower(), value) for name, value in request["fields"]]
    for name, value in route.get("header", {}).items():
        if [found for known, found in names if known == name.lower()] != [value]:
            return None
    if "method" in route and request["method"] not in route["method"]:
        return None
    host = request["host"].rsplit(":", 1)[0].lower().removesuffix(".")
    host = None if host.replace(".", "").isdigit() else host
    found = (host_rank(route.get("host"), host), path_rank(route.get("path"), request["target"].split("?")[0]),
             len(route.get("header", {})) + ("method" in route) + ("source" in route),
             source_rank(route.get("source"), ipaddress.ip_address(request["client"])))
    return None if None in found else found


def taken(routes, request):
    """Number of the route that a request takes, from 1 on; 0: none."""
    ranks = [(found, number) for number, route in enumerate(routes, 1) if (found := rank(route, request)) is not None]
    return max(ranks)[1] if ranks else 0


# ---- Tables and requests --------------------------------------------------------------------------------------------

def some(draw, make, most):
    return list(dict.fromkeys(make() for _ in range(draw.randint(1, most))))


def name(draw):
    return ".".join(draw.choice(LABELS) for _ in range(draw.randint(1, 4)))


def path(draw):
    return "".join("/" + draw.choice(SEGMENTS) for _ in range(draw.randint(1, 4)))


def network(draw):
    length = draw.choice([0, 8, 23, 24, 25, 31, 32])
    address = f"10.0.{draw.randint(0, 3)}.{draw.choice([0, 1, 127, 128, 255])}"
    return str(ipaddress.ip_network(f"{address}/{length}", strict=False))


def route(draw):
    made = {}
    if draw.random() < .7:
        made["host"] = some(draw, lambda: draw.choice(["", "*."]) + name(draw), 3)
    if draw.random() < .7:
        made["path"] = some(draw, lambda: draw.choice(["", "="]) + path(draw), 3)
    if draw.random() < .3:
        made["method"] = some(draw, lambda: draw.choice(METHODS), 2)
    if draw.random() < .3:
        names = {field.lower(): field for field in some(draw, lambda: draw.choice(FIELDS), 2)}
        made["header"] = {field: draw.choice(VALUES) for field in names.values()}
    if draw.random() < .3:
        made["source"] = some(draw, lambda: network(draw), 3)
    return made


def places(made):
    """Where a route stands: two routes with a place in common could tie, so a table has only one of them."""
    conditions = len(made.get("header", {})) + ("method" in made) + ("source" in made)
    return {(host, way, conditions, ipaddress.ip_network(source).prefixlen if source else -1)
            for host in made.get("host", [""]) for way in made.get("path", [""]) for source in made.get("source", [""])}


def table(draw):
    routes, used = [], set()
    for _ in range(draw.randint(1, 14)):
        made = route(draw)
        if made and made.keys() - {"source"} and not used & places(made):
            used |= places(made)
            routes.append(made)
    return routes


def request(draw, routes):
    """A request near one of the routes: with what it asks for, or something else."""
    near = draw.choice(routes) if routes else {}
    host = draw.choice(near.get("host", [name(draw)])).replace("*.", draw.choice(["a.", "x.y."]))
    target = draw.choice(near.get("path", [path(draw)])).removeprefix("=") + draw.choice([""] * 5 + ["/", "x", "/a", "/x/v1"])
    host, target = draw.choice([host] * 6 + [name(draw), "10.0.0.1"]), draw.choice([target] * 5 + [path(draw)])
    client = ipaddress.ip_address(f"10.0.{draw.randint(0, 3)}.{draw.randint(0, 255)}")
    if "source" in near and draw.random() < .7:
        client = ipaddress.ip_network(draw.choice(near["source"])).network_address
    fields = list(near.get("header", {}).items()) if draw.random() < .8 else []
    fields += [(draw.choice(FIELDS), draw.choice(VALUES)) for _ in range(draw.choice([0, 0, 1, 2]))]
    return {
        "method": draw.choice(near["method"] if "method" in near and draw.random() < .8 else METHODS + ["get"]),
        "target": target + draw.choice(["", "", "?", "?x=/api/v1"]),
        "host": draw.choice([host, host, host.upper(), host + ".", host + ":8080"]),
        "fields": [(draw.choice([field, field.lower(), field.upper()]), value) for field, value in fields],
        "client": str(client),
    }


def text(routes):
    """The configuration."""
    lines = ["[[listener]]", 'name = "l"', 'bind = "127.0.0.1:1"', 'pool = "p"']
    for made in routes:
        lines.append("[[listener.route]]")
        for key, value in made.items():
            if isinstance(value, dict):
                value = ", ".join(f"{field} = {json.dumps(one)}" for field, one in value.items())
                lines.append(f"{key} = {{ {value} }}")
            else:
                lines.append(f"{key} = {json.dumps(value)}")
        lines.append('pool = "p"')
    return "\n".join(lines + ["[[pool]]", 'name = "p"', "http = true", 'backend = "127.0.0.1:2"', ""])


if __name__ == "__main__":
    draw = random.Random(20261130)
    for _ in range(int(sys.argv[1])):
        routes = table(draw)
        asked = [request(draw, routes) for _ in range(10)]
        print(json.dumps({"text": text(routes), "asked": [{**one, "route": taken(routes, one)} for one in asked]}))
