"""Settings: defaults, all problems at once, and hidden secrets."""

from __future__ import annotations

import json
import re
import traceback
from collections.abc import Mapping
from datetime import timedelta
from pathlib import Path

import pytest
from pydantic import SecretStr

from domain.configuration.claude_env import CLAUDE_SECRET_NAMES, PASSED_NAMES
from domain.configuration.isolation import Network, SandboxMode
from domain.names.http_hosts import HttpHost
from settings import SECRET_NAMES, Settings, SettingsError
from wiring import sandbox_limits, sandbox_search_path

HOME = {"HOME": "/home/ann"}


def read(**variables: str) -> Settings:
    return Settings.from_env({**HOME, **variables})


def problems(**variables: str) -> str:
    with pytest.raises(SettingsError) as caught:
        read(**variables)
    return caught.value.message


def test_defaults_match_the_specification():
    settings = read()
    assert settings.api.port == 3456
    assert settings.jobs.max_concurrent == 2
    assert settings.host.repos_dir == Path("/home/ann/repos")
    assert settings.host.worktrees_dir == Path("/home/ann/worktrees")
    assert settings.api.bind_address == "127.0.0.1"
    assert not settings.store.uses_supabase
    assert settings.github.token is None
    assert settings.jobs.timeout == timedelta(hours=12)


