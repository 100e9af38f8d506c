"""The tables of the SQLite store.

Columns follow the Postgres schema. Long texts are the last columns of `agent_jobs`, because SQLite
reads the overflow pages of all columns before the requested column
(https://www.sqlite.org/fileformat2.html#b_tree_pages).
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from pathlib import Path

from domain.errors import DependencyFailed
from domain.jobs import FINAL, HOLDS_SLOT, LIVE, JobType, Phase

APPLICATION_ID = 0x43434F31
"""`CCO1`: identifies a file of this store."""

SCHEMA_VERSION = 1
"""A file of another version is refused."""


def _set(values: frozenset[str] | frozenset[Phase]) -> str:
    return "(" + ", ".join(f"'{value}'" for value in sorted(values)) + ")"


# The planner uses a partial index only for a query that repeats the index's condition exactly
# (https://www.sqlite.org/partialindex.html, section 3.1). So indexes and queries share these.
IS_LIVE = f"status IN {_set(LIVE)}"
WAITS_FOR_SLOT = f"{IS_LIVE} AND phase = '{Phase.WAITING_FOR_SLOT}'"
RUNS = f"status = 'running' AND phase IN {_set(HOLDS_SLOT)}"
NEEDS_NO_SLOT = (
    f"{IS_LIVE} AND phase IN {_set(frozenset({Phase.WAITING_FOR_USER, Phase.WAITING_FOR_LIMIT}))}"
)
STILL_CLEANS_UP = f"status IN {_set(FINAL)} AND phase IS NOT NULL"
HOLDS_BRANCH = f"{IS_LIVE} AND job_type = '{JobType.CODE}'"

_PEOPLE_AND_FEATURES = """
CREATE TABLE team_members (
  id TEXT PRIMARY KEY NOT NULL,
  full_name TEXT NOT NULL,
  auth_user_id TEXT,
  department TEXT,
  role_title TEXT,
  is_active INTEGER,
  created_at TEXT,
  updated_at TEXT
) STRICT;

CREATE TABLE clients (
  id TEXT PRIMARY KEY NOT NULL,
  name TEXT NOT NULL,
  industry TEXT,
  notes TEXT,
  assigned_developer TEXT REFERENCES team_members (id),
  created_at TEXT NOT NULL,
  updated_at TEXT
) STRICT;
CREATE INDEX clients_by_name ON clients (name, id);

CREATE TABLE features (
  id TEXT PRIMARY KEY NOT NULL,
  client_id TEXT NOT NULL REFERENCES clients (id),
  title TEXT NOT NULL,
  branch_name TEXT,
  branch_name_hint TEXT,
  functionality_notes TEXT,
  client_context TEXT,
  created_at TEXT,
  updated_at TEXT
) STRICT;
"""

_CODE = """
CREATE TABLE code_repositories (
  id TEXT PRIMARY KEY NOT NULL,
  client_id TEXT REFERENCES clients (id),
  provider TEXT NOT NULL DEFAULT 'github',
  owner_name TEXT NOT NULL COLLATE NOCASE,
  repo_name TEXT NOT NULL COLLATE NOCASE,
  default_branch TEXT NOT NULL DEFAULT 'main',
  url TEXT,
  external_id TEXT,
  created_at TEXT NOT NULL,
  updated_at TEXT NOT NULL
) STRICT;
CREATE UNIQUE INDEX code_repositories_of_client
  ON code_repositories (client_id, owner_name, repo_name);
CREATE INDEX code_repositories_by_name ON code_repositories (owner_name, repo_name, created_at, id);

CREATE TABLE code_branches (
  id TEXT PRIMARY KEY NOT NULL,
  repository_id TEXT NOT NULL REFERENCES code_repositories (id),
  feature_id TEXT REFERENCES features (id),
  name TEXT NOT NULL,
  url TEXT,
  external_id TEXT,
  created_by_team_id TEXT,
  created_at TEXT,
  updated_at TEXT
) STRICT;

