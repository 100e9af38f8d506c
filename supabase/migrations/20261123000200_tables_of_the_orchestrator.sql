-- What the orchestrator adds: columns, tables, and an index for each of its queries. Rows of the
-- predecessor keep null in `phase` and `queued_at`, by which they are told from the orchestrator's.

-- Everything is listed by time of creation, so that time must be there.
update public.clients set created_at = coalesce(updated_at, now()) where created_at is null;
update public.code_repositories set created_at = coalesce(updated_at, now())
  where created_at is null;
update public.agent_jobs set created_at = coalesce(started_at, updated_at, now())
  where created_at is null;
update public.agent_job_messages m set created_at = j.created_at
  from public.agent_jobs j where j.id = m.job_id and m.created_at is null;
alter table public.clients
  alter column created_at set default now(), alter column created_at set not null;
alter table public.code_repositories
  alter column created_at set default now(), alter column created_at set not null;
alter table public.agent_jobs
  alter column created_at set default now(), alter column created_at set not null;
alter table public.agent_job_messages
  alter column created_at set default now(), alter column created_at set not null;

alter table public.agent_jobs
  add column if not exists retry_of uuid references public.agent_jobs (id),
  add column if not exists phase text,
  add column if not exists priority integer not null default 3,
  add column if not exists lease integer not null default 0,
  add column if not exists attempt integer not null default 0,
  add column if not exists queued_at timestamptz,
  add column if not exists host text,
  add column if not exists session_id text,
  add column if not exists model text,
  add column if not exists base_sha text,
  add column if not exists head_sha text,
  add column if not exists outcome text,
  add column if not exists failure_code text,
  add column if not exists result text,
  add column if not exists num_turns integer not null default 0,
  add column if not exists total_cost_usd double precision,
  add column if not exists input_tokens bigint not null default 0,
  add column if not exists output_tokens bigint not null default 0,
  add column if not exists cache_read_tokens bigint not null default 0,
  add column if not exists cache_creation_tokens bigint not null default 0,
  add column if not exists claude_seconds double precision not null default 0;

alter table public.agent_job_messages add column if not exists seq bigint;

create table if not exists public.agent_job_inbox (
  id uuid primary key,
  job_id uuid not null references public.agent_jobs (id) on delete cascade,
  type text not null,
  content text not null,
  created_at timestamptz not null
);

create table if not exists public.agent_job_sessions (
  job_id uuid primary key references public.agent_jobs (id) on delete cascade,
  session_id text not null,
  updated_at timestamptz not null,
  transcript text not null
);
comment on column public.agent_job_sessions.transcript is 'zlib, in base64';
-- It is compressed already.
alter table public.agent_job_sessions alter column transcript set storage external;

create table if not exists public.agent_job_usage_reports (
  report_id uuid primary key,
  job_id uuid not null references public.agent_jobs (id) on delete cascade,
  num_turns integer not null,
  total_cost_usd double precision,
  input_tokens bigint not null,
  output_tokens bigint not null,
  cache_read_tokens bigint not null,
  cache_creation_tokens bigint not null,
  claude_seconds double precision not null,
  created_at timestamptz not null
);

create table if not exists public.agent_hosts (
  id text not null,
  boot_id text not null,
  task_queue text not null,
  slots integer not null,
  last_seen timestamptz not null,
  claude_version text,
  claude_authenticated boolean not null,
  claude_login_type text,
  git_authenticated boolean not null,
  git_user text,
  primary key (id, boot_id)
);

-- A live code job holds its branch. Only rows with `queued_at` count, because the predecessor may
-- have left several live jobs on one branch, with which the index could not be built.
create unique index if not exists agent_jobs_holding_branch
  on public.agent_jobs (repository_id, branch_name)
  where status in ('queued', 'running') and job_type = 'code' and queued_at is not null;

create index if not exists agent_jobs_newest on public.agent_jobs (created_at, id);
create index if not exists agent_jobs_of_status on public.agent_jobs (status, created_at, id);
create index if not exists agent_jobs_of_client on public.agent_jobs (client_id, created_at, id);
create index if not exists agent_jobs_of_client_and_status
  on public.agent_jobs (client_id, status, created_at, id);
create index if not exists agent_jobs_of_feature
  on public.agent_jobs (feature_id, created_at, id) where feature_id is not null;
create index if not exists agent_jobs_waiting_for_slot
  on public.agent_jobs (priority, queued_at, id)
  where status in ('queued', 'running') and phase = 'waiting_for_slot';
create index if not exists agent_jobs_running on public.agent_jobs (started_at, id)
  where status = 'running' and phase in ('preparing', 'publishing', 'working');
create index if not exists agent_jobs_needing_no_slot on public.agent_jobs (queued_at, id)
  where status in ('queued', 'running') and phase in ('waiting_for_limit', 'waiting_for_user');
create index if not exists agent_jobs_to_reconcile on public.agent_jobs (id)
  where status in ('queued', 'running') or phase is not null;

create unique index if not exists agent_job_messages_in_order
  on public.agent_job_messages (job_id, seq);
create index if not exists agent_job_messages_without_seq
  on public.agent_job_messages (job_id, created_at, id) where seq is null;
create index if not exists agent_job_inbox_of_job on public.agent_job_inbox (job_id);
create index if not exists agent_job_usage_reports_of_job
  on public.agent_job_usage_reports (job_id);
create index if not exists agent_hosts_last_seen on public.agent_hosts (last_seen);

create index if not exists code_repositories_of_client on public.code_repositories (client_id);
-- Names as GitHub compares them; collation "C" changes the case of ASCII letters and of no others.
create index if not exists code_repositories_by_name on public.code_repositories
  (lower(owner_name collate "C"), lower(repo_name collate "C"), created_at, id);
