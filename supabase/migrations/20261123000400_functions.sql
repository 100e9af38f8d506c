-- What one PostgREST request could not do in one step, or not without growing with what is stored.

-- The schema's version, in as many rows as one page of the store's reads has: fewer arrive when the
-- project is set to give out less at a time.
create or replace function public.orchestrator_schema() returns setof integer
  language sql immutable set search_path = '' rows 1000 as $$
  select 1 from generate_series(1, 1000)
$$;

-- Stores those lines that are new, numbered on from the job's last. The lock on the job makes
-- writers of one transcript take turns, and holds its lease in place meanwhile.
-- Returns the job's lease, null when there is no such job; stores nothing if that is not the lease
-- held.
create or replace function public.orchestrator_append_lines(
  job uuid, held_lease integer,
  ids uuid[], types text[], contents text[], times timestamptz[]
) returns integer language plpgsql set search_path = '' as $$
declare
  present integer;
begin
  select coalesce(j.lease, 0) into present from public.agent_jobs j
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

-- Keeps a user's message, unless the job has it in the inbox or in the transcript already.
-- Returns whether there is such a job.
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

-- Moves a message to the end of the transcript. Returns whether the transcript holds it now.
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

-- Adds a report to its job's sums, unless it was added before.
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
    num_turns = coalesce(j.num_turns, 0) + added.num_turns,
    total_cost_usd = case when added.total_cost_usd is null then j.total_cost_usd
      else coalesce(j.total_cost_usd, 0) + added.total_cost_usd end,
    input_tokens = coalesce(j.input_tokens, 0) + added.input_tokens,
    output_tokens = coalesce(j.output_tokens, 0) + added.output_tokens,
    cache_read_tokens = coalesce(j.cache_read_tokens, 0) + added.cache_read_tokens,
    cache_creation_tokens = coalesce(j.cache_creation_tokens, 0) + added.cache_creation_tokens,
    claude_seconds = coalesce(j.claude_seconds, 0) + added.claude_seconds,
    updated_at = added.created_at
  from added where j.id = added.job_id
$$;

-- The live jobs of each kind, at most so many, and how many there are.
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

-- The 1-based place of a job among those that wait for a slot, 0 when it waits for none.
create or replace function public.orchestrator_queue_position(job uuid)
returns bigint language sql stable set search_path = '' as $$
  select count(*) from public.agent_jobs mine join public.agent_jobs ahead
    on (ahead.priority, ahead.queued_at, ahead.id) <= (mine.priority, mine.queued_at, mine.id)
  where mine.id = job
    and mine.status in ('queued', 'running') and mine.phase = 'waiting_for_slot'
    and ahead.status in ('queued', 'running') and ahead.phase = 'waiting_for_slot'
$$;

-- The job whose turn for a slot it is, those in `beyond` left out.
create or replace function public.orchestrator_first_in_queue(beyond uuid[])
returns uuid language sql stable set search_path = '' as $$
  select id from public.agent_jobs
  where status in ('queued', 'running') and phase = 'waiting_for_slot' and id <> all (beyond)
  order by priority, queued_at, id limit 1
$$;

-- How many jobs match; null means any.
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

-- The oldest repository of that owner and name on GitHub, in any case.
create or replace function public.orchestrator_find_repository(owner text, repository text)
returns setof public.code_repositories language sql stable rows 1 set search_path = '' as $$
  select * from public.code_repositories
  where lower(owner_name collate "C") = lower(owner collate "C")
    and lower(repo_name collate "C") = lower(repository collate "C")
    and provider = 'github'
  order by created_at, id limit 1
$$;

-- Inserts a repository unless it is there. Returns false when its client has another of that owner
-- and name, in any case. Not by a unique index, which could not be built where the predecessor has
-- stored one twice; those who add the same name take turns instead.
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
