-- Blobs that no row owns: on their way in, or let go of. A blob's name is written down here before
-- its first byte is stored, and the row that comes to own it takes the name out again in its own
-- transaction. So whatever dies when, each blob is owned by a row or listed here, and the sweep
-- deletes only what is listed: it never has to search the store, nor can it touch what others keep
-- in the same bucket.
create table loose_blobs (
    name text collate "C" primary key,
    due_at timestamptz not null
);
create index loose_blobs_due on loose_blobs (due_at);

-- Rows that own blobs let go of them when they are deleted, also by a cascade.
create function let_go_of_blob() returns trigger language plpgsql as $$
begin
    insert into loose_blobs (name, due_at) values (old.id, now()) on conflict do nothing;
    return null;
end
$$;
create trigger files_let_go after delete on files
    for each row execute function let_go_of_blob();
create trigger upload_parts_let_go after delete on upload_parts
    for each row execute function let_go_of_blob();

-- A deleted file leaves the lists it is in. Most assistants and threads list none.
create index assistants_by_code_interpreter_file on assistants
    using gin ((config::jsonb #> '{tool_resources,code_interpreter,file_ids}'))
    where config::jsonb #> '{tool_resources,code_interpreter,file_ids}' <> '[]';
create index threads_by_code_interpreter_file on threads
    using gin ((tool_resources #> '{code_interpreter,file_ids}'))
    where tool_resources #> '{code_interpreter,file_ids}' <> '[]';

create index uploads_pending on uploads (expires_at) where status = 'pending';
