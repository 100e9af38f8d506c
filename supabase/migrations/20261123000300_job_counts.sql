-- Totals are kept, not counted: what counts rows takes longer the more rows there are.

create table if not exists public.agent_job_counts (
  client_id uuid not null,
  status text not null,
  phase text not null,
  jobs bigint not null,
  primary key (client_id, status, phase)
);

-- Once for each statement, and always in the order of the key, so that two writers that change the
-- same totals wait for one another and never for each other. As the owner, because whoever may
-- write a job need not be able to write a total.
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
    select client_id, status, phase, -1 as change from left_behind
    union all
    select client_id, status, phase, 1 from arrived
  ) moves
  group by 1, 2, 3 having sum(change) <> 0 order by 1, 2, 3
  on conflict (client_id, status, phase) do update set jobs = kept.jobs + excluded.jobs;
  return null;
end
$$;

-- In one block, whose lock keeps other writers out from the first trigger until all is counted.
do $$
begin
  create or replace trigger agent_jobs_count_inserted after insert on public.agent_jobs
    referencing new table as changed
    for each statement execute function public.orchestrator_count_changed_jobs('1');
  create or replace trigger agent_jobs_count_deleted after delete on public.agent_jobs
    referencing old table as changed
    for each statement execute function public.orchestrator_count_changed_jobs('-1');
  create or replace trigger agent_jobs_count_updated after update on public.agent_jobs
    referencing old table as left_behind new table as arrived
    for each statement execute function public.orchestrator_count_moved_jobs();
  delete from public.agent_job_counts where true;
  insert into public.agent_job_counts (client_id, status, phase, jobs)
  select client_id, status, coalesce(phase, ''), count(*) from public.agent_jobs group by 1, 2, 3;
end
$$;
