-- The schema of release 0.1.0, for a new project and for a project of the earlier product. In the
-- latter, all rows and additional columns are kept.

-- Numbering all messages may take longer than Supabase's statement timeout.
set statement_timeout = 0;

-- The tables that the earlier product also has. Where they exist, the statements below change them
-- to the same shape.

create table if not exists public.team_members (
  id uuid primary key default gen_random_uuid(),
  full_name text not null,
  auth_user_id uuid,
  department text,
  role_title text,
  is_active boolean,
  created_at timestamptz default now(),
  updated_at timestamptz
);

create table if not exists public.clients (
  id uuid primary key default gen_random_uuid(),
  name text not null,
  industry text,
  notes text,
  assigned_developer uuid references public.team_members (id),
  created_at timestamptz not null default now(),
  updated_at timestamptz
);

create table if not exists public.features (
  id uuid primary key default gen_random_uuid(),
  client_id uuid not null references public.clients (id),
  title text not null,
  branch_name text,
  branch_name_hint text,
  functionality_notes text,
  client_context text,
  created_at timestamptz default now(),
  updated_at timestamptz
);

create table if not exists public.code_repositories (
  id uuid primary key default gen_random_uuid(),
  client_id uuid references public.clients (id),
  provider text not null default 'github',
  owner_name text not null,
  repo_name text not null,
  default_branch text,
  url text,
  external_id text,
  created_at timestamptz not null default now(),
  updated_at timestamptz
);

create table if not exists public.code_branches (
  id uuid primary key default gen_random_uuid(),
  repository_id uuid not null references public.code_repositories (id),
  feature_id uuid references public.features (id),
  name text not null,
  url text,
  external_id text,
  created_by_team_id uuid,
  created_at timestamptz default now(),
  updated_at timestamptz
);

create table if not exists public.code_pull_requests (
  id uuid primary key default gen_random_uuid(),
  repository_id uuid not null references public.code_repositories (id),
  feature_id uuid references public.features (id),
  branch_id uuid references public.code_branches (id),
  number integer,
  title text,
  status text,
  url text,
  external_id text,
  opened_by_team_id uuid,
  merged_at timestamptz,
  closed_at timestamptz,
  created_at timestamptz default now(),
  updated_at timestamptz
);

create table if not exists public.agent_jobs (
  id uuid primary key default gen_random_uuid(),
  client_id uuid not null references public.clients (id),
  repository_id uuid references public.code_repositories (id),
  feature_id uuid references public.features (id),
  created_by_team_member_id uuid references public.team_members (id),
  status text not null default 'queued'
    check (status in ('queued', 'running', 'completed', 'failed', 'cancelled')),
  job_type text default 'code',
  branch_name text not null,
  title text,
  prompt text not null,
  worktree_path text,
  pid integer,
  exit_code integer,
  error text,
  pr_url text,
  pr_number integer,
  files_changed integer,
  code_branch_id uuid references public.code_branches (id),
  code_pull_request_id uuid references public.code_pull_requests (id),
  started_at timestamptz,
  completed_at timestamptz,
  created_at timestamptz not null default now(),
  updated_at timestamptz
);

create table if not exists public.agent_job_messages (
  id uuid primary key default gen_random_uuid(),
  job_id uuid not null references public.agent_jobs (id) on delete cascade,
  type text not null,
  content text not null,
  created_at timestamptz not null default now()
);

-- New columns and tables.

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
  add column if not exists claude_seconds double precision not null default 0,
  add column if not exists retry_from text,
  add column if not exists options jsonb,
  add column if not exists clock text,
  add column if not exists resumes_at timestamptz,
  add column if not exists cost_is_estimate boolean not null default false;
comment on column public.agent_jobs.options is 'only the values that differ from the defaults';

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
-- The value is already compressed.
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
  sandbox text not null default 'off',
  sandbox_ok boolean not null default false,
  sandbox_network text not null default 'host',
  credential_hidden boolean not null default false,
  primary key (id, boot_id)
);

