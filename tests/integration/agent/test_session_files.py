from __future__ import annotations

import json
import logging
import os
import tracemalloc
import uuid
from collections.abc import Callable
from pathlib import Path

import pytest

from agent.claude import session_files
from agent.claude.session_files import SessionFiles, directory_name, holds_message, usage_so_far
from domain.jobs import Usage

SESSION = "6f9619ff-8b86-4011-b42d-00c04fc964ff"


def cost_state(cost: float, tokens: int) -> bytes:
    usage = {"m": {"inputTokens": tokens}}
    fields = {"type": "cost-state", "totalCostUSD": cost, "modelUsage": usage}
    return json.dumps(fields, separators=(",", ":")).encode()


def entry(name: str) -> bytes:
    return json.dumps({"type": "user", "uuid": name}).encode() + b"\n"


def files_in(home: Path, session_id: str = SESSION, *, is_shared: bool = False) -> SessionFiles:
    return SessionFiles(home / ".claude", Path("/srv/tree"), session_id, is_shared)


def transcript_of(home: Path, directory: str = "-srv-tree") -> Path:
    return home / ".claude" / "projects" / directory / f"{SESSION}.jsonl"


@pytest.fixture
def home(tmp_path: Path) -> Path:
    made = tmp_path / "home"
    made.mkdir()
    return made


@pytest.fixture
def neighbour(tmp_path: Path) -> Path:
    """The home of another job, with a session file."""
    made = tmp_path / "neighbour"
    made.mkdir()
    files_in(made).restore(entry("the neighbour's"))
    return made


def test_a_restored_file_can_be_read(home: Path) -> None:
    files = files_in(home)
    assert files.read() is None
    for name in ("one", "two"):
        files.restore(entry(name))
        assert files.read() == entry(name)
    assert transcript_of(home).stat().st_mode & 0o077 == 0
    assert files_in(home, str(uuid.uuid4())).read() is None


@pytest.mark.parametrize(
    "damaged",
    [b"", b"\n", b"\0" * 4096, b"[1]\n2\n{", b'{"type":"queue-operation","operation":"enqueue"}\n'],
    ids=["empty", "blank", "zeros", "not entries", "only queued"],
)
def test_a_file_without_a_conversation_is_ignored(home: Path, damaged: bytes) -> None:
    files = files_in(home)
    files.restore(damaged)
    assert files.read() is None
    files.restore(damaged + b"\n" + entry("one")[:-1])
    assert files.read() is not None
    files.restore(entry("one") + damaged)
    assert files.read() is not None


def test_discard_deletes_only_its_session(home: Path) -> None:
    other = str(uuid.uuid4())
    for session in (SESSION, other):
        files_in(home, session).restore(entry("one"))
    named_otherwise = transcript_of(home, "otherwise")
    named_otherwise.parent.mkdir()
    named_otherwise.write_bytes(entry("one"))
    for _ in range(2):
        files_in(home).discard()
        assert files_in(home).read() is None
        assert not named_otherwise.exists()
    assert files_in(home, other).read() == entry("one")


@pytest.mark.parametrize("name", ["../../etc/passwd", "*", ""])
def test_a_session_id_cannot_be_a_path(home: Path, name: str) -> None:
    with pytest.raises(ValueError, match="UUID"):
        files_in(home, name)


def test_only_the_directory_of_the_cli_is_read(home: Path) -> None:
    for directory in ("a", "zz"):
        transcript_of(home, directory).parent.mkdir(parents=True)
        transcript_of(home, directory).write_bytes(entry(directory))
    assert files_in(home).read() is None


def fifo(home: Path, neighbour: Path) -> None:
    transcript_of(home).parent.mkdir(parents=True)
    os.mkfifo(transcript_of(home))


def sparse(home: Path, neighbour: Path) -> None:
    files_in(home).restore(entry("one"))
    os.truncate(transcript_of(home), 4 << 30)


