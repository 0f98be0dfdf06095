#!/usr/bin/python3
"""Lists what a binary is made of: a bill of materials (CycloneDX 1.5, JSON), and the licences that have to go with it.

    packaging/materials.py --target TARGET [--static] --sbom FILE --notices FILE

Crates come from `cargo metadata --locked`, their licence texts from the sources that cargo has unpacked. Needs no
network but what cargo needs. A licence that is not listed here, or a crate without a text, is an error: a package
without its notices must not be shipped. The result depends on Cargo.lock, target, toolchain and SOURCE_DATE_EPOCH alone.
"""

import argparse
import datetime
import hashlib
import html.parser
import json
import os
import pathlib
import re
import subprocess
import sys
import tomllib
import urllib.parse
import uuid

REPOSITORY = pathlib.Path(__file__).resolve().parent.parent

# Licences that have been looked at: each allows a binary under MIT OR Apache-2.0, with the notices that are written here.
KNOWN = {
    "0BSD", "Apache-2.0", "Apache-2.0 WITH LLVM-exception", "BSD-2-Clause", "BSD-3-Clause", "BSL-1.0", "CC0-1.0", "ISC",
    "MIT", "MIT-0", "Unicode-3.0", "Unlicense", "Zlib",
}

# Names of files with a licence, wherever they are in a crate: the C library in one of them has its own.
LICENCE_FILE = re.compile(r"(?i)^(un)?licen[cs]e|^copying|^notice|^copyright")
NO_LICENCE = {".rs", ".c", ".h", ".py", ".go", ".cmake", ".toml", ".pl"}


def said(*command):
    """What a program prints; an error of the program ends this one."""
    run = subprocess.run(command, cwd=REPOSITORY, stdout=subprocess.PIPE, text=True)
    if run.returncode != 0:
        sys.exit(f"materials.py: {' '.join(map(str, command))}: exit code {run.returncode}")
    return run.stdout


def accepted(expression):
    """Whether known licences are enough for an SPDX expression."""
    words = re.findall(r"\(|\)|[^\s()]+(?: WITH [^\s()]+)?", expression)

    def joined(word, part):
        parts = [part()]
        while words[:1] == [word]:
            words.pop(0)
            parts.append(part())
        return parts

    def any_of():
        return any(joined("OR", all_of))

    def all_of():
        return all(joined("AND", one))

    def one():
        word = words.pop(0) if words else ""
        if word != "(":
            return word in KNOWN
        inner = any_of()
        return words[:1] == [")"] and words.pop(0) == ")" and inner

    return any_of() and not words


def expression(package):
    """The licence of a crate as an SPDX expression; "/" is an old way to write OR."""
    return re.sub(r"\s*/\s*", " OR ", package["license"] or "")


class Crates:
    """The crates in the tree of the binary, for one target."""

    def __init__(self, target):
        metadata = json.loads(said("cargo", "metadata", "--locked", "--format-version", "1", "--filter-platform", target))
        self.packages = {package["id"]: package for package in metadata["packages"]}
        self.nodes = {node["id"]: node for node in metadata["resolve"]["nodes"]}
        self.root = metadata["resolve"]["root"]
        self.linked = self.reached({None})
        # What only build scripts use is in no binary.
        self.tools = self.reached({None, "build"}) - self.linked
        lock = tomllib.loads((REPOSITORY / "Cargo.lock").read_text())
        self.checksums = {(entry["name"], entry["version"]): entry.get("checksum") for entry in lock["package"]}

    def reached(self, kinds):
        found, next_ones = set(), [self.root]
        while next_ones:
            known = next_ones.pop()
            if known not in found:
                found.add(known)
                next_ones += self.dependencies(known, kinds)
        return found

    def dependencies(self, known, kinds):
        return [
            dependency["pkg"]
            for dependency in self.nodes[known]["deps"]
            if any(kind["kind"] in kinds for kind in dependency["dep_kinds"])
        ]

    def by_name(self, ids):
        return sorted((self.packages[known] for known in ids - {self.root}), key=lambda one: (one["name"], one["version"]))


def licence_texts(package):
    """The licence texts in the sources of a crate."""
    folder = pathlib.Path(package["manifest_path"]).parent
    files = [file for file in sorted(folder.rglob("*")) if LICENCE_FILE.match(file.name) and file.is_file()]
    texts = [file.read_text(errors="replace") for file in files if file.suffix.lower() not in NO_LICENCE]
    if not texts and "Apache-2.0" in re.split(r"[\s()]+", expression(package)):
        # The text of this licence names no holder, so it is the same for every crate.
        texts = [(REPOSITORY / "LICENSE-APACHE").read_text()]
    return texts


class HtmlText(html.parser.HTMLParser):
    """The text of a page."""

    def __init__(self, page):
        super().__init__()
        self.text = ""
        self.feed(page)

    def handle_data(self, data):
        self.text += data


def standard_library():
    """Rust's standard library: name, version, licence, text."""
    version = re.search(r"^release: (.*)$", said("rustc", "-vV"), re.M)[1]
    sysroot = pathlib.Path(said("rustc", "--print", "sysroot").strip())
    page = sysroot / "share/doc/rust/COPYRIGHT-library.html"
    if not page.exists():
        sys.exit(f"materials.py: {page}: the toolchain has no licences of its standard library")
    text = re.sub(r"\n\s*\n\s*\n+", "\n\n", HtmlText(page.read_text()).text)
    return ("rust-std", version, "MIT OR Apache-2.0", text)