create table if not exists public.agent_job_kept_work (
  job_id uuid primary key references public.agent_jobs (id) on delete cascade,
  base_sha text not null,
  head_sha text not null,
  host text not null,
  created_at timestamptz not null,
  patch text
);

create table if not exists public.agent_credential_holds (
  credential text primary key,
  held_until timestamptz not null
);
comment on column public.agent_credential_holds.credential is 'a fingerprint';

create table if not exists public.agent_idempotency_keys (
  scope text not null,
  key text not null,
  fingerprint text not null,
  resource_id uuid not null,
  created_at timestamptz not null,
  shared boolean not null default false,
  status integer,
  answer text,
  primary key (scope, key)
);
comment on column public.agent_idempotency_keys.shared is
  'whether a second request may create the resource';

-- Fill missing values in rows of the earlier product. Only these rows have no `queued_at`.

update public.clients set created_at = coalesce(updated_at, now()) where created_at is null;
alter table public.clients
  alter column created_at set default now(), alter column created_at set not null;

update public.code_repositories set created_at = coalesce(updated_at, now())
  where created_at is null;
update public.code_repositories set updated_at = created_at where updated_at is null;
update public.code_repositories set default_branch = 'main' where default_branch is null;
alter table public.code_repositories
  alter column created_at set default now(), alter column created_at set not null,
  alter column updated_at set default now(), alter column updated_at set not null,
  alter column default_branch set default 'main', alter column default_branch set not null;

update public.agent_jobs set created_at = coalesce(started_at, updated_at, now())
  where created_at is null;
-- Unfinished jobs of the earlier product have no workflow.
update public.agent_jobs set
  status = 'failed', failure_code = 'workflow_ended', completed_at = now(), updated_at = now(),
  pid = null,
  error = 'The earlier product left this job unfinished. Retry the job. If it names no repository, '
    || 'post a new job.'
  where queued_at is null and status in ('queued', 'running');
update public.agent_jobs set updated_at = coalesce(completed_at, started_at, created_at)
  where updated_at is null;
update public.agent_jobs set queued_at = created_at where queued_at is null;
update public.agent_jobs set job_type = 'code' where job_type is null;
alter table public.agent_jobs
  alter column created_at set default now(), alter column created_at set not null,
  alter column updated_at set default now(), alter column updated_at set not null,
  alter column queued_at set default now(), alter column queued_at set not null,
  alter column job_type set default 'code', alter column job_type set not null;

update public.agent_job_messages m set created_at = j.created_at
  from public.agent_jobs j where j.id = m.job_id and m.created_at is null;
update public.agent_job_messages m set seq = numbered.seq
  from (
    select id, row_number() over (partition by job_id order by created_at, id) as seq
    from public.agent_job_messages
  ) numbered
  where numbered.id = m.id and m.seq is null;
alter table public.agent_job_messages
  alter column created_at set default now(), alter column created_at set not null,
  alter column seq set not null;

-- Indexes, one for each query.

-- At most one live code job holds a branch.
create unique index if not exists agent_jobs_holding_branch
  on public.agent_jobs (repository_id, branch_name)
  where status in ('queued', 'running') and job_type = 'code';

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
create index if not exists agent_job_inbox_of_job on public.agent_job_inbox (job_id);
create index if not exists agent_job_usage_reports_of_job
  on public.agent_job_usage_reports (job_id);
create index if not exists agent_hosts_last_seen on public.agent_hosts (last_seen);

create index if not exists code_repositories_of_client on public.code_repositories (client_id);
-- GitHub ignores the case of names; collation "C" changes the case of ASCII letters only.
create index if not exists code_repositories_by_name on public.code_repositories
  (lower(owner_name collate "C"), lower(repo_name collate "C"), created_at, id);