CREATE TABLE code_pull_requests (
  id TEXT PRIMARY KEY NOT NULL,
  repository_id TEXT NOT NULL REFERENCES code_repositories (id),
  feature_id TEXT REFERENCES features (id),
  branch_id TEXT REFERENCES code_branches (id),
  number INTEGER,
  title TEXT,
  status TEXT,
  url TEXT,
  external_id TEXT,
  opened_by_team_id TEXT,
  merged_at TEXT,
  closed_at TEXT,
  created_at TEXT,
  updated_at TEXT
) STRICT;
"""

_JOBS = f"""
CREATE TABLE agent_jobs (
  id TEXT PRIMARY KEY NOT NULL,
  client_id TEXT NOT NULL REFERENCES clients (id),
  repository_id TEXT REFERENCES code_repositories (id),
  feature_id TEXT REFERENCES features (id),
  created_by_team_member_id TEXT REFERENCES team_members (id),
  retry_of TEXT REFERENCES agent_jobs (id),
  status TEXT NOT NULL DEFAULT 'queued' CHECK (status IN {_set(LIVE | FINAL)}),
  phase TEXT,
  job_type TEXT NOT NULL DEFAULT 'code',
  priority INTEGER NOT NULL DEFAULT 3,
  lease INTEGER NOT NULL DEFAULT 0,
  attempt INTEGER NOT NULL DEFAULT 0,
  created_at TEXT NOT NULL,
  queued_at TEXT NOT NULL,
  updated_at TEXT NOT NULL,
  started_at TEXT,
  completed_at TEXT,
  resumes_at TEXT,
  branch_name TEXT NOT NULL,
  title TEXT,
  host TEXT,
  worktree_path TEXT,
  pid INTEGER,
  session_id TEXT,
  model TEXT,
  base_sha TEXT,
  head_sha TEXT,
  exit_code INTEGER,
  outcome TEXT,
  failure_code TEXT,
  clock TEXT,
  retry_from TEXT,
  num_turns INTEGER NOT NULL DEFAULT 0,
  total_cost_usd REAL,
  input_tokens INTEGER NOT NULL DEFAULT 0,
  output_tokens INTEGER NOT NULL DEFAULT 0,
  cache_read_tokens INTEGER NOT NULL DEFAULT 0,
  cache_creation_tokens INTEGER NOT NULL DEFAULT 0,
  cost_is_estimate INTEGER NOT NULL DEFAULT 0,
  claude_seconds REAL NOT NULL DEFAULT 0,
  pr_url TEXT,
  pr_number INTEGER,
  files_changed INTEGER,
  code_branch_id TEXT REFERENCES code_branches (id),
  code_pull_request_id TEXT REFERENCES code_pull_requests (id),
  options TEXT CHECK (options IS NULL OR json_valid(options)),
  error TEXT,
  result TEXT,
  prompt TEXT NOT NULL
) STRICT;
CREATE UNIQUE INDEX agent_jobs_holding_branch
  ON agent_jobs (repository_id, branch_name) WHERE {HOLDS_BRANCH};
CREATE INDEX agent_jobs_newest ON agent_jobs (created_at, id);
CREATE INDEX agent_jobs_of_status ON agent_jobs (status, created_at, id);
CREATE INDEX agent_jobs_of_client ON agent_jobs (client_id, created_at, id);
CREATE INDEX agent_jobs_of_client_and_status ON agent_jobs (client_id, status, created_at, id);
CREATE INDEX agent_jobs_of_feature
  ON agent_jobs (feature_id, created_at, id, status, client_id) WHERE feature_id IS NOT NULL;
CREATE INDEX agent_jobs_waiting_for_slot
  ON agent_jobs (priority, queued_at, id) WHERE {WAITS_FOR_SLOT};
CREATE INDEX agent_jobs_running ON agent_jobs (started_at, id) WHERE {RUNS};
CREATE INDEX agent_jobs_needing_no_slot ON agent_jobs (queued_at, id) WHERE {NEEDS_NO_SLOT};
CREATE INDEX agent_jobs_live ON agent_jobs (id, updated_at) WHERE {IS_LIVE};
CREATE INDEX agent_jobs_cleaning_up ON agent_jobs (id, updated_at) WHERE {STILL_CLEANS_UP};
"""

# Totals are stored, because counting 100,000 index entries takes longer than reading a page.
_JOB_COUNTS = """
CREATE TABLE agent_job_counts (
  client_id TEXT NOT NULL,
  status TEXT NOT NULL,
  phase TEXT NOT NULL,
  jobs INTEGER NOT NULL,
  PRIMARY KEY (client_id, status, phase)
) STRICT, WITHOUT ROWID;

