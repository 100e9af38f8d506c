-- The earlier product's project, as a dump of it would be: its columns, some further ones, tables that
-- the orchestrator does not know, no row level security, and rows that its rules let through.

create table public.team_members (
  id uuid primary key default gen_random_uuid(),
  full_name text not null,
  auth_user_id uuid,
  department text,
  role_title text,
  is_active boolean default true,
  created_at timestamptz default now(),
  updated_at timestamptz default now()
);

create table public.clients (
  id uuid primary key default gen_random_uuid(),
  name text not null,
  industry text,
  notes text,
  website text,
  onboarding_state text not null default 'new',
  assigned_developer uuid references public.team_members (id),
  created_at timestamptz default now(),
  updated_at timestamptz default now()
);

create table public.features (
  id uuid primary key default gen_random_uuid(),
  client_id uuid not null references public.clients (id),
  title text not null,
  branch_name text,
  branch_name_hint text,
  functionality_notes text,
  client_context text,
  feature_type_id uuid,
  feature_workflow_stage_id uuid,
  created_at timestamptz default now(),
  updated_at timestamptz default now()
);

create table public.code_repositories (
  id uuid primary key default gen_random_uuid(),
  client_id uuid references public.clients (id),
  provider text not null,
  owner_name text not null,
  repo_name text not null,
  default_branch text,
  url text,
  external_id text,
  created_at timestamptz default now(),
  updated_at timestamptz default now()
);

create table public.code_branches (
  id uuid primary key default gen_random_uuid(),
  repository_id uuid not null references public.code_repositories (id),
  feature_id uuid references public.features (id),
  name text not null,
  url text,
  external_id text,
  created_by_team_id uuid,
  created_at timestamptz default now(),
  updated_at timestamptz default now()
);

create table public.code_pull_requests (
  id uuid primary key default gen_random_uuid(),
  repository_id uuid not null references public.code_repositories (id),
  feature_id uuid references public.features (id),
  branch_id uuid references public.code_branches (id),
  number integer,
  title text,
  status text default 'open',
  url text,
  external_id text,
  opened_by_team_id uuid,
  merged_at timestamptz,
  closed_at timestamptz,
  created_at timestamptz default now(),
  updated_at timestamptz default now()
);

create table public.agent_jobs (
  id uuid primary key default gen_random_uuid(),
  client_id uuid not null references public.clients (id),
  repository_id uuid references public.code_repositories (id),
  feature_id uuid references public.features (id),
  created_by_team_member_id uuid references public.team_members (id),
  prompt text not null,
  branch_name text not null,
  title text,
  job_type text default 'code',
  status text not null default 'queued',
  worktree_path text,
  pid integer,
  exit_code integer,
  error text,
  pr_url text,
  pr_number integer,
  files_changed integer,
  code_branch_id uuid references public.code_branches (id),
  code_pull_request_id uuid references public.code_pull_requests (id),
  target_machine text,
  started_at timestamptz,
  completed_at timestamptz,
  created_at timestamptz default now(),
  updated_at timestamptz default now()
);
create index idx_agent_jobs_status on public.agent_jobs (status);

create table public.agent_job_messages (
  id uuid primary key default gen_random_uuid(),
  job_id uuid not null references public.agent_jobs (id),
  type text not null,
  content text not null,
  created_at timestamptz default now()
);

create table public.todos (
  id uuid primary key default gen_random_uuid(),
  job_id uuid references public.agent_jobs (id),
  text text not null
);

insert into public.team_members (id, full_name) values
  ('00000000-0000-4000-8000-00000000a001', 'Ada');

insert into public.clients (id, name, notes, website, assigned_developer, created_at, updated_at)
values
  ('00000000-0000-4000-8000-00000000c001', 'Zeta & Söhne', 'a note', 'https://zeta.example',
    '00000000-0000-4000-8000-00000000a001', '2025-01-01 10:00:00.5+00', '2025-01-02 10:00:00+00'),
  ('00000000-0000-4000-8000-00000000c002', 'Acme', null, null, null, null, '2025-01-03 10:00:00+00');

insert into public.features (id, client_id, title) values
  ('00000000-0000-4000-8000-00000000f001', '00000000-0000-4000-8000-00000000c001', 'Login');

-- One client has the same repository twice, in different case.
insert into public.code_repositories
  (id, client_id, provider, owner_name, repo_name, default_branch, created_at, updated_at)
