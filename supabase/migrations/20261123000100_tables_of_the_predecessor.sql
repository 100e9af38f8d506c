-- The tables of the predecessor's project that the orchestrator reads and writes, as far as it needs
-- them. In a project that has them already, nothing here happens: its tables stay as they are, with
-- every row and every further column.

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