def static_libraries(target):
    """What a static binary has from the C compiler: libc and the unwinder, as packages of Debian."""
    if "-musl" in target:
        packages = {"musl-dev": "MIT"}
    else:
        compiler = "cc" if target.split("-")[0] == os.uname().machine else f"{target.split('-')[0]}-linux-gnu-gcc"
        packages = {}
        for library, licence in [
            ("libc.a", "LGPL-2.1-or-later"),
            ("libgcc_eh.a", "GPL-3.0-or-later WITH GCC-exception-3.1"),
        ]:
            file = pathlib.Path(said(compiler, f"-print-file-name={library}").strip()).resolve()
            packages[said("dpkg-query", "--search", file).split(":")[0]] = licence
    for package, licence in packages.items():
        version = said("dpkg-query", "--show", "--showformat=${Version}", package)
        text = pathlib.Path("/usr/share/doc", package, "copyright").read_text()
        if "LGPL" in licence:
            text += "\n" + pathlib.Path("/usr/share/common-licenses/LGPL-2.1").read_text()
            text += "\nThe sources of sessile and its script packaging/static link the binary with another version of libc.\n"
        yield (package, version, licence, text)


def notices(crates, others):
    """The text that goes with a binary. A text that several crates have is written once."""
    texts, wrong = {}, []
    for package in crates.by_name(crates.linked):
        label = f"{package['name']} {package['version']}"
        if not accepted(expression(package)):
            wrong.append(f"{label}: the licence \"{package['license']}\" is not known here")
        found = licence_texts(package)
        if not found:
            wrong.append(f"{label}: the sources have no licence text")
        for text in dict.fromkeys(text.replace("\r\n", "\n").strip() for text in found):
            texts.setdefault(text, []).append(f"{label} ({expression(package)})")
    if wrong:
        sys.exit("materials.py: " + "\nmaterials.py: ".join(wrong))
    for name, version, licence, text in others:
        texts.setdefault(text.strip(), []).append(f"{name} {version} ({licence})")
    head = "sessile contains the following works, each under the licence below its name.\n"
    rule = "\n" + "-" * 78 + "\n"
    return head + "".join(rule + "\n".join(names) + "\n\n" + text + "\n" for text, names in texts.items())


def reference(name, version, kind):
    """The URL by which a bill of materials names a package."""
    return f"pkg:{kind}/{name}@{urllib.parse.quote(version, safe='')}"


def component(name, version, licence, kind):
    return {
        "type": "library",
        "bom-ref": reference(name, version, kind),
        "name": name,
        "version": version,
        "purl": reference(name, version, kind),
        "licenses": [{"expression": licence}],
    }


def bill(crates, others):
    """The bill of materials."""

    def crate(package, scope):
        listed = component(package["name"], package["version"], expression(package), "cargo") | {"scope": scope}
        checksum = crates.checksums[package["name"], package["version"]]
        return listed | ({"hashes": [{"alg": "SHA-256", "content": checksum}]} if checksum else {})

    def named(known):
        return reference(crates.packages[known]["name"], crates.packages[known]["version"], "cargo")

    root = crates.packages[crates.root]
    linked = [crate(package, "required") for package in crates.by_name(crates.linked)]
    tools = [crate(package, "excluded") for package in crates.by_name(crates.tools)]
    beside = [
        component(name, version, licence, "generic" if name == "rust-std" else "deb/debian") | {"scope": "required"}
        for name, version, licence, _ in others
    ]
    listed = crates.linked | crates.tools
    edges = [
        {
            "ref": named(known),
            "dependsOn": sorted({named(one) for one in crates.dependencies(known, {None, "build"}) if one in listed}),
        }
        for known in sorted(listed, key=named)
    ]
    application = component(root["name"], root["version"], expression(root), "cargo") | {"type": "application"}
    content = {"components": linked + beside + tools, "dependencies": edges}
    digest = hashlib.sha256(json.dumps([application, content], sort_keys=True).encode()).hexdigest()
    moment = datetime.datetime.fromtimestamp(int(os.environ.get("SOURCE_DATE_EPOCH", "0")), datetime.timezone.utc)
    return {
        "bomFormat": "CycloneDX",
        "specVersion": "1.5",
        "serialNumber": f"urn:uuid:{uuid.uuid5(uuid.NAMESPACE_OID, digest)}",
        "version": 1,
        "metadata": {"timestamp": moment.strftime("%Y-%m-%dT%H:%M:%SZ"), "component": application},
        **content,
    }


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--target", required=True, help="the target of the binary, as rustc names it")
    parser.add_argument("--static", action="store_true", help="the binary contains libc")
    parser.add_argument("--sbom", required=True, help="the bill of materials to write")
    parser.add_argument("--notices", required=True, help="the licence texts to write")
    arguments = parser.parse_args()
    crates = Crates(arguments.target)
    others = [standard_library(), *(static_libraries(arguments.target) if arguments.static else [])]
    pathlib.Path(arguments.notices).write_text(notices(crates, others))
    pathlib.Path(arguments.sbom).write_text(json.dumps(bill(crates, others), indent=1) + "\n")


if __name__ == "__main__":
    main()
