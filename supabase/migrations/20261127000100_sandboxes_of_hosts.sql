-- How each host contains Claude, and whether that works there.

alter table public.agent_hosts
  add column if not exists sandbox text not null default 'off',
  add column if not exists sandbox_ok boolean not null default false,
  add column if not exists sandbox_network text not null default 'host',
  add column if not exists credential_hidden boolean not null default false;

create or replace function public.orchestrator_schema() returns setof integer
  language sql immutable set search_path = '' rows 1000 as $$
  select 3 from generate_series(1, 1000)
$$;
