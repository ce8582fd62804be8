-- A blob that nobody owns yet, and a file that is listed.
insert into loose_blobs (name, due_at) values ('file-loose', now() + interval '1 hour');
update threads set tool_resources = '{"code_interpreter": {"file_ids": ["file-sample"]}}'
    where id = 'thread_sample';
