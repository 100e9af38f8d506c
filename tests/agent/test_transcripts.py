from __future__ import annotations

import json
import os
import uuid
from pathlib import Path

import pytest

from agent.sessions import (
    discard_transcripts,
    holds_message,
    read_transcript,
    restore_transcript,
    usage_so_far,
)
from domain.jobs import Usage

SESSION = "6f9619ff-8b86-4011-b42d-00c04fc964ff"


def cost_state(cost: float, tokens: int) -> bytes:
    usage = {"m": {"inputTokens": tokens}}
    fields = {"type": "cost-state", "totalCostUSD": cost, "modelUsage": usage}
    return json.dumps(fields, separators=(",", ":")).encode()


def entry(name: str) -> bytes:
    return json.dumps({"type": "user", "uuid": name}).encode() + b"\n"


def test_a_restored_transcript_is_read_back(tmp_path: Path) -> None:
    assert read_transcript(tmp_path, SESSION) is None
    restore_transcript(tmp_path, SESSION, entry("one"))
    restore_transcript(tmp_path, SESSION, entry("two"))
    assert read_transcript(tmp_path, SESSION) == entry("two")
    assert read_transcript(tmp_path, str(uuid.uuid4())) is None


def test_restoring_leaves_one_file_whatever_was_there(tmp_path: Path) -> None:
    for number, directory in enumerate(("a", "b")):
        path = tmp_path / "projects" / directory / f"{SESSION}.jsonl"
        path.parent.mkdir(parents=True)
        path.write_bytes(entry(directory))
        os.utime(path, (number, number))
    assert read_transcript(tmp_path, SESSION) == entry("b")

    restore_transcript(tmp_path, SESSION, b"new")

    files = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert [path.parent.name for path in files] == ["b"]
    assert files[0].read_bytes() == b"new"
    assert files[0].stat().st_mode & 0o077 == 0


@pytest.mark.parametrize(
    "damaged",
    [b"", b"\n", b"\0" * 4096, b"[1]\n2\n{", b'{"type":"queue-operation","operation":"enqueue"}\n'],
    ids=["empty", "blank", "zeros", "not entries", "only queued"],
)
def test_without_an_entry_of_the_conversation_there_is_no_transcript(
    tmp_path: Path, damaged: bytes
) -> None:
    restore_transcript(tmp_path, SESSION, damaged)
    assert read_transcript(tmp_path, SESSION) is None
    restore_transcript(tmp_path, SESSION, damaged + b"\n" + entry("one")[:-1])
    assert read_transcript(tmp_path, SESSION) is not None


def test_a_discarded_session_is_gone_and_others_are_not(tmp_path: Path) -> None:
    other = str(uuid.uuid4())
    for session in (SESSION, other):
        restore_transcript(tmp_path, session, entry("one"))
    for _ in range(2):
        discard_transcripts(tmp_path, SESSION)
        assert read_transcript(tmp_path, SESSION) is None
    assert read_transcript(tmp_path, other) == entry("one")


@pytest.mark.parametrize("name", ["../../etc/passwd", "*", ""])
def test_a_session_id_is_no_path(tmp_path: Path, name: str) -> None:
    with pytest.raises(ValueError, match="UUID"):
        read_transcript(tmp_path, name)


def test_messages_are_found_in_every_form_in_which_the_cli_keeps_them() -> None:
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


def test_usage_is_that_of_the_last_turn_that_was_recorded() -> None:
    lines = [cost_state(0.5, 10), b'{"type":"user"}', cost_state(0.75, 20), b'{"type":"cost-state"']
    assert usage_so_far(b"\n".join(lines)) == Usage(cost_usd=0.75, input_tokens=20)
    assert usage_so_far(b"") == Usage()
