-- What projects may use, what they have used, and who changed what.

alter table projects
    add column seq bigint generated always as identity,
    -- Limits; null is none.
    add column max_concurrent_runs integer,
    add column requests_per_minute integer,
    add column tokens_per_minute bigint,
    add column storage_bytes bigint,
    add constraint projects_limits_positive check
        (least(max_concurrent_runs, requests_per_minute, tokens_per_minute, storage_bytes) > 0);
alter table api_keys add column seq bigint generated always as identity;
create index api_keys_by_project on api_keys (project_id, created_at, seq);

-- Runs at work, for projects that may have so many at a time.
create index runs_at_work on runs (project_id)
    where status in ('queued', 'in_progress', 'cancelling');

-- What a project stores is summed up from the index alone.
drop index files_by_project;
create index files_by_project on files (project_id, created_at, seq) include (bytes);

-- Requests of projects that may make so many a minute. `full_at` is when all of the minute's
-- requests are free again; each request moves it on. A crash gives everybody a fresh minute.
create unlogged table request_budgets (
    project_id text collate "C" primary key,
    full_at timestamptz not null,
    -- How many requests the last statement was allowed.
    granted integer not null
);

-- What was used, written by the transaction that stores what it was used for. The key makes a
-- repeated write harmless, and lets the last minute of a project be summed up. No foreign keys:
-- what was used stays used, and rows of projects are not locked by every commit.
create table usage_entries (
    project_id text collate "C" not null,
    at timestamptz not null,
    id uuid not null,
    model text not null,
    runs integer not null default 0,
    model_calls integer not null default 0,
    prompt_tokens bigint not null default 0,
    completion_tokens bigint not null default 0,
    code_calls integer not null default 0,
    search_calls integer not null default 0,
    function_calls integer not null default 0,
    sandbox_ms bigint not null default 0,
    primary key (project_id, at, id)
);
create index usage_entries_by_age on usage_entries using brin (at);

-- Entries of earlier hours, summed up by the sweep.
create table usage_days (
    project_id text collate "C" not null,
    day date not null,
    model text not null,
    runs bigint not null,
    model_calls bigint not null,
    prompt_tokens bigint not null,
    completion_tokens bigint not null,
    code_calls bigint not null,
    search_calls bigint not null,
    function_calls bigint not null,
    sandbox_ms bigint not null,
    primary key (project_id, day, model)
);

-- Administrative acts, written by the transactions that carry them out.
create table audit_log (
    id text collate "C" primary key,
    seq bigint generated always as identity,
    created_at timestamptz not null default now(),
    -- `cli:USER`, `admin_api:ADDRESS` or `settings`.
    actor text not null,
    action text not null,
    -- Id of what was acted on.
    object text not null,
    details jsonb not null
);
create index audit_log_by_age on audit_log (created_at, seq);
