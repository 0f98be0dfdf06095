#!/usr/bin/python3
"""Does with a container file what a builder of images does: containerfile.py FILE CONTEXT ROOT.

Copies into the empty folder ROOT what the file copies from the folder CONTEXT, and prints as JSON how the image is run.
Knows the instructions that packaging/Containerfile has, in exec form; any other is an error.
"""

import json
import os
import pathlib
import shutil
import sys


def give(path, owner, mode):
    """Sets owner and mode. Where the file does not say, the owner is root and the mode that of the source."""
    os.chown(path, *owner)
    if mode is not None and not path.is_dir():
        path.chmod(mode)


def copy(words, context, root):
    options = dict(word[2:].split("=", 1) for word in words if word.startswith("--"))
    source, target = [word for word in words if not word.startswith("--")]
    owner = tuple(int(number) for number in options.pop("chown", "0:0").split(":"))
    mode = int(options.pop("chmod"), 8) if "chmod" in options else None
    assert not options, f"COPY: {options}"
    source, into = context / source, root / target.lstrip("/")
    if not source.is_dir():
        into.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(source, into)
        give(into, owner, mode)
        return
    into.mkdir(parents=True, exist_ok=True)
    for path in sorted(source.rglob("*")):
        copied = into / path.relative_to(source)
        if path.is_dir():
            copied.mkdir(exist_ok=True)
        else:
            shutil.copy(path, copied)
        give(copied, owner, mode)


def main():
    file, context, root = (pathlib.Path(argument) for argument in sys.argv[1:])
    image = {}
    for line in file.read_text().splitlines():
        if not line or line.startswith("#"):
            continue
        instruction, rest = line.split(" ", 1)
        match instruction:
            case "FROM":
                assert rest == "scratch", line
            case "COPY":
                copy(rest.split(), context, root)
            case "USER" | "STOPSIGNAL" | "EXPOSE":
                image[instruction] = rest
            case "ENTRYPOINT" | "CMD":
                image[instruction] = json.loads(rest)
            case "HEALTHCHECK":
                image[instruction] = json.loads(rest.split(" CMD ", 1)[1])
            case _:
                sys.exit(f"{file}: {instruction} is not known here")
    print(json.dumps(image))


main()