CREATE TRIGGER agent_jobs_count_insert AFTER INSERT ON agent_jobs BEGIN
  INSERT INTO agent_job_counts VALUES (new.client_id, new.status, coalesce(new.phase, ''), 1)
    ON CONFLICT DO UPDATE SET jobs = jobs + 1;
END;

CREATE TRIGGER agent_jobs_count_delete AFTER DELETE ON agent_jobs BEGIN
  UPDATE agent_job_counts SET jobs = jobs - 1
    WHERE client_id = old.client_id AND status = old.status AND phase = coalesce(old.phase, '');
END;

CREATE TRIGGER agent_jobs_count_update AFTER UPDATE OF client_id, status, phase ON agent_jobs
WHEN (old.client_id, old.status, old.phase) IS NOT (new.client_id, new.status, new.phase) BEGIN
  UPDATE agent_job_counts SET jobs = jobs - 1
    WHERE client_id = old.client_id AND status = old.status AND phase = coalesce(old.phase, '');
  INSERT INTO agent_job_counts VALUES (new.client_id, new.status, coalesce(new.phase, ''), 1)
    ON CONFLICT DO UPDATE SET jobs = jobs + 1;
END;
"""

# Ids are random, so each batch would write all over an index on ids alone. With the job id first,
# the entries of a batch are adjacent (measured with a million messages: 75,000 and 29,000/s).
_JOB_PARTS = """
CREATE TABLE agent_job_messages (
  id TEXT NOT NULL,
  job_id TEXT NOT NULL REFERENCES agent_jobs (id) ON DELETE CASCADE,
  seq INTEGER NOT NULL,
  type TEXT NOT NULL,
  created_at TEXT NOT NULL,
  content TEXT NOT NULL,
  PRIMARY KEY (job_id, id),
  UNIQUE (job_id, seq)
) STRICT;

CREATE TABLE agent_job_inbox (
  id TEXT PRIMARY KEY NOT NULL,
  job_id TEXT NOT NULL REFERENCES agent_jobs (id) ON DELETE CASCADE,
  type TEXT NOT NULL,
  created_at TEXT NOT NULL,
  content TEXT NOT NULL
) STRICT;
CREATE INDEX agent_job_inbox_of_job ON agent_job_inbox (job_id);

CREATE TABLE agent_job_sessions (
  job_id TEXT PRIMARY KEY NOT NULL REFERENCES agent_jobs (id) ON DELETE CASCADE,
  session_id TEXT NOT NULL,
  updated_at TEXT NOT NULL,
  transcript BLOB NOT NULL
) STRICT;