create index if not exists agent_job_kept_work_oldest on public.agent_job_kept_work (created_at);
create index if not exists agent_idempotency_keys_oldest
  on public.agent_idempotency_keys (created_at);

-- Totals are stored, because the time to count rows grows with their number.

create table if not exists public.agent_job_counts (
  client_id uuid not null,
  status text not null,
  phase text not null,
  jobs bigint not null,
  primary key (client_id, status, phase)
);

-- Runs once per statement and locks totals in key order, so concurrent writers cannot deadlock.
-- Runs as the owner, so that a role that may write jobs needs no permission to write totals.
create or replace function public.orchestrator_count_changed_jobs() returns trigger
  language plpgsql security definer set search_path = '' as $$
begin
  insert into public.agent_job_counts as kept (client_id, status, phase, jobs)
  select client_id, status, coalesce(phase, ''), count(*) * tg_argv[0]::integer
  from changed group by 1, 2, 3 order by 1, 2, 3
  on conflict (client_id, status, phase) do update set jobs = kept.jobs + excluded.jobs;
  return null;
end
$$;

create or replace function public.orchestrator_count_moved_jobs() returns trigger
  language plpgsql security definer set search_path = '' as $$
begin
  insert into public.agent_job_counts as kept (client_id, status, phase, jobs)
  select client_id, status, coalesce(phase, ''), sum(change)
  from (
    select client_id, status, phase, -1 as change from old_jobs
    union all
    select client_id, status, phase, 1 from new_jobs
  ) moves
  group by 1, 2, 3 having sum(change) <> 0 order by 1, 2, 3
  on conflict (client_id, status, phase) do update set jobs = kept.jobs + excluded.jobs;
  return null;
end
$$;

-- One block: its lock blocks other writers from the first trigger until all jobs are counted.
do $$
begin
  create or replace trigger agent_jobs_count_inserted after insert on public.agent_jobs
    referencing new table as changed
    for each statement execute function public.orchestrator_count_changed_jobs('1');
  create or replace trigger agent_jobs_count_deleted after delete on public.agent_jobs
    referencing old table as changed
    for each statement execute function public.orchestrator_count_changed_jobs('-1');
  create or replace trigger agent_jobs_count_updated after update on public.agent_jobs
    referencing old table as old_jobs new table as new_jobs
    for each statement execute function public.orchestrator_count_moved_jobs();
  delete from public.agent_job_counts where true;
  insert into public.agent_job_counts (client_id, status, phase, jobs)
  select client_id, status, coalesce(phase, ''), count(*) from public.agent_jobs group by 1, 2, 3;
end
$$;

-- Functions, for operations that a plain PostgREST request cannot do atomically or fast enough.

-- Returns the schema version in 1000 rows, the page size of the store. Fewer rows arrive if the
-- project's row limit is lower.
create or replace function public.orchestrator_schema() returns setof integer
  language sql immutable set search_path = '' rows 1000 as $$
  select 1 from generate_series(1, 1000)
$$;

-- Appends the messages with new ids, numbered from the job's last `seq`. The lock on the job
-- serializes the writers of one message log and keeps the lease unchanged.
-- Returns the job's lease, or null if the job does not exist. Stores nothing if `held_lease` is
-- another lease.
create or replace function public.orchestrator_append_lines(
  job uuid, held_lease integer,
  ids uuid[], types text[], contents text[], times timestamptz[]
) returns integer language plpgsql set search_path = '' as $$
declare
  present integer;
begin
  select j.lease into present from public.agent_jobs j
    where j.id = job for no key update;
  if present is null or present <> held_lease then
    return present;
  end if;
  insert into public.agent_job_messages (id, job_id, seq, type, content, created_at)
  select line.id, job, last.seq + row_number() over (order by line.place),
    line.type, line.content, line.created_at
  from (
    select coalesce(max(m.seq), 0) as seq from public.agent_job_messages m where m.job_id = job
  ) last,
  unnest(ids, types, contents, times) with ordinality as line (id, type, content, created_at, place)
  where not exists (
    select from public.agent_job_messages m where m.id = line.id and m.job_id = job
  );
  return present;
