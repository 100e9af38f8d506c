"""A contained command inherits only its streams from the worker."""

from __future__ import annotations

import platform
import subprocess
from collections.abc import Iterator

import pytest

from tests.integration.sandbox.accounts import PYTHON, Account
from tests.integration.sandbox.contained import ContainedJob, contained_room

NUMBERS = {"x86_64": (248, 250), "aarch64": (217, 219)}
"""System call numbers of add_key(2) and keyctl(2)."""

KEYS = """
import ctypes, os, sys
libc = ctypes.CDLL(None, use_errno=True)
add_key, keyctl = int(sys.argv[1]), int(sys.argv[2])
SESSION, JOIN, READ, SEARCH = -3, 1, 11, 10
def found():
    key = libc.syscall(keyctl, SEARCH, SESSION, b"user", b"of-the-worker", 0)
    buffer = ctypes.create_string_buffer(100)
    size = libc.syscall(keyctl, READ, key, buffer, 100) if key > 0 else 0
    return buffer.raw[:max(0, size)].decode()
"""
LOOKING = f"{KEYS}\nsys.stdout.write(found())"
WITH_A_KEY = f"""{KEYS}
libc.syscall(keyctl, JOIN, None)
libc.syscall(add_key, b"user", b"of-the-worker", b"canary-key", 10, SESSION)
assert found() == "canary-key", os.strerror(ctypes.get_errno())
os.execv(sys.argv[3], sys.argv[3:])
"""


@pytest.fixture(scope="module")
def job(account: Account) -> Iterator[ContainedJob]:
    with contained_room(account) as made:
        yield made


async def test_no_descriptor_is_inherited(job: ContainedJob):
    code = "import os; print(sorted(map(int, os.listdir('/proc/self/fd')))[:-1])"
    ended = await job.python(code)
    assert ended.stdout == "[0, 1, 2]\n"


async def test_no_key_of_the_session_is_inherited(job: ContainedJob):
    numbers = list(map(str, NUMBERS[platform.machine()]))
    with_a_key = [PYTHON, "-I", "-S", "-c", WITH_A_KEY, *numbers]
    looking = [PYTHON, "-I", "-S", "-c", LOOKING, *numbers]
    outside = subprocess.run(  # noqa: ASYNC221
        [*with_a_key, *looking], capture_output=True, text=True, **job.account.popen
    )
    if outside.returncode:
        pytest.skip(f"there are no keys here: {outside.stderr}")
    assert outside.stdout == "canary-key"
    ended = await job.run(*looking, below=with_a_key)
    assert (ended.code, ended.stdout) == (0, "")
