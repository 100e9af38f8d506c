-- How single jobs are to run and what stopped them, work that was not delivered, limits of
-- credentials, and keys by which a repeated request is known.

alter table public.agent_jobs
  add column if not exists retry_from text,
  add column if not exists options jsonb,
  add column if not exists clock text,
  add column if not exists resumes_at timestamptz,
  add column if not exists cost_is_estimate boolean not null default false;
comment on column public.agent_jobs.options is 'what differs from the defaults, null for nothing';

create table if not exists public.agent_job_kept_work (
  job_id uuid primary key references public.agent_jobs (id) on delete cascade,
  base_sha text not null,
  head_sha text not null,
  host text not null,
  created_at timestamptz not null,
  patch text
);
create index if not exists agent_job_kept_work_oldest on public.agent_job_kept_work (created_at);

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
create index if not exists agent_idempotency_keys_oldest
  on public.agent_idempotency_keys (created_at);
comment on column public.agent_idempotency_keys.shared is
  'whether a second request may make the resource';

-- Holds a credential until then, or until the later time that is set already.
create or replace function public.orchestrator_hold_credential(
  credential text, held_until timestamptz
) returns void language sql set search_path = '' as $$
  insert into public.agent_credential_holds as kept (credential, held_until) values ($1, $2)
  on conflict (credential) do update
    set held_until = greatest(kept.held_until, excluded.held_until)
$$;

-- The time last set, null when there is none. A function, because a request's address would not
-- carry every text unchanged; so it is with keys below.
create or replace function public.orchestrator_credential_held_until(credential text)
returns timestamptz language sql stable set search_path = '' as $$
  select h.held_until from public.agent_credential_holds h where h.credential = $1
$$;

-- Inserts what a key stands for unless that is there. Returns what is there now. The update changes
-- nothing; by it those who come at once wait for the first, and then get its row.
create or replace function public.orchestrator_claim_key(
  scope text, key text, fingerprint text, resource_id uuid, created_at timestamptz
) returns setof public.agent_idempotency_keys language sql rows 1 set search_path = '' as $$
  insert into public.agent_idempotency_keys (scope, key, fingerprint, resource_id, created_at)
  values ($1, $2, $3, $4, $5)
  on conflict (scope, key) do update set scope = excluded.scope
  returning *
$$;

-- Sets the answer of a key unless it has one. Returns what the key stands for now, if for anything.
create or replace function public.orchestrator_answer_key(
  scope text, key text, status integer, answer text
) returns setof public.agent_idempotency_keys language sql rows 1 set search_path = '' as $$
  update public.agent_idempotency_keys k set
    status = case when k.answer is null then $3 else k.status end,
    answer = coalesce(k.answer, $4)
  where k.scope = $1 and k.key = $2
  returning *
$$;

-- Shares a claim that has no answer, so that it is not released. Returns whether it is there.
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

-- Forgets a claim that has no answer and is not shared.
create or replace function public.orchestrator_release_key(
  scope text, key text, resource_id uuid
) returns void language sql set search_path = '' as $$
  delete from public.agent_idempotency_keys k
  where k.scope = $1 and k.key = $2 and k.resource_id = $3 and k.answer is null and not k.shared
$$;

create or replace function public.orchestrator_schema() returns setof integer
  language sql immutable set search_path = '' rows 1000 as $$
  select 2 from generate_series(1, 1000)
$$;

do $$
declare
  name text;
begin
  foreach name in array array[
    'agent_job_kept_work', 'agent_credential_holds', 'agent_idempotency_keys'
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
