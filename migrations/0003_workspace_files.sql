-- What code has written into a thread's /mnt/data: for links in answers, and for the day when the
-- session that holds it is gone. The newest content of a path counts.
create table workspace_files (
    thread_id text collate "C" not null references threads (id) on delete cascade,
    path text collate "C" not null,
    file_id text collate "C" not null references files (id) on delete cascade,
    primary key (thread_id, path)
);
create index workspace_files_by_file on workspace_files (file_id);