def test_paths_are_absolute_and_expanded(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("HOME", "/home/ann")
    settings = read(REPOS_DIR="~/elsewhere", DATA_DIR="relative")
    assert settings.host.repos_dir == Path("/home/ann/elsewhere")
    assert settings.host.data_dir == Path.cwd() / "relative"


def test_links_in_own_directories_are_resolved(tmp_path: Path):
    """The kernel resolves links in the working directory of a process."""
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to("real")
    names = ("DATA_DIR", "REPOS_DIR", "WORKTREES_DIR")
    settings = read(**{name: str(tmp_path / "link" / name) for name in names})
    found = (settings.host.data_dir, settings.host.repos_dir, settings.host.worktrees_dir)
    assert found == tuple(tmp_path / "real" / name for name in names)


def test_relative_directories_are_removed_from_path():
    assert read(PATH="bin:/usr/bin:.::/opt/../bin:").host.search_path == "/usr/bin:/bin"


@pytest.mark.parametrize(
    ("entry", "name"),
    [
        ("/home/ann/worktrees/job/bin", "WORKTREES_DIR"),
        ("/home/ann/repos", "REPOS_DIR"),
        ("/home/ann/bin/../.claude-code-orchestrator/sessions", "DATA_DIR"),
    ],
)
def test_path_must_not_contain_directories_of_jobs(entry: str, name: str):
    text = problems(PATH=f"/usr/bin:{entry}")
    assert f"which is in {name}: jobs could put programs there. Remove it." in text


def test_all_problems_are_reported_at_once():
    text = problems(
        PORT="http",
        MAX_CONCURRENT_JOBS="0",
        GITHUB_API_URL="ftp://example.org",
        HOST_ID="two words",
        TASK_TOOLS="Bash,WebFetch",
        MCP_CONFIG="/nowhere.json",
        SUPABASE_URL="https://project.supabase.co",
    )
    for name in (
        "PORT", "MAX_CONCURRENT_JOBS", "GITHUB_API_URL", "HOST_ID", "TASK_TOOLS", "MCP_CONFIG",
        "SUPABASE_SERVICE_ROLE_KEY",
    ):  # fmt: skip
        assert name in text


@pytest.mark.parametrize(
    ("given", "missing"),
    [
        ({"SUPABASE_URL": "https://x.supabase.co"}, "SUPABASE_SERVICE_ROLE_KEY is missing"),
        ({"SUPABASE_SERVICE_ROLE_KEY": "sb_secret_x"}, "SUPABASE_URL is missing"),
    ],
)
def test_supabase_needs_url_and_key(given: dict[str, str], missing: str):
    assert missing in problems(**given)


def test_supabase_with_url_and_key():
    settings = read(SUPABASE_URL="https://x.supabase.co", SUPABASE_SERVICE_ROLE_KEY="sb_secret_x")
    assert settings.store.uses_supabase
    assert settings.store.supabase_key == SecretStr("sb_secret_x")


@pytest.mark.parametrize("text", ["-1", "1.5", "０", "99999999999", "1e3", " "])
def test_numbers_are_plain_whole_numbers(text: str):
    if text.strip():
        assert "PORT" in problems(PORT=text)
    else:
        assert read(PORT=text).api.port == 3456


def test_secrets_are_not_in_representations():
    settings = read(
        AGENT_API_SECRET="hush-secret",
        GITHUB_TOKEN="hush-token",
        ANTHROPIC_API_KEY="hush-claude",
        SUPABASE_URL="https://x.supabase.co",
        SUPABASE_SERVICE_ROLE_KEY="hush-key",
    )
    assert "hush" not in repr(settings) + str(settings)
    try:
        raise ValueError(settings.github.token)
    except ValueError:
        assert "hush" not in traceback.format_exc()


@pytest.fixture
def secret_file(tmp_path: Path) -> Path:
    path = tmp_path / "secret"
    path.write_text("hush\n")
    return path


@pytest.mark.parametrize("name", sorted(SECRET_NAMES))
def test_a_secret_can_be_in_a_file(secret_file: Path, name: str):
    given = {f"{name}_FILE": str(secret_file), "SUPABASE_URL": "https://x.supabase.co"}
    if not name.startswith("SUPABASE"):
        del given["SUPABASE_URL"]
    settings = read(**given)
    known = [settings.api.secret, settings.github.token, settings.store.supabase_key]
    found = [secret.get_secret_value() for secret in known if secret] or [
        settings.claude.environment[name]
    ]
    assert found == ["hush"]
    assert f"{name} and {name}_FILE are both set" in problems(**given, **{name: "hush"})


def test_every_secret_of_claude_can_be_in_a_file():
    """Except secrets for which Claude has its own variable of a file."""
    secret = re.compile("KEY|TOKEN|SECRET|PASSPHRASE|HEADERS")
    names = {name for name in PASSED_NAMES if secret.search(name) and not name.endswith("_FILE")}
    by_aws = {"AWS_CONTAINER_AUTHORIZATION_TOKEN"}
    assert names - SECRET_NAMES - by_aws == {"CLAUDE_CODE_CLIENT_KEY"}
    assert "AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE" in PASSED_NAMES


def test_only_line_ends_at_the_end_of_a_secret_file_are_removed(secret_file: Path):
    secret_file.write_text("A: 1\nB: 2\r\n\n")
    found = read(ANTHROPIC_CUSTOM_HEADERS_FILE=str(secret_file)).claude.environment
    assert found["ANTHROPIC_CUSTOM_HEADERS"] == "A: 1\nB: 2"


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "is empty"),
        (b" \n", "is empty"),
        (b"\xff", "is not UTF-8 text"),
        (b"x" * 65_537, "over 64 KiB"),
        (b"a\0b", "control characters"),
        (None, "cannot be read (No such file or directory)"),
    ],
)
def test_unusable_secret_files_are_refused(secret_file: Path, content: bytes | None, words: str):
    if content is None:
        secret_file.unlink()
    else:
        secret_file.write_bytes(content)
    text = problems(GITHUB_TOKEN_FILE=str(secret_file))
    assert words in text
    assert "GITHUB_TOKEN" in text


def test_claude_gets_only_its_own_variables():
    settings = read(
        ANTHROPIC_API_KEY="k", GITHUB_TOKEN="t", AGENT_API_SECRET="s", HTTPS_PROXY="http://p"
    )
    assert settings.claude.has_credentials
    assert dict(settings.claude.environment) == {
        "ANTHROPIC_API_KEY": "k",
        "HTTPS_PROXY": "http://p",
    }
    assert not read(HTTPS_PROXY="http://p").claude.has_credentials


