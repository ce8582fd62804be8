-- Threads on which nothing has happened for so long are deleted; without a number, none are.
alter table projects add column thread_retention_days integer
    constraint projects_thread_retention_positive check (thread_retention_days > 0);