end
$$;

-- Stores a user's message, unless it is already in the inbox or the message log.
-- Returns whether the job exists.
create or replace function public.orchestrator_put_in_inbox(
  job uuid, message uuid, type text, content text, sent_at timestamptz
) returns boolean language plpgsql set search_path = '' as $$
begin
  perform from public.agent_jobs j where j.id = job for no key update;
  if not found then
    return false;
  end if;
  insert into public.agent_job_inbox (id, job_id, type, content, created_at)
  select message, job, type, content, sent_at
  where not exists (
    select from public.agent_job_messages m where m.id = message and m.job_id = job
  )
  on conflict (id) do nothing;
  return true;
end
$$;

-- Moves a message to the end of the message log. Returns whether the message is in the log.
create or replace function public.orchestrator_take_from_inbox(job uuid, message uuid)
returns boolean language plpgsql set search_path = '' as $$
declare
  taken public.agent_job_inbox;
begin
  perform from public.agent_jobs j where j.id = job for no key update;
  delete from public.agent_job_inbox i where i.id = message and i.job_id = job
    returning * into taken;
  if found then
    perform public.orchestrator_append_lines(
      job, null, array[message], array[taken.type], array[taken.content], array[taken.created_at]
    );
  end if;
  return exists (
    select from public.agent_job_messages m where m.id = message and m.job_id = job
  );
end
$$;

-- Adds a usage report to the sums of its job, once per report id.
create or replace function public.orchestrator_add_usage(
  job uuid, report uuid, num_turns integer, total_cost_usd double precision, input_tokens bigint,
  output_tokens bigint, cache_read_tokens bigint, cache_creation_tokens bigint,
  claude_seconds double precision, reported_at timestamptz
) returns void language sql set search_path = '' as $$
  with added as (
    insert into public.agent_job_usage_reports (
      job_id, report_id, num_turns, total_cost_usd, input_tokens, output_tokens,
      cache_read_tokens, cache_creation_tokens, claude_seconds, created_at
    ) values ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10)
    on conflict (report_id) do nothing returning *
  )
  update public.agent_jobs j set
    num_turns = j.num_turns + added.num_turns,
    total_cost_usd = case when added.total_cost_usd is null then j.total_cost_usd
      else coalesce(j.total_cost_usd, 0) + added.total_cost_usd end,
    input_tokens = j.input_tokens + added.input_tokens,
    output_tokens = j.output_tokens + added.output_tokens,
    cache_read_tokens = j.cache_read_tokens + added.cache_read_tokens,
    cache_creation_tokens = j.cache_creation_tokens + added.cache_creation_tokens,
    claude_seconds = j.claude_seconds + added.claude_seconds,
    updated_at = added.created_at
  from added where j.id = added.job_id
$$;

-- Returns the live jobs of each kind, at most `entries`, and their totals.
create or replace function public.orchestrator_queue(entries bigint)
returns jsonb language sql stable set search_path = '' as $$
  with totals as (
    select
      sum(jobs) filter (
        where status = 'running' and phase in ('preparing', 'publishing', 'working')
      ) as running,
      sum(jobs) filter (where phase in ('waiting_for_limit', 'waiting_for_user')) as waiting,
      sum(jobs) filter (where phase = 'waiting_for_slot') as queued
    from public.agent_job_counts where status in ('queued', 'running')
  )
  select jsonb_build_object(
    'running_total', coalesce(totals.running, 0),
    'waiting_total', coalesce(totals.waiting, 0),
    'queued_total', coalesce(totals.queued, 0),
    'running', (select coalesce(jsonb_agg(to_jsonb(entry)), '[]') from (
      select id, title, client_id, branch_name, job_type, phase, created_at, queued_at, started_at
      from public.agent_jobs
      where status = 'running' and phase in ('preparing', 'publishing', 'working')
      order by started_at, id limit entries
    ) entry),
    'waiting', (select coalesce(jsonb_agg(to_jsonb(entry)), '[]') from (
      select id, title, client_id, branch_name, job_type, phase, created_at, queued_at, started_at
      from public.agent_jobs
      where status in ('queued', 'running') and phase in ('waiting_for_limit', 'waiting_for_user')
      order by queued_at, id limit entries
    ) entry),
    'queued', (select coalesce(jsonb_agg(to_jsonb(entry)), '[]') from (
      select id, title, client_id, branch_name, job_type, phase, created_at, queued_at, started_at
      from public.agent_jobs
      where status in ('queued', 'running') and phase = 'waiting_for_slot'
      order by priority, queued_at, id limit entries
    ) entry)
  ) from totals