@pytest.mark.parametrize(
    "name",
    [
        "AWS_PROFILE", "AWS_REGION", "GOOGLE_CLOUD_PROJECT", "ANTHROPIC_BASE_URL",
        "ANTHROPIC_DEFAULT_SONNET_MODEL",
    ],
)  # fmt: skip
def test_variables_without_a_credential_do_not_replace_the_login(name: str):
    """Many operators set some of these for other programs."""
    settings = read(**{name: "x"})
    assert not settings.claude.has_credentials
    assert settings.credential_id == read().credential_id
    one, other = ({name: value, "CLAUDE_CODE_OAUTH_TOKEN": "t"} for value in ("x", "y"))
    is_one = read(**one).credential_id == read(**other).credential_id
    assert is_one == (name != "ANTHROPIC_BASE_URL")
    assert dict(settings.claude.environment) == {name: "x"}


def test_variables_of_a_cloud_distinguish_credentials():
    one = read(CLAUDE_CODE_USE_BEDROCK="1", AWS_PROFILE="x", AWS_REGION="eu-central-1")
    assert one.claude.has_credentials
    ids = {one.credential_id, read(CLAUDE_CODE_USE_BEDROCK="1", AWS_PROFILE="y").credential_id}
    assert len(ids) == 2
    elsewhere = read(CLAUDE_CODE_USE_BEDROCK="1", AWS_PROFILE="x", AWS_REGION="us-east-1")
    assert elsewhere.credential_id == one.credential_id


def test_production_reports_all_missing_variables():
    with pytest.raises(SettingsError) as caught:
        read().require_for_production()
    for name in (
        "AGENT_API_SECRET", "TEMPORAL_ADDRESS", "SUPABASE_URL", "SUPABASE_SERVICE_ROLE_KEY",
        "GITHUB_TOKEN",
    ):  # fmt: skip
        assert name in caught.value.message


def test_mcp_servers_are_named_as_claude_names_their_tools(tmp_path: Path):
    config = tmp_path / "mcp.json"
    config.write_text(json.dumps({"mcpServers": {"issues": {}, "odd name.x": {}}}))
    names = [server.name for server in read(MCP_CONFIG=str(config)).claude.mcp_servers]
    assert names == ["issues", "odd_name_x"]


@pytest.mark.parametrize("content", ["", "[]", "{}", '{"mcpServers": 3}', "\xff"])
def test_malformed_mcp_config_is_refused(tmp_path: Path, content: str):
    config = tmp_path / "mcp.json"
    config.write_bytes(content.encode("latin-1"))
    assert "MCP_CONFIG" in problems(MCP_CONFIG=str(config))


def mcp_config(directory: Path, *servers: Mapping[str, object]) -> str:
    config = directory / "mcp.json"
    named = {f"server-{number}": server for number, server in enumerate(servers)}
    config.write_text(json.dumps({"mcpServers": named}))
    return str(config)


def test_jobs_read_the_files_of_mcp_servers(tmp_path: Path):
    command = {"command": "/srv/serve", "args": ["--data", "/srv/data"]}
    config = mcp_config(tmp_path, command, {"url": "http://localhost:81"})
    assert read(MCP_CONFIG=config).claude.mcp_files == (
        Path(config),
        Path("/srv/serve"),
        Path("/srv/data"),
    )
    assert read().claude.mcp_files == ()


@pytest.mark.parametrize(
    "kind", ["HOME", "DATA_DIR", "REPOS_DIR", "WORKTREES_DIR", "parent", "link"]
)
def test_private_directories_cannot_be_shown_to_jobs(tmp_path: Path, kind: str):
    own = {
        name: str(tmp_path / "own" / name)
        for name in ("HOME", "DATA_DIR", "REPOS_DIR", "WORKTREES_DIR")
    }
    (tmp_path / "own").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "own")
    paths = {**own, "parent": "/", "link": str(tmp_path / "link")}
    config = mcp_config(tmp_path, {"command": "npx", "args": ["serve", paths[kind]]})
    assert f"MCP_CONFIG names {paths[kind]}, which" in problems(**own, MCP_CONFIG=config)
    for path in own.values():
        Path(path).mkdir()
    assert f"SANDBOX_READ names {paths[kind]}, which" in problems(**own, SANDBOX_READ=paths[kind])
    settings = read(**own, PATH=f"/usr/bin::relative:{own['HOME']}/bin")
    assert sandbox_search_path(settings) == "/usr/bin"


