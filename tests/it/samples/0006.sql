-- A project with limits that has used something.
update projects set max_concurrent_runs = 4, requests_per_minute = 6000,
    tokens_per_minute = 100000, storage_bytes = 1000000 where id = 'proj_sample';
insert into request_budgets (project_id, full_at, granted) values ('proj_sample', now(), 1);
insert into usage_entries (project_id, at, id, model, runs, model_calls, prompt_tokens, completion_tokens)
    values ('proj_sample', '2026-01-01 12:00:00+00', '018f0000-0000-7000-8000-000000000000',
            'scripted/hello', 1, 1, 8, 7);
insert into usage_days (project_id, day, model, runs, model_calls, prompt_tokens, completion_tokens,
                        code_calls, search_calls, function_calls, sandbox_ms)
    values ('proj_sample', '2026-01-01', 'scripted/hello', 1, 1, 8, 7, 0, 0, 0, 0);
insert into audit_log (id, actor, action, object, details)
    values ('audit_sample', 'cli:root', 'project.created', 'proj_sample', '{"name": "sample"}');