def link(home: Path, neighbour: Path) -> None:
    transcript_of(home).parent.mkdir(parents=True)
    transcript_of(home).symlink_to(transcript_of(neighbour))


def dangling_link(home: Path, neighbour: Path) -> None:
    transcript_of(home).parent.mkdir(parents=True)
    transcript_of(home).symlink_to(transcript_of(neighbour).with_name("soon.jsonl"))


def directory(home: Path, neighbour: Path) -> None:
    (transcript_of(home) / "inside").mkdir(parents=True)


def linked_directory(home: Path, neighbour: Path) -> None:
    transcript_of(home).parent.parent.mkdir(parents=True)
    transcript_of(home).parent.symlink_to(transcript_of(neighbour).parent)


def linked_projects(home: Path, neighbour: Path) -> None:
    (home / ".claude").mkdir()
    (home / ".claude" / "projects").symlink_to(neighbour / ".claude" / "projects")


def linked_configuration(home: Path, neighbour: Path) -> None:
    (home / ".claude").symlink_to(neighbour / ".claude")


def file_for_directory(home: Path, neighbour: Path) -> None:
    (home / ".claude").touch()


ATTACKS = [
    fifo, sparse, link, dangling_link, directory, linked_directory, linked_projects,
    linked_configuration, file_for_directory,
]  # fmt: skip


@pytest.mark.parametrize("attack", ATTACKS)
def test_an_unsafe_file_is_ignored(
    home: Path,
    neighbour: Path,
    caplog: pytest.LogCaptureFixture,
    attack: Callable[[Path, Path], None],
) -> None:
    attack(home, neighbour)
    files = files_in(home)
    assert files.read() is None
    (warning,) = caplog.records
    assert warning.levelno == logging.WARNING
    assert f"The session file of job {SESSION} was ignored" in warning.getMessage()
    for _ in range(2):
        files.restore(entry("mine"))
        assert files.read() == entry("mine")
    assert files_in(neighbour).read() == entry("the neighbour's")


@pytest.mark.parametrize("attack", ATTACKS)
def test_an_unsafe_file_can_be_discarded(
    home: Path, neighbour: Path, attack: Callable[[Path, Path], None]
) -> None:
    attack(home, neighbour)
    for _ in range(2):
        files_in(home).discard()
        assert transcript_of(home).parent.is_dir()
        assert not transcript_of(home).parent.is_symlink()
        assert list(transcript_of(home).parent.iterdir()) == []
    assert files_in(neighbour).read() == entry("the neighbour's")
    assert not transcript_of(neighbour).with_name("soon.jsonl").exists()