def test_own_directories_must_not_be_below_system_trees():
    assert "REPOS_DIR is below /opt" in problems(REPOS_DIR="/opt/orchestrator/repos")
    assert "DATA_DIR is below /usr" in problems(DATA_DIR="/usr/local/orchestrator")
    assert read(REPOS_DIR="/opt/orchestrator/repos", SANDBOX="off").host.repos_dir
    assert read(REPOS_DIR="/optional").host.repos_dir


def test_jobs_are_isolated_by_default():
    settings = read()
    assert settings.sandbox.mode is SandboxMode.ON
    assert settings.sandbox.network_in_effect is Network.INTERNET
    assert settings.sandbox.hosts == ()
    assert settings.sandbox.read == ()
    limits = sandbox_limits(settings)
    assert limits.processes == 4096
    assert (limits.file_bytes, limits.memory_bytes, limits.free_bytes) == (
        8 << 30,
        8 << 30,
        1 << 30,
    )


def test_only_sandbox_on_has_its_own_network():
    assert read(SANDBOX_NETWORK="none").sandbox.network_in_effect is Network.NONE
    for mode in ("landlock", "off"):
        assert read(SANDBOX=mode, SANDBOX_NETWORK="none").sandbox.network_in_effect is Network.HOST


def test_credential_is_hidden_if_the_proxy_can_add_it():
    for name in ("ANTHROPIC_API_KEY", "ANTHROPIC_AUTH_TOKEN", "CLAUDE_CODE_OAUTH_TOKEN"):
        assert read(**{name: "k"}).hides_credential
        assert read(**{name: "k"}, SANDBOX="landlock").hides_credential
        assert not read(**{name: "k"}, SANDBOX="off").hides_credential
        assert not read(**{name: "k"}, CLAUDE_CODE_USE_VERTEX="1").hides_credential
    assert not read().hides_credential


def test_wrong_sandbox_settings_are_reported():
    text = problems(
        SANDBOX="strict",
        SANDBOX_NETWORK="all",
        SANDBOX_HOSTS="example.com,https://example.org/x",
        SANDBOX_READ="relative:/nowhere/at/all",
        SANDBOX_PROCESSES="1",
        SANDBOX_FILE_GB="0",
        SANDBOX_MEMORY_GB="1.5",
        SANDBOX_MIN_FREE_GB="-1",
    )
    for words in (
        "SANDBOX is 'strict'. Set it to on or landlock or off",
        "SANDBOX_NETWORK is 'all'. Set it to internet or hosts or none or host",
        "'https://example.org/x' is not a host of SANDBOX_HOSTS",
        "SANDBOX_READ has relative, /nowhere/at/all",
        "SANDBOX_PROCESSES is '1'",
        "SANDBOX_FILE_GB is '0'",
        "SANDBOX_MEMORY_GB is '1.5'",
        "SANDBOX_MIN_FREE_GB is '-1'",
    ):
        assert words in text


def test_only_the_queue_is_unlimited_by_default():
    settings = read(QUEUE_TIMEOUT_MINUTES="")
    assert settings.jobs.queue_timeout is None
    assert settings.jobs.turn_timeout == timedelta(hours=4)
    assert settings.jobs.silence_timeout == timedelta(hours=1)
    assert settings.jobs.keep_work == timedelta(days=30)
    assert read(QUEUE_TIMEOUT_MINUTES="90").jobs.queue_timeout == timedelta(minutes=90)


@pytest.mark.parametrize("text", ["0", "-1", "1e3", "nan", "five", "1.2345678"])
def test_a_budget_is_an_amount_of_money(text: str):
    assert read(CLAUDE_MAX_BUDGET_USD="2.50").claude.max_budget_usd == 2.5
    assert "CLAUDE_MAX_BUDGET_USD" in problems(CLAUDE_MAX_BUDGET_USD=text)


def test_pull_requests_have_defaults():
    settings = read(PULL_REQUEST_DRAFT="True", PULL_REQUEST_LABELS=" auto, claude,,auto ")
    assert settings.github.pull_request_draft
    assert settings.github.pull_request_labels == ("auto", "claude")
    assert settings.github.pull_request_reviewers == ()
    assert "PULL_REQUEST_DRAFT" in problems(PULL_REQUEST_DRAFT="yes")
    assert "JOB_PRIORITY" in problems(JOB_PRIORITY="6")


