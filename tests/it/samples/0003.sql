-- Code has written a file on the thread.
insert into workspace_files (thread_id, path, file_id) values ('thread_sample', 'out.txt', 'file-sample');
