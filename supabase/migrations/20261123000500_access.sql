-- Only the service role gets in. Row level security without a policy shows the other roles nothing;
-- policies that a project has already stay in force.

do $$
declare
  name text;
begin
  foreach name in array array[
    'team_members', 'clients', 'features', 'code_repositories', 'code_branches',
    'code_pull_requests', 'agent_jobs', 'agent_job_messages', 'agent_job_inbox',
    'agent_job_sessions', 'agent_job_usage_reports', 'agent_job_counts', 'agent_hosts'
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