def test_api_hosts_with_names_and_ports():
    settings = read(API_HOSTS=" Api.example.com , [2001:db8::1]:8443,localhost")
    assert settings.api.hosts == (
        HttpHost("api.example.com"),
        HttpHost("2001:db8::1", 8443),
        HttpHost("localhost"),
    )
    assert read().api.hosts == ()


@pytest.mark.parametrize("text", ["https://api.example.com", "*", "a b", "x:0", "::1", "a.b,*.c"])
def test_malformed_api_hosts_are_refused(text: str):
    assert "API_HOSTS has" in problems(API_HOSTS=text)


def test_costs_of_a_subscription_are_estimates():
    assert read().claude.is_subscription
    assert read(CLAUDE_CODE_OAUTH_TOKEN="t").claude.is_subscription
    assert not read(CLAUDE_CODE_OAUTH_TOKEN="t", ANTHROPIC_API_KEY="k").claude.is_subscription
    assert not read(CLAUDE_CODE_USE_BEDROCK="1", AWS_REGION="eu-central-1").claude.is_subscription


def test_hosts_with_the_same_credential_have_the_same_credential_id():
    one = read(ANTHROPIC_API_KEY="sk-ant-secret", HOST_ID="a")
    assert one.credential_id == read(ANTHROPIC_API_KEY="sk-ant-secret", HOST_ID="b").credential_id
    assert one.credential_id != read(ANTHROPIC_API_KEY="sk-ant-other").credential_id
    assert read(HOST_ID="a").credential_id != read(HOST_ID="b").credential_id
    assert "secret" not in one.credential_id
    assert one.credential_id == read(ANTHROPIC_API_KEY="sk-ant-secret", TZ="UTC").credential_id


def test_no_problem_shows_the_value_of_a_secret():
    text = problems(
        AGENT_API_SECRET="hush\x07api",
        GITHUB_TOKEN="hush\x07token",
        SUPABASE_SERVICE_ROLE_KEY="hush\x07key",
        ANTHROPIC_API_KEY="hush-claude",
        PORT="http",
    )
    assert "hush" not in text
    assert "GITHUB_TOKEN contains control characters" in text


def test_wrong_settings_leave_no_secret_in_the_traceback():
    # Tracebacks quote source lines, so the secret must not be in one.
    secret = "hush"[::-1]
    try:
        read(PORT="http", GITHUB_TOKEN=secret, ANTHROPIC_API_KEY=secret)
    except SettingsError:
        assert secret not in traceback.format_exc()


def test_problems_between_groups_are_named_with_the_others(tmp_path: Path):
    config = mcp_config(tmp_path, {"command": "npx", "args": ["/home/ann"]})
    text = problems(MCP_CONFIG=config, PORT="http", SANDBOX_PROCESSES="1", PATH="relative:/x")
    for name in ("PORT", "SANDBOX_PROCESSES", "MCP_CONFIG"):
        assert name in text


def test_the_process_environment_is_the_default_source(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("PORT", "4567")
    assert Settings.from_env().api.port == 4567
    assert read().api.port == 3456


def test_every_secret_setting_can_be_in_a_file():
    names = {
        field.validation_alias
        for group in vars(read()).values()
        for field in type(group).model_fields.values()
        if "SecretStr" in str(field.annotation) and field.validation_alias
    }
    assert names == SECRET_NAMES - CLAUDE_SECRET_NAMES


@pytest.mark.parametrize(
    ("name", "low", "high"),
    [("PORT", 1, 65_535), ("JOB_TIMEOUT_MINUTES", 1, 10_080), ("DRAIN_TIMEOUT_SECONDS", 0, 86_400)],
)
def test_numbers_have_limits(name: str, low: int, high: int):
    read(**{name: str(low)})
    read(**{name: str(high)})
    for number in (low - 1, high + 1):
        assert f"{name} is '{number}'. Set it to" in problems(**{name: str(number)})
