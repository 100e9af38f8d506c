"""The usual programs of jobs work in the sandbox."""

from __future__ import annotations

import functools
import hashlib
import io
import json
import shutil
import subprocess
import tarfile
import threading
import zipfile
from collections.abc import Iterator
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from domain.configuration.isolation import HostRule, Network
from sandbox.proxy.policy import Policy
from tests.integration.sandbox.accounts import Account
from tests.integration.sandbox.contained import ContainedJob, contained_room

HOST = "127.0.0.2"
"""The name of the server, which is reached through the proxy, unlike 127.0.0.1."""


@pytest.fixture(scope="module")
def job(account: Account) -> Iterator[ContainedJob]:
    with contained_room(account) as made:
        yield made


@pytest.fixture
def repository(job: ContainedJob) -> Iterator[Path]:
    path = job.work / "repository"
    subprocess.run(["git", "init", "--quiet", "--initial-branch=main", path], check=True)
    job.account.own(path)
    yield path
    shutil.rmtree(path)


class Quiet(SimpleHTTPRequestHandler):
    def log_message(self, format: str, *arguments: object) -> None:
        pass


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ThreadingHTTPServer]:
    """Serve a file, a Python index, an npm registry and a git repository."""
    directory = tmp_path_factory.mktemp("served")
    (directory / "hello").write_text("hello\n")
    with ThreadingHTTPServer(
        (HOST, 0), functools.partial(Quiet, directory=str(directory))
    ) as served:
        make_python_index(directory / "simple" / "demo-package")
        make_npm_package(directory, f"http://{HOST}:{served.server_port}")
        make_git_repository(directory)
        threading.Thread(target=served.serve_forever, daemon=True).start()
        yield served
        served.shutdown()


def make_python_index(directory: Path) -> None:
    directory.mkdir(parents=True)
    name = "demo_package-1.0-py3-none-any.whl"
    files = {
        "demo_package.py": "word = 'installed'\n",
        "demo_package-1.0.dist-info/METADATA": (
            "Metadata-Version: 2.1\nName: demo-package\nVersion: 1.0\n"
        ),
        "demo_package-1.0.dist-info/WHEEL": (
            "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
        ),
    }
    record = "".join(f"{each},,\n" for each in (*files, "demo_package-1.0.dist-info/RECORD"))
    with zipfile.ZipFile(directory / name, "w") as wheel:
        for each, content in files.items():
            wheel.writestr(each, content)
        wheel.writestr("demo_package-1.0.dist-info/RECORD", record)
    (directory / "index.html").write_text(f'<a href="{name}">{name}</a>')


def make_npm_package(directory: Path, url: str) -> None:
    package = {"name": "demo-package", "version": "1.0.0", "main": "index.js"}
    content = io.BytesIO()
    with tarfile.open(fileobj=content, mode="w:gz") as tar:
        for name, text in (
            ("package.json", json.dumps(package)),
            ("index.js", "module.exports = 'installed'\n"),
        ):
            entry = tarfile.TarInfo(f"package/{name}")
            entry.size = len(text)
            tar.addfile(entry, io.BytesIO(text.encode()))
    (directory / "demo.tgz").write_bytes(content.getvalue())
    checksum = hashlib.sha1(content.getvalue()).hexdigest()
    version = {**package, "dist": {"tarball": f"{url}/demo.tgz", "shasum": checksum}}
    document = {
        "name": "demo-package",
        "dist-tags": {"latest": "1.0.0"},
        "versions": {"1.0.0": version},
    }
    (directory / "demo-package").write_text(json.dumps(document))


def make_git_repository(directory: Path) -> None:
    source = directory / "source"
    identity = ("-c", "user.name=A", "-c", "user.email=a@example.com")
    for command in (
        ("init", "--quiet", str(source)),
        ("-C", str(source), *identity, "commit", "--quiet", "--allow-empty", "-m", "First"),
        ("clone", "--quiet", "--bare", str(source), str(directory / "served.git")),
        ("-C", str(directory / "served.git"), "update-server-info"),
    ):
        subprocess.run(["git", *command], check=True)


@pytest.fixture(scope="module")
def url(server: ThreadingHTTPServer) -> str:
    return f"http://{HOST}:{server.server_port}"


@pytest.fixture(scope="module")
def policy(server: ThreadingHTTPServer) -> Policy:
    return Policy(Network.NONE, exempt=frozenset({(HOST, server.server_port)}))


