"""File operations to run inside and outside of a sandbox.

`python file_operations.py DIRECTORY ALLOWED` runs each operation on separate files that `prepare`
created in DIRECTORY. ALLOWED is the directory for the other end of links and moves. The output is a
JSON object: for each operation, "done" or the name of the error.
"""

from __future__ import annotations

import errno
import json
import os
import socket
import subprocess
import sys
from pathlib import Path

CONTENT = "content\n"


def read(place, _):
    assert (place / "file").read_text() == CONTENT


def enumerate_directory(place, _):
    assert os.listdir(place)


def write(place, _):
    os.close(os.open(place / "file", os.O_WRONLY))


def append(place, _):
    with (place / "file").open("a") as file:
        file.write("more\n")


def create(place, _):
    (place / "new").write_text(CONTENT)


def create_unnamed(place, _):
    os.close(os.open(place, os.O_TMPFILE | os.O_WRONLY))


def truncate(place, _):
    os.truncate(place / "file", 0)


def truncate_on_open(place, _):
    os.close(os.open(place / "file", os.O_WRONLY | os.O_TRUNC))


def execute(place, _):
    subprocess.run([place / "program"], check=True)


def remove(place, _):
    (place / "file").unlink()


def make_directory(place, _):
    (place / "made").mkdir()


def remove_directory(place, _):
    (place / "empty").rmdir()


def make_fifo(place, _):
    os.mkfifo(place / "fifo")


def make_symlink(place, _):
    (place / "link").symlink_to("file")


def make_socket(place, _):
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(place / "new-socket"))


def rename(place, _):
    (place / "file").rename(place / "renamed")


def move_out(place, allowed):
    (place / "file").rename(allowed / "moved-out")


def move_in(place, allowed):
    (allowed / "own").write_text(CONTENT)
    (allowed / "own").rename(place / "moved-in")


def replace(place, allowed):
    (allowed / "own").write_text(CONTENT)
    (allowed / "own").replace(place / "file")


def link_out(place, allowed):
    os.link(place / "file", allowed / "linked-out")


def link_in(place, allowed):
    (allowed / "own").write_text(CONTENT)
    os.link(allowed / "own", place / "linked-in")


def read_through_symlink(place, allowed):
    (allowed / "path").symlink_to(place / "file")
    assert (allowed / "path").read_text() == CONTENT


def write_through_symlink(place, allowed):
    (allowed / "path").symlink_to(place / "file")
    os.close(os.open(allowed / "path", os.O_WRONLY))


def read_from_working_directory(place, _):
    os.chdir(place)
    assert Path("file").read_text() == CONTENT


READING = [read, enumerate_directory, read_through_symlink, read_from_working_directory]
EXECUTING = [execute]
CHANGING = [
    write,
    append,
    create,
    create_unnamed,
    truncate,
    truncate_on_open,
    remove,
    make_directory,
    remove_directory,
    make_fifo,
    make_symlink,
    make_socket,
    rename,
    move_out,
    move_in,
    replace,
    link_out,
    link_in,
    write_through_symlink,
]
OPERATIONS = [*READING, *EXECUTING, *CHANGING]


def names(operations):
    return {operation.__name__ for operation in operations}


def prepare(directory):
    """Create the files of each operation."""
    for name in names(OPERATIONS):
        place = directory / name
        (place / "empty").mkdir(parents=True)
        (place / "file").write_text(CONTENT)
        (place / "program").write_text("#!/bin/sh\n")
        (place / "program").chmod(0o755)


def outcome(operation, directory, allowed):
    name = operation.__name__
    own = allowed / name
    own.mkdir()
    try:
        operation(directory / name, own)
    except OSError as error:
        return errno.errorcode[error.errno or 0]
    return "done"


def main(directory, allowed):
    found = {each.__name__: outcome(each, directory, allowed) for each in OPERATIONS}
    sys.stdout.write(json.dumps(found))


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
