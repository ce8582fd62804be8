-- Every insertion of a thread locked the row of its project to check this key, and concurrent locks
-- of one row are costly. A thread's project comes from the API key of the request, and projects are
-- never deleted.
alter table threads drop constraint threads_project_id_fkey;
