-- A file that version 1 of the schema wrote, as `.dump` shows it: a finished job, a conversation, a
-- failed job and its retry, and what belongs to them.
PRAGMA application_id = 1128484657;
PRAGMA user_version = 1;
BEGIN TRANSACTION;
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
  PRIMARY KEY (id, boot_id)
) STRICT, WITHOUT ROWID;
INSERT INTO "agent_hosts" VALUES('mill-1','00000000-0000-4000-8000-00000000f001','host-mill-1',2,'2026-03-01T12:35:15.123456+00:00',NULL,0,NULL,0,NULL);
CREATE TABLE agent_job_counts (
  client_id TEXT NOT NULL,
  status TEXT NOT NULL,
  phase TEXT NOT NULL,
  jobs INTEGER NOT NULL,
  PRIMARY KEY (client_id, status, phase)
) STRICT, WITHOUT ROWID;
INSERT INTO "agent_job_counts" VALUES('00000000-0000-4000-8000-00000000c001','completed','',1);
INSERT INTO "agent_job_counts" VALUES('00000000-0000-4000-8000-00000000c001','failed','',1);
INSERT INTO "agent_job_counts" VALUES('00000000-0000-4000-8000-00000000c001','queued','waiting_for_slot',1);
INSERT INTO "agent_job_counts" VALUES('00000000-0000-4000-8000-00000000c001','running','waiting_for_user',1);
CREATE TABLE agent_job_inbox (
  id TEXT PRIMARY KEY NOT NULL,
  job_id TEXT NOT NULL REFERENCES agent_jobs (id) ON DELETE CASCADE,
  type TEXT NOT NULL,
  created_at TEXT NOT NULL,
  content TEXT NOT NULL
) STRICT;
INSERT INTO "agent_job_inbox" VALUES('00000000-0000-4000-8000-00000000a009','00000000-0000-4000-8000-000000000002','user_input','2026-03-01T12:31:56.123456+00:00','Hello?');
CREATE TABLE agent_job_messages (
  id TEXT NOT NULL,
  job_id TEXT NOT NULL REFERENCES agent_jobs (id) ON DELETE CASCADE,
  seq INTEGER,
  type TEXT NOT NULL,
  created_at TEXT NOT NULL,
  content TEXT NOT NULL,
  PRIMARY KEY (job_id, id),
  UNIQUE (job_id, seq)
) STRICT;
INSERT INTO "agent_job_messages" VALUES('00000000-0000-4000-8000-00000000a001','00000000-0000-4000-8000-000000000001',1,'stdout','2026-03-01T12:30:16.123456+00:00','line 1');
INSERT INTO "agent_job_messages" VALUES('00000000-0000-4000-8000-00000000a002','00000000-0000-4000-8000-000000000001',2,'stdout','2026-03-01T12:30:17.123456+00:00','line 2');
INSERT INTO "agent_job_messages" VALUES('00000000-0000-4000-8000-00000000a003','00000000-0000-4000-8000-000000000001',3,'stdout','2026-03-01T12:30:18.123456+00:00','line 3');
CREATE TABLE agent_job_sessions (
  job_id TEXT PRIMARY KEY NOT NULL REFERENCES agent_jobs (id) ON DELETE CASCADE,
  session_id TEXT NOT NULL,
  updated_at TEXT NOT NULL,
  transcript BLOB NOT NULL
) STRICT;
INSERT INTO "agent_job_sessions" VALUES('00000000-0000-4000-8000-000000000002','session-1','2026-11-25T06:44:14.875523+00:00',X'78012B294ACC2B4E2ECA2C2801001796044B');
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
INSERT INTO "agent_job_usage_reports" VALUES('00000000-0000-4000-8000-00000000d001','00000000-0000-4000-8000-000000000001',2,0.25,10,20,30,40,12.5,'2026-11-25T06:44:14.870892+00:00');
CREATE TABLE agent_jobs (
  id TEXT PRIMARY KEY NOT NULL,
  client_id TEXT NOT NULL REFERENCES clients (id),
  repository_id TEXT REFERENCES code_repositories (id),
  feature_id TEXT REFERENCES features (id),
  created_by_team_member_id TEXT REFERENCES team_members (id),
  retry_of TEXT REFERENCES agent_jobs (id),
  status TEXT NOT NULL DEFAULT 'queued' CHECK (status IN ('cancelled', 'completed', 'failed', 'queued', 'running')),
  phase TEXT,
  job_type TEXT DEFAULT 'code',
  priority INTEGER NOT NULL DEFAULT 3,
  lease INTEGER NOT NULL DEFAULT 0,
  attempt INTEGER NOT NULL DEFAULT 0,
  created_at TEXT NOT NULL,
  queued_at TEXT,
  updated_at TEXT,
  started_at TEXT,
  completed_at TEXT,
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
  num_turns INTEGER NOT NULL DEFAULT 0,
  total_cost_usd REAL,
  input_tokens INTEGER NOT NULL DEFAULT 0,
  output_tokens INTEGER NOT NULL DEFAULT 0,
  cache_read_tokens INTEGER NOT NULL DEFAULT 0,
  cache_creation_tokens INTEGER NOT NULL DEFAULT 0,
  claude_seconds REAL NOT NULL DEFAULT 0,
  pr_url TEXT,
  pr_number INTEGER,
  files_changed INTEGER,
  code_branch_id TEXT REFERENCES code_branches (id),
  code_pull_request_id TEXT REFERENCES code_pull_requests (id),
  error TEXT,
  result TEXT,
  prompt TEXT NOT NULL
) STRICT;
INSERT INTO "agent_jobs" VALUES('00000000-0000-4000-8000-000000000001','00000000-0000-4000-8000-00000000c001','00000000-0000-4000-8000-00000000e001',NULL,NULL,NULL,'completed',NULL,'code',3,1,1,'2026-03-01T12:30:15.123456+00:00','2026-03-01T12:30:15.123456+00:00','2026-11-25T06:44:14.872672+00:00','2026-03-01T12:30:16.123456+00:00','2026-03-01T12:31:15.123456+00:00','feat/done','Login','mill-1',NULL,NULL,NULL,'opus','aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa','bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb',0,'pull_request',NULL,2,0.25,10,20,30,40,12.5,'https://github.com/acme/shop/pull/7',7,2,'00000000-0000-4000-8000-00000000b001','00000000-0000-4000-8000-00000000b002',NULL,'Added it.','Add a login page 👋');
INSERT INTO "agent_jobs" VALUES('00000000-0000-4000-8000-000000000002','00000000-0000-4000-8000-00000000c001','00000000-0000-4000-8000-00000000e001',NULL,NULL,NULL,'running','waiting_for_user','task',3,2,0,'2026-03-01T12:31:55.123456+00:00','2026-03-01T12:31:55.123456+00:00','2026-03-01T12:31:55.123456+00:00',NULL,NULL,'task-1',NULL,NULL,NULL,NULL,'session-1',NULL,NULL,NULL,NULL,NULL,NULL,0,NULL,0,0,0,0,0.0,NULL,NULL,NULL,NULL,NULL,NULL,NULL,'What is this?');
INSERT INTO "agent_jobs" VALUES('00000000-0000-4000-8000-000000000003','00000000-0000-4000-8000-00000000c001','00000000-0000-4000-8000-00000000e001',NULL,NULL,NULL,'failed',NULL,'code',3,0,0,'2026-03-01T12:33:35.123456+00:00','2026-03-01T12:33:35.123456+00:00','2026-03-01T12:33:35.123456+00:00',NULL,NULL,'feat/slow','Login',NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,'timed_out',0,NULL,0,0,0,0,0.0,NULL,NULL,NULL,NULL,NULL,'It took too long.',NULL,'Add a login page 👋');
INSERT INTO "agent_jobs" VALUES('00000000-0000-4000-8000-000000000004','00000000-0000-4000-8000-00000000c001','00000000-0000-4000-8000-00000000e001',NULL,NULL,'00000000-0000-4000-8000-000000000003','queued','waiting_for_slot','code',1,0,0,'2026-03-01T12:35:15.123456+00:00','2026-03-01T12:35:15.123456+00:00','2026-03-01T12:35:15.123456+00:00',NULL,NULL,'feat/slow-2','Login',NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,0,NULL,0,0,0,0,0.0,NULL,NULL,NULL,NULL,NULL,NULL,NULL,'Add a login page 👋');
CREATE TABLE clients (
  id TEXT PRIMARY KEY NOT NULL,
  name TEXT NOT NULL,
  industry TEXT,
  notes TEXT,
  assigned_developer TEXT REFERENCES team_members (id),
  created_at TEXT NOT NULL,
  updated_at TEXT
) STRICT;
INSERT INTO "clients" VALUES('00000000-0000-4000-8000-00000000c001','Zeta & Söhne',NULL,NULL,NULL,'2026-03-01T12:30:15.123456+00:00','2026-03-01T12:30:15.123456+00:00');
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
INSERT INTO "code_branches" VALUES('00000000-0000-4000-8000-00000000b001','00000000-0000-4000-8000-00000000e001',NULL,'feat/done','https://github.com/acme/shop/tree/feat/done',NULL,NULL,'2026-11-25T06:44:14.871705+00:00','2026-11-25T06:44:14.871705+00:00');
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
INSERT INTO "code_pull_requests" VALUES('00000000-0000-4000-8000-00000000b002','00000000-0000-4000-8000-00000000e001',NULL,'00000000-0000-4000-8000-00000000b001',7,'Login','open','https://github.com/acme/shop/pull/7',NULL,NULL,NULL,NULL,'2026-11-25T06:44:14.871705+00:00','2026-11-25T06:44:14.871705+00:00');
CREATE TABLE code_repositories (
  id TEXT PRIMARY KEY NOT NULL,
  client_id TEXT REFERENCES clients (id),
  provider TEXT NOT NULL DEFAULT 'github',
  owner_name TEXT NOT NULL COLLATE NOCASE,
  repo_name TEXT NOT NULL COLLATE NOCASE,
  default_branch TEXT,
  url TEXT,
  external_id TEXT,
  created_at TEXT NOT NULL,
  updated_at TEXT
) STRICT;
INSERT INTO "code_repositories" VALUES('00000000-0000-4000-8000-00000000e001','00000000-0000-4000-8000-00000000c001','github','acme','shop','main','https://github.com/acme/shop',NULL,'2026-03-01T12:30:15.123456+00:00','2026-03-01T12:30:15.123456+00:00');
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
CREATE INDEX clients_by_name ON clients (name, id);
CREATE UNIQUE INDEX code_repositories_of_client
  ON code_repositories (client_id, owner_name, repo_name);
