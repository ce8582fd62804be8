insert into webhook_endpoints (id, project_id, url, events, secret, old_secret, old_secret_until)
    values ('we_sample', 'proj_sample', 'https://example.com/hook', '{thread.run.completed}',
            '\x01', '\x02', now());
insert into webhook_events (id, type, subject, snapshot)
    select 'evt_sample', 'thread.run.completed', id, row_to_json(runs) from runs;
insert into webhook_deliveries (event_id, endpoint_id, subject, delivered_at)
    select id, 'we_sample', subject, now() from webhook_events;
insert into webhook_batch_checks (batch_id) values ('vsfb_sample');
