"""Readable files and directories that are reached through links."""

from __future__ import annotations

import subprocess
from collections.abc import Sequence
from pathlib import Path

from sandbox.containment import Reach
from tests.sandboxes import real_sandbox


def said_inside(script: str, readable: Sequence[Path]) -> str:
    command = real_sandbox().containment.around(["/bin/sh", "-c", script], Reach((), (*readable,)))
    return subprocess.run(command, check=True, capture_output=True, text=True, timeout=20).stdout


def a_program(path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("#!/bin/sh\necho ran\n")
    path.chmod(0o755)
    return path


def test_a_link_in_a_readable_directory(tmp_path: Path):
    """Claude Code installs itself in this way."""
    program = a_program(tmp_path / "share" / "claude" / "versions" / "2.1.330")
    link = tmp_path / "bin" / "claude"
    link.parent.mkdir()
    link.symlink_to(program)
    assert said_inside(str(link), [link.parent, link]) == "ran\n"
    assert said_inside(str(link), [link, link.parent]) == "ran\n"
    # The link shows only its target, and no other entry of its directory.
    assert said_inside(f"ls {program.parent}", [link]) == "2.1.330\n"


def test_a_link_in_a_parent_directory(tmp_path: Path):
    program = a_program(tmp_path / "v20" / "bin" / "node")
    (tmp_path / "current").symlink_to("v20")
    by_link = tmp_path / "current" / "bin" / "node"
    assert said_inside(f"{by_link}; {program}", [by_link, by_link.parent]) == "ran\nran\n"
    assert said_inside(str(by_link), [by_link]) == "ran\n"


def test_system_links_and_dangling_links(tmp_path: Path):
    (tmp_path / "dangling").symlink_to(tmp_path / "nowhere")
    paths = [Path("/usr/bin/sh"), Path("/bin"), tmp_path / "dangling", tmp_path / "missing"]
    assert said_inside(f"ls {tmp_path}", paths) == "dangling\n"