GIT = {
    "amend": "echo a > a; git add a; git commit -qm A; echo b > a; git commit -qa --amend -m B",
    "rebase": (
        "for n in 1 2 3; do echo $n > $n; git add $n; git commit -qm $n; done\n"
        "GIT_SEQUENCE_EDITOR='sed -i 2s/pick/fixup/' git rebase -q -i --root\n"
        'test "$(git rev-list --count HEAD)" = 2; test -e 2'
    ),
    "stash": (
        "echo a > a; git add a; git commit -qm A; echo b > a; git stash -q; grep -q a a\n"
        "git stash pop -q; grep -q b a"
    ),
    "submodule": (
        "git init -q ../part; git -C ../part commit -q --allow-empty -m Part\n"
        "git -c protocol.file.allow=always submodule --quiet add ../part part\n"
        "git commit -qm Submodule; git submodule status | grep -q part; rm -rf ../part"
    ),
    "lfs": (
        "git lfs install --local > /dev/null; git lfs track '*.bin' > /dev/null\n"
        "head -c 100000 /dev/urandom > a.bin; git add -A; git commit -qm Large\n"
        "git cat-file blob HEAD:a.bin | grep -q git-lfs; git lfs ls-files | grep -q a.bin"
    ),
}


@pytest.mark.parametrize("name", GIT)
async def test_git(job: ContainedJob, repository: Path, name: str):
    await job.shell(f"cd {repository}\n{GIT[name]}")


async def test_files_are_fetched_through_the_proxy(job: ContainedJob, url: str, policy: Policy):
    script = f"curl -sSf {url}/hello; wget -qO- {url}/hello; git ls-remote {url}/served.git HEAD"
    printed = (await job.shell(script, policy=policy)).split()
    assert printed[:2] == ["hello", "hello"]
    assert printed[-1] == "HEAD"


async def test_a_refusal_is_shown_by_the_program(job: ContainedJob, url: str):
    policy = Policy(Network.HOSTS, (HostRule.parse("example.com"),))
    said = await job.shell(f"curl -sS {url}/hello", policy=policy)
    assert said == (
        f"The sandbox does not allow {HOST}. The operator can add it to SANDBOX_HOSTS.\n"
    )


async def test_pip_installs_through_the_proxy(job: ContainedJob, url: str, policy: Policy):
    if not shutil.which("pip3", path="/usr/bin"):
        pytest.skip("pip is not installed")
    script = (
        f"pip3 install -q --index-url {url}/simple --trusted-host {HOST} --target lib demo-package"
        "\nPYTHONPATH=lib python3 -c 'import demo_package; print(demo_package.word)'"
    )
    assert await job.shell(script, policy=policy, seconds=60) == "installed\n"


async def test_npm_installs_through_the_proxy(job: ContainedJob, url: str, policy: Policy):
    if not shutil.which("npm", path="/usr/bin"):
        pytest.skip("npm is not installed")
    script = (
        f"mkdir -p node; cd node; npm install --silent --registry {url} demo-package > /dev/null\n"
        "node -e 'console.log(require(\"demo-package\"))'"
    )
    assert await job.shell(script, policy=policy, seconds=60) == "installed\n"


PROGRAMS = {
    "a server of its own": (
        "python3 -m http.server --bind 127.0.0.1 8000 > /dev/null 2>&1 & echo x > served\n"
        "until curl -sf http://127.0.0.1:8000/served; do sleep 0.1; done"
    ),
    "files written at once": (
        "for n in $(seq 20); do (head -c 1M /dev/urandom > parallel-$n) & done; wait\n"
        "ls parallel-* | wc -l"
    ),
    "processes of Python": (
        "python3 -c 'import multiprocessing as m\n"
        'if __name__ == "__main__": print(sum(m.Pool(4).map(abs, range(-9, 0))))\''
    ),
    "a terminal": "script -qec 'tty; stty size' /dev/null",
    "a socket": (
        "python3 -c 'import socket, os\n"
        'a = socket.socket(socket.AF_UNIX); a.bind("socket"); a.listen()\n'
        'b = socket.socket(socket.AF_UNIX); b.connect("socket"); b.send(b"x")\n'
        "print(a.accept()[0].recv(1))'; rm socket"
    ),
    "temporary files": "mktemp; mktemp -p /dev/shm; test -k /tmp; test -k /dev/shm",
    "names": "whoami || id -u; getent hosts localhost; hostname",
}


@pytest.mark.parametrize("name", PROGRAMS)
async def test_programs(job: ContainedJob, name: str):
    assert await job.shell(PROGRAMS[name])


async def test_large_output(job: ContainedJob):
    printed = await job.shell("head -c 20M /dev/zero | tr '\\0' x")
    assert printed == "x" * (20 << 20)