$$;

-- Returns the 1-based place of a job among the jobs that wait for a slot, 0 for other jobs.
create or replace function public.orchestrator_queue_position(job uuid)
returns bigint language sql stable set search_path = '' as $$
  select count(*) from public.agent_jobs mine join public.agent_jobs ahead
    on (ahead.priority, ahead.queued_at, ahead.id) <= (mine.priority, mine.queued_at, mine.id)
  where mine.id = job
    and mine.status in ('queued', 'running') and mine.phase = 'waiting_for_slot'
    and ahead.status in ('queued', 'running') and ahead.phase = 'waiting_for_slot'
$$;

-- Returns the first job that waits for a slot and is not in `exclude`.
create or replace function public.orchestrator_first_in_queue(exclude uuid[])
returns uuid language sql stable set search_path = '' as $$
  select id from public.agent_jobs
  where status in ('queued', 'running') and phase = 'waiting_for_slot' and id <> all (exclude)
  order by priority, queued_at, id limit 1
$$;

-- Returns the number of matching jobs; null means any.
create or replace function public.orchestrator_count_jobs(
  statuses text[] default null, client uuid default null, feature uuid default null
) returns bigint language plpgsql stable set search_path = '' as $$
begin
  if feature is null then
    return (
      select coalesce(sum(c.jobs), 0) from public.agent_job_counts c
      where (statuses is null or c.status = any (statuses))
        and (client is null or c.client_id = client)
    );
  end if;
  return (
    select count(*) from public.agent_jobs j where j.feature_id = feature
      and (statuses is null or j.status = any (statuses))
      and (client is null or j.client_id = client)
  );
end
$$;

-- Returns the oldest GitHub repository of that owner and name, in any case.
create or replace function public.orchestrator_find_repository(owner text, repository text)
returns setof public.code_repositories language sql stable rows 1 set search_path = '' as $$
  select * from public.code_repositories
  where lower(owner_name collate "C") = lower(owner collate "C")
    and lower(repo_name collate "C") = lower(repository collate "C")
    and provider = 'github'
  order by created_at, id limit 1
$$;

-- Inserts a repository unless its id exists. Returns false if the client has another repository of
-- that owner and name, in any case. A unique index is impossible, because the earlier product may
-- have stored duplicates. An advisory lock serializes the inserts of one name instead.
create or replace function public.orchestrator_add_repository(
  id uuid, client_id uuid, provider text, owner_name text, repo_name text, default_branch text,
  url text, created_at timestamptz, updated_at timestamptz
) returns boolean language plpgsql set search_path = '' as $$
declare
  owner text := lower(owner_name collate "C");
  repository text := lower(repo_name collate "C");
begin
  perform pg_advisory_xact_lock(hashtextextended(owner || '/' || repository, 0));
  if exists (select from public.code_repositories r where r.id = $1) then
    return true;
  end if;
  if exists (
    select from public.code_repositories r where r.client_id = $2
      and lower(r.owner_name collate "C") = owner and lower(r.repo_name collate "C") = repository
  ) then
    return false;
  end if;
  insert into public.code_repositories
    (id, client_id, provider, owner_name, repo_name, default_branch, url, created_at, updated_at)
  values ($1, $2, $3, $4, $5, $6, $7, $8, $9);
  return true;
