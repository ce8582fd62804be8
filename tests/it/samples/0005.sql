-- A project that deletes threads, and one that never does.
insert into projects (id, name, thread_retention_days) values ('proj_forgetful', 'forgetful', 30);
