"""Steps for scripted conversations."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Any

from fakes.anthropic.steps import Step


def say(text: str, **more: Any) -> Step:
    """Answer and end the turn."""
    step: Step = {"text": text, **more}  # type: ignore[typeddict-item]
    return step


def use(tool: str, **tool_input: Any) -> Step:
    """Call one tool."""
    return {"tools": [[tool, tool_input]]}


def write(path: str, content: str) -> Step:
    """Write a file in the worktree."""
    return use("Write", file_path=f"$CWD/{path}", content=content)


def bash(command: str) -> Step:
    """Run a shell command in the worktree."""
    return use("Bash", command=command)


def python(code: str) -> Step:
    """Run Python code in the worktree; the Bash tool refuses a long `sleep`."""
    return bash(f"python3 -c {shlex.quote(code)}")


def wait_for_file(path: Path, seconds: float = 90) -> Step:
    """Wait until the test creates a file, so that it controls the progress of Claude."""
    return python(
        "import pathlib, time\n"
        f"end = time.monotonic() + {seconds}\n"
        f"while not pathlib.Path({str(path)!r}).exists():\n"
        "    assert time.monotonic() < end\n"
        "    time.sleep(0.05)\n"
    )


COMMIT_ALL = "git add -A && git commit -qm"


def overwrite_session(content: str) -> str:
    """Return a command that replaces the session file with this line."""
    files = "$CLAUDE_CONFIG_DIR/projects/*/*.jsonl"
    return f"for file in {files}; do echo {shlex.quote(content)} > $file; done"
