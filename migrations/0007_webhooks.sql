-- Webhooks: who is told of what, and what is still to be told. Events are written by triggers, so they
-- are part of the very statement that made them true, whoever wrote it, and cost a project without
-- endpoints one look at a small index.

create table webhook_endpoints (
    id text collate "C" primary key,
    project_id text collate "C" not null references projects on delete cascade,
    created_at timestamptz not null default now(),
    url text not null,
    -- The types of events that it is told of; null is all.
    events text[],
    -- Signing takes the secrets themselves.
    secret bytea not null,
    -- The one before, by which events are signed as well until then.
    old_secret bytea,
    old_secret_until timestamptz,
    -- Since when no attempt has succeeded.
    failing_since timestamptz,
    disabled_at timestamptz,
    disabled_reason text,
    constraint webhook_endpoints_old_secret_ends
        check ((old_secret is null) = (old_secret_until is null)),
    constraint webhook_endpoints_disabled_for_a_reason
        check ((disabled_at is null) = (disabled_reason is null))
);
create index webhook_endpoints_by_project on webhook_endpoints (project_id);

create table webhook_events (
    id text collate "C" primary key,
    created_at timestamptz not null default now(),
    type text not null,
    -- What it is about. Events about one thing are told in their order.
    subject text collate "C" not null,
    -- The row as it was, `json` so that the keys of schemas keep their order.
    snapshot json not null
);
create index webhook_events_by_age on webhook_events (created_at);
-- Several processes may notice at once that the last file of a batch is through.
create unique index webhook_events_of_batches on webhook_events (subject, type)
    where type like 'vector_store.file\_batch.%';

-- No foreign key to the endpoint: checking it would have runs and whoever removes the endpoint wait
-- for each other. Nobody takes up what is left of one, and the sweep deletes it.
create table webhook_deliveries (
    seq bigint generated always as identity primary key,
    event_id text collate "C" not null references webhook_events on delete cascade,
    endpoint_id text collate "C" not null,
    subject text collate "C" not null,
    -- The queue, as for runs. Null when it was delivered or given up.
    due_at timestamptz,
    attempt integer not null default 0,
    failures integer not null default 0,
    lease_owner text,
    delivered_at timestamptz,
    last_error text,
    constraint webhook_deliveries_over_when_delivered check (delivered_at is null or due_at is null)
);
create index webhook_deliveries_due on webhook_deliveries (endpoint_id, due_at)
    where due_at is not null;
create index webhook_deliveries_in_order on webhook_deliveries (endpoint_id, subject, seq)
    where due_at is not null;
create index webhook_deliveries_by_event on webhook_deliveries (event_id);

-- Batches in which a file came to its end. Whether it was the last one cannot be seen from within
-- the transaction, since another file may be ending in another.
create table webhook_batch_checks (
    seq bigint generated always as identity primary key,
    batch_id text collate "C" not null
);

create function webhooks_wanting(of_project text, happened text) returns setof text
language sql stable as $$
    select id from webhook_endpoints
    where project_id = of_project and disabled_at is null
        and (events is null or happened = any (events))
$$;

create function tell_webhooks(of_project text, happened text, about text, told json) returns void
language plpgsql as $$
declare
    event constant text := 'evt_' || replace(gen_random_uuid()::text, '-', '');
begin
    insert into webhook_events (id, type, subject, snapshot) values (event, happened, about, told)
    on conflict do nothing;
    if not found then
        return;
    end if;
    -- What waits for an earlier event is not looked at before that one is, unless that one is being
    -- delivered right now.
    insert into webhook_deliveries (event_id, endpoint_id, subject, due_at)
    select event, wanting, about, greatest(now(), (
        select max(earlier.due_at) from webhook_deliveries as earlier
        where earlier.endpoint_id = wanting and earlier.subject = about
            and earlier.due_at > now() + interval '2 minutes'))
    from webhooks_wanting(of_project, happened) as wanting;
end
$$;

create function runs_tell_webhooks() returns trigger language plpgsql as $$
declare
    happened constant text := 'thread.run.' || new.status;
begin
    if exists (select from webhooks_wanting(new.project_id, happened)) then
        perform tell_webhooks(new.project_id, happened, new.id, row_to_json(new));
    end if;
    return null;
end
$$;
create trigger runs_tell_webhooks after update of status on runs
    for each row when (new.status <> old.status and new.status in
        ('requires_action', 'cancelled', 'failed', 'completed', 'incomplete', 'expired'))
    execute function runs_tell_webhooks();

create function vector_store_files_tell_webhooks() returns trigger language plpgsql as $$
declare
    happened constant text := 'vector_store.file.' || new.status;
    about constant text := new.vector_store_id || '/' || new.file_id;
begin
    if exists (select from webhooks_wanting(new.project_id, happened)) then
        perform tell_webhooks(new.project_id, happened, about, row_to_json(new));
    end if;
    return null;
end
$$;
create trigger vector_store_files_tell_webhooks after update of status on vector_store_files
    for each row when (old.status = 'in_progress' and new.status <> 'in_progress')
    execute function vector_store_files_tell_webhooks();

create function vector_store_files_check_batch() returns trigger language plpgsql as $$
begin
    insert into webhook_batch_checks (batch_id)
    select old.batch_id where exists (
        select from webhook_endpoints where project_id = old.project_id and disabled_at is null);
    return null;
end
$$;
create trigger vector_store_files_ended_in_batch after update of status on vector_store_files
    for each row when (old.batch_id is not null
        and old.status = 'in_progress' and new.status <> 'in_progress')
    execute function vector_store_files_check_batch();
create trigger vector_store_files_left_batch after delete on vector_store_files
    for each row when (old.batch_id is not null and old.status = 'in_progress')
    execute function vector_store_files_check_batch();
