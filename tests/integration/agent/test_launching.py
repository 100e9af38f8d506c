from __future__ import annotations

import os
from pathlib import Path

import pytest

from agent.claude.arguments import Launch, command_line
from agent.claude.environment import child_environment, config_dir_of
from agent.process.marker import Marker
from domain.configuration.claude_env import CLAUDE_CREDENTIAL_NAMES, PASSED_NAMES
from domain.jobs import JobType

SESSION = "6f9619ff-8b86-4011-b42d-00c04fc964ff"


def launch(job_type: JobType, **changes: object) -> Launch:
    fields: dict[str, object] = {
        "job_type": job_type,
        "session_id": SESSION,
        "resume": False,
        "model": None,
        "max_turns": None,
        "max_budget_usd": None,
        "system_prompt": "",
        "mcp_config": None,
        "mcp_servers": (),
        "task_tools": (),
    }
    return Launch(**{**fields, **changes})  # type: ignore[arg-type]


def options(line: list[str]) -> dict[str, str]:
    """Return the value of each flag."""
    following = [*line[1:], "--end"]
    return {
        flag: "" if value.startswith("--") else value
        for flag, value in zip(line, following, strict=True)
        if flag.startswith("--")
    }


def test_both_job_types_use_stream_json_and_no_repository_settings() -> None:
    for job_type in JobType:
        line = command_line(Path("/bin/claude"), launch(job_type))
        flags = options(line)
        assert line[0] == "/bin/claude"
        assert flags["--input-format"] == flags["--output-format"] == "stream-json"
        assert {"--print", "--verbose", "--strict-mcp-config", "--disable-slash-commands"} <= set(
            flags
        )
        assert flags["--session-id"] == SESSION
        assert "--resume" not in flags


def test_a_code_job_may_do_everything_in_its_worktree() -> None:
    flags = options(command_line(Path("claude"), launch(JobType.CODE, task_tools=("WebFetch",))))
    assert flags["--permission-mode"] == "bypassPermissions"
    assert flags["--setting-sources"] == "user"
    assert flags["--tools"].startswith("Bash,Edit,Write,Read,Glob,Grep")
    assert "WebFetch" not in flags["--tools"]


def test_a_task_job_may_only_read_and_use_configured_tools() -> None:
    asked = launch(
        JobType.TASK,
        mcp_config=Path("/etc/mcp.json"),
        mcp_servers=("jobs", "wiki"),
        task_tools=("WebSearch",),
    )
    flags = options(command_line(Path("claude"), asked))
    assert "--restricted" in flags
    assert flags["--permission-mode"] == "dontAsk"
    assert flags["--tools"] == "Read,Grep,Glob,WebSearch"
    assert flags["--allowedTools"] == "WebSearch,mcp__jobs,mcp__wiki"
    assert flags["--mcp-config"] == "/etc/mcp.json"


def test_limits_model_and_resuming() -> None:
    asked = launch(JobType.CODE, resume=True, model="m", max_turns=7, max_budget_usd=1.5)
    flags = options(command_line(Path("claude"), asked))
    assert flags["--resume"] == SESSION
    assert "--session-id" not in flags
    assert (flags["--model"], flags["--max-turns"], flags["--max-budget-usd"]) == ("m", "7", "1.5")


def test_a_limit_of_zero_is_passed() -> None:
    flags = options(command_line(Path("claude"), launch(JobType.CODE, max_budget_usd=0.0)))
    assert flags["--max-budget-usd"] == "0.0"


def test_a_system_prompt_file_replaces_the_argument() -> None:
    asked = launch(JobType.CODE, system_prompt="Rules.")
    assert options(command_line(Path("c"), asked))["--append-system-prompt"] == "Rules."
    by_file = command_line(Path("c"), asked, Path("/dev/fd/7"))
    assert options(by_file)["--append-system-prompt-file"] == "/dev/fd/7"
    assert "Rules." not in by_file


@pytest.mark.parametrize("name", ["a,Bash", "", "a b", "Bash(git *)", "a\nb"])
def test_a_name_cannot_widen_the_permissions(name: str) -> None:
    for field in ("mcp_servers", "task_tools"):
        with pytest.raises(ValueError, match="not a tool or MCP server name"):
            command_line(Path("claude"), launch(JobType.TASK, **{field: (name,)}))


def environment(passed: dict[str, str], config_dir: Path | None = None) -> dict[str, str]:
    return child_environment(
        passed,
        search_path="/usr/bin",
        home=Path("/home/job"),
        config_dir=config_dir,
        marker=Marker("data", "boot", "job"),
        identity={"GIT_AUTHOR_NAME": "A"},
        temporary=Path("/tmp/job"),
    )


def test_the_environment_has_the_passed_and_the_fixed_variables(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    monkeypatch.setenv("SOMETHING_OF_THE_WORKER", "x")
    variables = environment({"ANTHROPIC_API_KEY": "k", "LANG": "de_DE.UTF-8"}, Path("/config"))
    assert variables["ANTHROPIC_API_KEY"] == "k"
    assert variables["LANG"] == "de_DE.UTF-8"
    assert variables["ORCHESTRATOR_RUN"] == "data/boot/job"
    assert (variables["HOME"], variables["TMPDIR"], variables["PATH"]) == (
        "/home/job",
        "/tmp/job",
        "/usr/bin",
    )
    assert variables["GIT_AUTHOR_NAME"] == "A"
    assert variables["GIT_TERMINAL_PROMPT"] == "0"
    assert variables["CLAUDE_CODE_DISABLE_FILE_MENTIONS"] == "1"
    assert "IS_SANDBOX" not in variables
    assert "SOMETHING_OF_THE_WORKER" not in variables
    assert config_dir_of(variables) == Path("/config")
    assert config_dir_of(environment({})) == Path("/home/job/.claude")
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    assert environment({})["IS_SANDBOX"] == "1"


@pytest.mark.parametrize(
    "name",
    [
        "GITHUB_TOKEN",
        "GH_TOKEN",
        "AGENT_API_SECRET",
        "SUPABASE_URL",
        "SUPABASE_SERVICE_ROLE_KEY",
        "TEMPORAL_API_KEY",
        "DATABASE_URL",
        "PATH",
        "LD_PRELOAD",
        "PYTHONPATH",
    ],
)
def test_no_other_name_can_be_passed(name: str) -> None:
    with pytest.raises(ValueError, match=name):
        environment({name: "x"})
    assert name not in PASSED_NAMES


def test_identity_allows_only_git_variables() -> None:
    with pytest.raises(ValueError, match="GIT_SSH_COMMAND"):
        child_environment(
            {},
            search_path="",
            home=Path("/"),
            config_dir=None,
            marker=Marker("d", "b", "j"),
            identity={"GIT_SSH_COMMAND": "x"},
        )


def test_the_documented_credentials_may_be_passed() -> None:
    documented = {"ANTHROPIC_API_KEY", "CLAUDE_CODE_OAUTH_TOKEN", "ANTHROPIC_BASE_URL"}
    assert documented <= CLAUDE_CREDENTIAL_NAMES <= PASSED_NAMES