values
  ('00000000-0000-4000-8000-00000000e001', '00000000-0000-4000-8000-00000000c001', 'github',
    'acme', 'shop', 'main', '2025-01-01 10:00:00+00', '2025-01-04 10:00:00+00'),
  ('00000000-0000-4000-8000-00000000e002', '00000000-0000-4000-8000-00000000c001', 'github',
    'Acme', 'Shop', null, '2025-01-02 10:00:00+00', null),
  ('00000000-0000-4000-8000-00000000e003', null, 'github', 'other', 'tool', null, null,
    null);

insert into public.code_branches (id, repository_id, name) values
  ('00000000-0000-4000-8000-00000000b001', '00000000-0000-4000-8000-00000000e001', 'feat/done');

insert into public.code_pull_requests (id, repository_id, branch_id, number, title) values
  ('00000000-0000-4000-8000-00000000d001', '00000000-0000-4000-8000-00000000e001',
    '00000000-0000-4000-8000-00000000b001', 7, 'Done');

-- A finished one, one without a repository, a task, and three live ones of which two share a branch.
insert into public.agent_jobs (
  id, client_id, repository_id, feature_id, prompt, branch_name, job_type, status, exit_code, error,
  code_branch_id, code_pull_request_id, target_machine, started_at, completed_at, created_at,
  updated_at
) values
  ('00000000-0000-4000-8000-000000000001', '00000000-0000-4000-8000-00000000c001',
    '00000000-0000-4000-8000-00000000e001', '00000000-0000-4000-8000-00000000f001', 'one',
    'feat/done', 'code', 'completed', 0, null, '00000000-0000-4000-8000-00000000b001',
    '00000000-0000-4000-8000-00000000d001', 'mill', '2025-02-01 10:00:00+00',
    '2025-02-01 11:00:00+00', '2025-02-01 09:00:00+00', '2025-02-01 11:00:00+00'),
  ('00000000-0000-4000-8000-000000000002', '00000000-0000-4000-8000-00000000c001', null, null,
    'two', 'feat/lost', null, 'failed', null, 'No repository found', null, null, null, null,
    '2025-02-02 11:00:00+00', '2025-02-02 09:00:00+00', null),
  ('00000000-0000-4000-8000-000000000003', '00000000-0000-4000-8000-00000000c002', null, null,
    'three', 'task-1738400000000', 'task', 'cancelled', null, null, null, null, null, null,
    '2025-02-03 11:00:00+00', null, '2025-02-03 11:00:00+00'),
  ('00000000-0000-4000-8000-000000000004', '00000000-0000-4000-8000-00000000c001',
    '00000000-0000-4000-8000-00000000e001', null, 'four', 'feat/same', 'code', 'running', null,
    null, null, null, null, '2025-02-04 10:00:00+00', null, '2025-02-04 09:00:00+00',
    '2025-02-04 10:00:00+00'),
  ('00000000-0000-4000-8000-000000000005', '00000000-0000-4000-8000-00000000c001',
    '00000000-0000-4000-8000-00000000e001', null, 'five', 'feat/same', 'code', 'queued', null,
    null, null, null, null, null, null, '2025-02-05 09:00:00+00', '2025-02-05 09:00:00+00'),
  ('00000000-0000-4000-8000-000000000006', '00000000-0000-4000-8000-00000000c001',
    '00000000-0000-4000-8000-00000000e001', null, 'six', 'feat/loop', 'ralph', 'queued', null,
    null, null, null, null, null, null, '2025-02-06 09:00:00+00', '2025-02-06 09:00:00+00');

update public.agent_jobs set pid = 4242 where status = 'running';

insert into public.agent_job_messages (id, job_id, type, content, created_at)
select
  ('00000000-0000-4000-9000-' || lpad(number::text, 12, '0'))::uuid,
  '00000000-0000-4000-8000-000000000001', 'stdout', 'line ' || number,
  '2025-02-01 10:00:00+00'::timestamptz + number * interval '1 millisecond'
from generate_series(1, 2345) number;
insert into public.agent_job_messages (id, job_id, type, content, created_at) values
  ('00000000-0000-4000-9000-00000000ffff', '00000000-0000-4000-8000-000000000003', 'user_input',
    'a question', null);

insert into public.todos (job_id, text) values ('00000000-0000-4000-8000-000000000001', 'a todo');