end
$$;

-- Holds a credential until then, or until the later time that is already stored.
create or replace function public.orchestrator_hold_credential(
  credential text, held_until timestamptz
) returns void language sql set search_path = '' as $$
  insert into public.agent_credential_holds as kept (credential, held_until) values ($1, $2)
  on conflict (credential) do update
    set held_until = greatest(kept.held_until, excluded.held_until)
$$;

-- Returns the stored time, or null. This is a function because a request's address cannot carry
-- every text unchanged. The same is true for the keys below.
create or replace function public.orchestrator_credential_held_until(credential text)
returns timestamptz language sql stable set search_path = '' as $$
  select h.held_until from public.agent_credential_holds h where h.credential = $1
$$;

-- Inserts the request of a key unless the key is claimed. Returns the stored row. The update
-- changes nothing, but makes concurrent calls wait for the first and return its row.
create or replace function public.orchestrator_claim_key(
  scope text, key text, fingerprint text, resource_id uuid, created_at timestamptz
) returns setof public.agent_idempotency_keys language sql rows 1 set search_path = '' as $$
  insert into public.agent_idempotency_keys (scope, key, fingerprint, resource_id, created_at)
  values ($1, $2, $3, $4, $5)
  on conflict (scope, key) do update set scope = excluded.scope
  returning *
$$;

-- Sets the answer of a key unless it has one. Returns the stored row, if the key is claimed.
create or replace function public.orchestrator_answer_key(
  scope text, key text, status integer, answer text
) returns setof public.agent_idempotency_keys language sql rows 1 set search_path = '' as $$
  update public.agent_idempotency_keys k set
    status = case when k.answer is null then $3 else k.status end,
    answer = coalesce(k.answer, $4)
  where k.scope = $1 and k.key = $2
  returning *
$$;

-- Marks a claim without an answer as shared, so that it is not released.
-- Returns whether the claim exists.
create or replace function public.orchestrator_share_key(
  scope text, key text, resource_id uuid
) returns boolean language sql set search_path = '' as $$
  with claim as (
    update public.agent_idempotency_keys k set shared = true
    where k.scope = $1 and k.key = $2 and k.resource_id = $3 and k.answer is null
    returning 1
  )
  select exists (select from claim)
$$;

-- Deletes a claim that has no answer and is not shared.
create or replace function public.orchestrator_release_key(
  scope text, key text, resource_id uuid
) returns void language sql set search_path = '' as $$
  delete from public.agent_idempotency_keys k
  where k.scope = $1 and k.key = $2 and k.resource_id = $3 and k.answer is null and not k.shared
$$;

-- Only the service role has access. Row level security without a policy hides all rows from other
-- roles. Existing policies of a project stay in force.

do $$
declare
  name text;
begin
  foreach name in array array[
    'team_members', 'clients', 'features', 'code_repositories', 'code_branches',
    'code_pull_requests', 'agent_jobs', 'agent_job_messages', 'agent_job_inbox',
    'agent_job_sessions', 'agent_job_usage_reports', 'agent_job_counts', 'agent_job_kept_work',
    'agent_hosts', 'agent_credential_holds', 'agent_idempotency_keys'
  ] loop
    execute format('alter table public.%I enable row level security', name);
    execute format('grant select, insert, update, delete on public.%I to service_role', name);
  end loop;
  for name in
    select p.oid::regprocedure from pg_proc p
    where p.pronamespace = 'public'::regnamespace and p.proname like 'orchestrator\_%'
  loop
    execute format('revoke execute on function %s from public, anon, authenticated', name);
    execute format('grant execute on function %s to service_role', name);
  end loop;
end
$$;