CREATE INDEX code_repositories_by_name ON code_repositories (owner_name, repo_name, created_at, id);
CREATE UNIQUE INDEX agent_jobs_holding_branch
  ON agent_jobs (repository_id, branch_name) WHERE status IN ('queued', 'running') AND job_type = 'code';
CREATE INDEX agent_jobs_newest ON agent_jobs (created_at, id);
CREATE INDEX agent_jobs_of_status ON agent_jobs (status, created_at, id);
CREATE INDEX agent_jobs_of_client ON agent_jobs (client_id, created_at, id);
CREATE INDEX agent_jobs_of_client_and_status ON agent_jobs (client_id, status, created_at, id);
CREATE INDEX agent_jobs_of_feature
  ON agent_jobs (feature_id, created_at, id, status, client_id) WHERE feature_id IS NOT NULL;
CREATE INDEX agent_jobs_waiting_for_slot
  ON agent_jobs (priority, queued_at, id) WHERE status IN ('queued', 'running') AND phase = 'waiting_for_slot';
CREATE INDEX agent_jobs_running ON agent_jobs (started_at, id) WHERE status = 'running' AND phase IN ('preparing', 'publishing', 'working');
CREATE INDEX agent_jobs_needing_no_slot ON agent_jobs (queued_at, id) WHERE status IN ('queued', 'running') AND phase IN ('waiting_for_limit', 'waiting_for_user');
CREATE INDEX agent_jobs_live ON agent_jobs (id, updated_at) WHERE status IN ('queued', 'running');
CREATE INDEX agent_jobs_cleaning_up ON agent_jobs (id, updated_at) WHERE status IN ('cancelled', 'completed', 'failed') AND phase IS NOT NULL;
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
CREATE INDEX agent_job_inbox_of_job ON agent_job_inbox (job_id);
CREATE INDEX agent_job_usage_reports_of_job ON agent_job_usage_reports (job_id);
CREATE INDEX agent_hosts_last_seen ON agent_hosts (last_seen);
COMMIT;
