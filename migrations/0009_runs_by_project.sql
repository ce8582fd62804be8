-- The list of a project's runs over all threads. Runs are updated a few times each, and no update of
-- a run is heap-only, so this index holds nothing that changes and no further column.
create index runs_by_project on runs (project_id, created_at, seq);