CREATE TABLE agent_job_usage_reports (
  report_id TEXT PRIMARY KEY NOT NULL,
  job_id TEXT NOT NULL REFERENCES agent_jobs (id) ON DELETE CASCADE,
  num_turns INTEGER NOT NULL,
  total_cost_usd REAL,
  input_tokens INTEGER NOT NULL,
  output_tokens INTEGER NOT NULL,
  cache_read_tokens INTEGER NOT NULL,
  cache_creation_tokens INTEGER NOT NULL,
  claude_seconds REAL NOT NULL,
  created_at TEXT NOT NULL
) STRICT;
CREATE INDEX agent_job_usage_reports_of_job ON agent_job_usage_reports (job_id);
"""

_HOSTS = """
CREATE TABLE agent_hosts (
  id TEXT NOT NULL,
  boot_id TEXT NOT NULL,
  task_queue TEXT NOT NULL,
  slots INTEGER NOT NULL,
  last_seen TEXT NOT NULL,
  claude_version TEXT,
  claude_authenticated INTEGER NOT NULL,
  claude_login_type TEXT,
  git_authenticated INTEGER NOT NULL,
  git_user TEXT,
  sandbox TEXT NOT NULL DEFAULT 'off',
  sandbox_ok INTEGER NOT NULL DEFAULT 0,
  sandbox_network TEXT NOT NULL DEFAULT 'host',
  credential_hidden INTEGER NOT NULL DEFAULT 0,
  PRIMARY KEY (id, boot_id)
) STRICT, WITHOUT ROWID;
CREATE INDEX agent_hosts_last_seen ON agent_hosts (last_seen);
"""

_KEPT_WORK = """
CREATE TABLE agent_job_kept_work (
  job_id TEXT PRIMARY KEY NOT NULL REFERENCES agent_jobs (id) ON DELETE CASCADE,
  base_sha TEXT NOT NULL,
  head_sha TEXT NOT NULL,
  host TEXT NOT NULL,
  created_at TEXT NOT NULL,
  patch TEXT
) STRICT;
CREATE INDEX agent_job_kept_work_oldest ON agent_job_kept_work (created_at);
"""

_CREDENTIAL_HOLDS = """
CREATE TABLE agent_credential_holds (
  credential TEXT PRIMARY KEY NOT NULL,
  held_until TEXT NOT NULL
) STRICT, WITHOUT ROWID;
"""

_IDEMPOTENCY_KEYS = """
CREATE TABLE agent_idempotency_keys (
  scope TEXT NOT NULL,
  key TEXT NOT NULL,
  fingerprint TEXT NOT NULL,
  resource_id TEXT NOT NULL,
  created_at TEXT NOT NULL,
  shared INTEGER NOT NULL DEFAULT 0,
  status INTEGER,
  answer TEXT,
  PRIMARY KEY (scope, key)
) STRICT;
CREATE INDEX agent_idempotency_keys_oldest ON agent_idempotency_keys (created_at);
"""

_SCRIPTS = (
    _PEOPLE_AND_FEATURES,
    _CODE,
    _JOBS,
    _JOB_COUNTS,
    _JOB_PARTS,
    _HOSTS,
    _KEPT_WORK,
    _CREDENTIAL_HOLDS,
    _IDEMPOTENCY_KEYS,
)


def create_schema(connection: sqlite3.Connection, path: Path) -> None:
    """Create the tables in a new file, in one transaction.

    Several processes may call this concurrently. The first one creates the tables.

    Raises:
        DependencyFailed: the file belongs to another program or has another schema version.
    """
    if _has_schema(connection, path):
        return
    connection.execute("BEGIN IMMEDIATE")
    try:
        if not _has_schema(connection, path):
            for statement in _statements("".join(_SCRIPTS)):
                connection.execute(statement)
            connection.execute(f"PRAGMA application_id = {APPLICATION_ID}")
            connection.execute(f"PRAGMA user_version = {SCHEMA_VERSION}")
        connection.execute("COMMIT")
    finally:
        if connection.in_transaction:
            connection.execute("ROLLBACK")


def _has_schema(connection: sqlite3.Connection, path: Path) -> bool:
    """Return whether the file has the tables; False only for an empty file."""
    (application,) = connection.execute("PRAGMA application_id").fetchone()
    (version,) = connection.execute("PRAGMA user_version").fetchone()
    (objects,) = connection.execute("SELECT count(*) FROM sqlite_schema").fetchone()
    if not objects:
        return False
    if application != APPLICATION_ID:
        raise DependencyFailed(
            f"The file {path} is a database of another program. Move it, or set another data "
            "directory.",
            "store",
        )
    if version != SCHEMA_VERSION:
        raise DependencyFailed(
            f"The file {path} has schema version {version}, and this version of the orchestrator "
            f"needs {SCHEMA_VERSION}. Install the version that wrote the file, or move the file "
            "away to start with an empty store.",
            "store",
        )
    return True


def _statements(script: str) -> Iterator[str]:
    pending = ""
    for line in script.splitlines(keepends=True):
        pending += line
        if sqlite3.complete_statement(pending):
            yield pending
            pending = ""