def test_a_too_large_file_is_ignored(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    files = files_in(home)
    monkeypatch.setattr(session_files, "MAX_TRANSCRIPT_BYTES", 100)
    longest = entry("x" * (100 - len(entry(""))))
    files.restore(longest)
    assert files.read() == longest
    files.restore(longest + b"\n")
    assert files.read() is None


def test_the_operators_directory_may_be_a_link(tmp_path: Path, home: Path) -> None:
    (home / ".claude").mkdir()
    (home / ".claude" / "projects").symlink_to(tmp_path / "elsewhere")
    files = files_in(home, is_shared=True)
    files.restore(entry("one"))
    assert files.read() == entry("one")
    assert [path.name for path in (tmp_path / "elsewhere").iterdir()] == ["-srv-tree"]
    files.discard()
    assert files.read() is None


def test_other_conversations_of_the_operator_stay(home: Path) -> None:
    """Even if some of them are behind a link."""
    files = files_in(home, is_shared=True)
    files.restore(entry("one"))
    kept = home / "kept" / f"{SESSION}.jsonl"
    kept.parent.mkdir()
    kept.touch()
    (home / ".claude" / "projects" / "linked").symlink_to(kept.parent)
    (home / ".claude" / "projects" / "-srv-tree" / "other.jsonl").touch()
    files.discard()
    assert kept.exists()
    assert (home / ".claude" / "projects" / "linked").is_symlink()
    assert (home / ".claude" / "projects" / "-srv-tree" / "other.jsonl").exists()


def test_the_environment_determines_the_path(home: Path) -> None:
    own = SessionFiles.of({"HOME": "/h", "CLAUDE_CONFIG_DIR": "/c/.claude"}, home, SESSION)
    assert own == SessionFiles(Path("/c/.claude"), home, SESSION, is_shared=False)
    operators = SessionFiles.of({"HOME": "/h"}, home, SESSION)
    assert operators == SessionFiles(Path("/h/.claude"), home, SESSION, is_shared=True)


def test_links_in_the_working_directory_are_resolved(home: Path, tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(tmp_path / "real")
    SessionFiles(home / ".claude", tmp_path / "link", SESSION).restore(entry("one"))
    assert SessionFiles(home / ".claude", tmp_path / "real", SESSION).read() == entry("one")


def test_long_names_end_in_a_checksum() -> None:
    """The expected checksums are from the CLI."""
    assert directory_name("/a.b/c_d e") == "-a-b-c-d-e"
    assert directory_name("/" + "a" * 199) == "-" + "a" * 199
    assert directory_name("/" + "a" * 200) == "-" + "a" * 199 + "-b6ymvl"
    assert directory_name("/\U0001f600" + "é" * 300) == "-" * 200 + "-jtbvce"


def test_messages_are_found_in_every_format_of_the_cli() -> None:
    entries = [
        {"type": "user", "uuid": "alone"},
        {"type": "user", "uuid": "last", "mergedSendUuids": ["merged"]},
        {"type": "attachment", "attachment": {"type": "queued_command", "source_uuid": "during"}},
        {"type": "assistant", "uuid": "claudes", "message": "quoted"},
        {"type": "queue-operation", "commandUuid": "queued"},
        ["listed"],
    ]
    transcript = "\n".join(json.dumps(entry) for entry in entries).encode() + b'\n{"type":"us'
    assert all(holds_message(transcript, name) for name in ("alone", "last", "merged", "during"))
    others = ("claudes", "quoted", "queued", "listed", "unknown", "us")
    assert not any(holds_message(transcript, name) for name in others)


def test_usage_is_from_the_last_recorded_turn() -> None:
    quoted = b'{"type":"user","quoted":' + cost_state(9.0, 90) + b"}"
    cut_off = b'{"type":"cost-state"'
    lines = [cost_state(0.5, 10), b'{"type":"user"}', cost_state(0.75, 20), quoted, cut_off]
    assert usage_so_far(b"\n".join(lines)) == Usage(cost_usd=0.75, input_tokens=20)
    assert usage_so_far(b"") == Usage()


def test_too_large_entries_are_not_parsed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(session_files, "MAX_ENTRY_BYTES", 100)
    fitting = json.dumps({"type": "user", "uuid": "x", "a": "a" * 60})
    assert len(fitting) <= 100
    assert holds_message(fitting.encode(), "x")
    assert not holds_message(fitting.encode() + b" " * 100, "x")


@pytest.mark.parametrize("line", [b"\n", b'"uuid"\n', b'{"type":"cost-state"\n', b"x\n", b"["])
def test_millions_of_lines_use_no_extra_memory(line: bytes) -> None:
    hostile = line * (4_000_000 // len(line))
    tracemalloc.start()
    try:
        assert not holds_message(hostile, "x")
        assert usage_so_far(hostile) == Usage()
        assert tracemalloc.get_traced_memory()[1] < 5_000_000
    finally:
        tracemalloc.stop()


def test_the_search_ends_after_a_number_of_entries(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(session_files, "MAX_ENTRIES", 3)
    for number, found in ((2, True), (3, False)):
        assert holds_message(entry("x") + b'["x"]\n' * number, "x") == found
