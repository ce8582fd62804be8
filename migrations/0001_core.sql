-- Everything but vector stores: tenants, assistants, threads, messages, runs and files.
-- Names of constraints and indexes are part of the code: the store turns some into typed errors.

create table projects (
    id text collate "C" primary key,
    name text not null constraint projects_name_unique unique,
    created_at timestamptz not null default now()
);

create table api_keys (
    id text collate "C" primary key,
    project_id text collate "C" not null references projects on delete cascade,
    name text not null,
    hash bytea not null constraint api_keys_hash_unique unique,
    hint text not null,
    created_at timestamptz not null default now(),
    revoked_at timestamptz
);

create table assistants (
    id text collate "C" primary key,
    project_id text collate "C" not null references projects on delete cascade,
    seq bigint generated always as identity,
    created_at timestamptz not null default now(),
    config json not null,
    tool_resources jsonb not null default '{}',
    metadata jsonb not null default '{}'
);
create index assistants_by_project on assistants (project_id, created_at, seq);

create table threads (
    id text collate "C" primary key,
    project_id text collate "C" not null references projects on delete cascade,
    seq bigint generated always as identity,
    created_at timestamptz not null default now(),
    metadata jsonb not null default '{}',
    tool_resources jsonb not null default '{}'
);
create index threads_by_project on threads (project_id, created_at, seq);
create index threads_by_metadata on threads using gin (metadata jsonb_path_ops) where metadata <> '{}';

create table runs (
    id text collate "C" primary key,
    project_id text collate "C" not null,
    thread_id text collate "C" not null references threads on delete cascade,
    assistant_id text collate "C" not null,
    seq bigint generated always as identity,
    created_at timestamptz not null default now(),
    config json not null,
    metadata jsonb not null default '{}',
    status text not null constraint runs_status_known check (status in
        ('queued', 'in_progress', 'requires_action', 'cancelling',
         'cancelled', 'failed', 'completed', 'incomplete', 'expired')),
    started_at timestamptz,
    expires_at timestamptz not null,
    ended_at timestamptz,
    outcome jsonb not null default '{}',
    -- The queue. `due_at` is when a worker must look at the run next: at once while it is queued,
    -- when the lease runs out while a worker has it, when it expires while the caller has it.
    due_at timestamptz,
    attempt integer not null default 0,
    recoveries integer not null default 0,
    lease_owner text,
    constraint runs_ended_iff_terminal check ((ended_at is not null)
        = (status in ('cancelled', 'failed', 'completed', 'incomplete', 'expired'))),
    constraint runs_due_unless_terminal check ((due_at is null) = (ended_at is not null)),
    constraint runs_not_leased_when_over check (ended_at is null or lease_owner is null)
);
create unique index runs_one_active_per_thread on runs (thread_id)
    where status in ('queued', 'in_progress', 'requires_action', 'cancelling');
create index runs_by_thread on runs (thread_id, created_at, seq);
create index runs_due on runs (due_at) where due_at is not null;
create index runs_cancelling on runs (lease_owner) where status = 'cancelling';

create table messages (
    id text collate "C" primary key,
    project_id text collate "C" not null,
    thread_id text collate "C" not null references threads on delete cascade,
    seq bigint generated always as identity,
    created_at timestamptz not null default now(),
    status text not null constraint messages_status_known
        check (status in ('in_progress', 'completed', 'incomplete')),
    incomplete_reason text,
    ended_at timestamptz,
    role text not null constraint messages_role_known check (role in ('user', 'assistant')),
    content jsonb not null,
    attachments jsonb not null default '[]',
    assistant_id text collate "C",
    run_id text collate "C",
    metadata jsonb not null default '{}',
    constraint messages_reason_iff_incomplete
        check ((incomplete_reason is not null) = (status = 'incomplete'))
);
create index messages_by_thread on messages (thread_id, created_at, seq);

create table run_steps (
    id text collate "C" primary key,
    project_id text collate "C" not null,
    run_id text collate "C" not null references runs on delete cascade,
    thread_id text collate "C" not null,
    assistant_id text collate "C" not null,
    seq bigint generated always as identity,
    created_at timestamptz not null default now(),
    status text not null constraint run_steps_status_known
        check (status in ('in_progress', 'cancelled', 'failed', 'completed', 'expired')),
    expires_at timestamptz not null,
    ended_at timestamptz,
    last_error jsonb,
    details jsonb not null,
    usage jsonb,
    constraint run_steps_ended_iff_over check ((ended_at is not null) = (status <> 'in_progress'))
);
create index run_steps_by_run on run_steps (run_id, created_at, seq);
create index run_steps_tool_calls_by_thread on run_steps (thread_id, created_at, seq)
    where details ->> 'type' = 'tool_calls';

-- What readers of a stream on another process, or after a reconnection, are served from.
-- A row holds a stretch of consecutive events; stretches may overlap after a failed write.
create table run_events (
    run_id text collate "C" not null references runs on delete cascade,
    first_seq bigint not null,
    last_seq bigint not null,
    events text not null,
    written_at timestamptz not null default now(),
    primary key (run_id, first_seq)
);
create index run_events_by_age on run_events using brin (written_at);

create table files (
    id text collate "C" primary key,
    project_id text collate "C" not null references projects on delete cascade,
    seq bigint generated always as identity,
    created_at timestamptz not null default now(),
    expires_at timestamptz,
    filename text not null,
    bytes bigint not null,
    purpose text not null
);
create index files_by_project on files (project_id, created_at, seq);
create index files_expiring on files (expires_at) where expires_at is not null;

create table uploads (
    id text collate "C" primary key,
    project_id text collate "C" not null references projects on delete cascade,
    created_at timestamptz not null default now(),
    expires_at timestamptz not null,
    filename text not null,
    bytes bigint not null,
    mime_type text not null,
    purpose text not null,
    status text not null constraint uploads_status_known
        check (status in ('pending', 'completed', 'cancelled', 'expired')),
    file_expires_after bigint,
    file_id text collate "C",
    constraint uploads_file_iff_completed check ((file_id is not null) = (status = 'completed'))
);

create table upload_parts (
    id text collate "C" primary key,
    upload_id text collate "C" not null references uploads on delete cascade,
    created_at timestamptz not null default now(),
    bytes bigint not null
);
create index upload_parts_by_upload on upload_parts (upload_id);
