-- One of everything that migration 1 has a place for.
insert into projects (id, name) values ('proj_sample', 'sample');
insert into api_keys (id, project_id, name, hash, hint) values
    ('key_sample', 'proj_sample', 'sample', sha256('sk-of-the-sample'), '(16 characters)');
insert into assistants (id, project_id, config, metadata) values
    ('asst_sample', 'proj_sample',
     '{"model": "scripted/hello", "name": "Sample", "description": null, "instructions": "Be brief.",
      "tools": [{"type": "function", "function": {"name": "get_weather", "description": null,
        "parameters": {"type": "object", "properties": {}}, "strict": false}}],
      "temperature": null, "top_p": null, "reasoning_effort": null, "response_format": "auto"}',
     '{"k": "v"}');
insert into threads (id, project_id, metadata) values
    ('thread_sample', 'proj_sample', '{"k": "v"}');
insert into runs (id, project_id, thread_id, assistant_id, created_at, config, status, started_at,
                  expires_at, ended_at, outcome, attempt) values
    ('run_sample', 'proj_sample', 'thread_sample', 'asst_sample', '2026-01-01 12:00:00+00',
     '{"model": "scripted/hello", "instructions": "Be brief.", "tools": [], "temperature": null, "top_p": null,
      "reasoning_effort": null, "response_format": "auto", "tool_choice": "Auto",
      "parallel_tool_calls": true, "max_prompt_tokens": null, "max_completion_tokens": null,
      "truncation": "auto"}',
     'completed', '2026-01-01 12:00:00+00', '2026-01-01 12:00:00+00', '2026-01-01 12:00:00+00',
     '{"usage": {"prompt": 8, "completion": 7, "cached": 0, "reasoning": 0}}', 1);
insert into messages (id, project_id, thread_id, created_at, status, ended_at, role, content,
                      assistant_id, run_id) values
    ('msg_sample', 'proj_sample', 'thread_sample', '2026-01-01 12:00:00+00', 'completed',
     '2026-01-01 12:00:00+00', 'assistant', '[{"type": "text", "value": "Hello!"}]', 'asst_sample',
     'run_sample');
insert into run_steps (id, project_id, run_id, thread_id, assistant_id, created_at, status,
                       expires_at, ended_at, details, usage) values
    ('step_sample', 'proj_sample', 'run_sample', 'thread_sample', 'asst_sample',
     '2026-01-01 12:00:00+00', 'completed', '2026-01-01 12:00:00+00', '2026-01-01 12:00:00+00',
     '{"type": "message_creation", "message": "msg_sample"}',
     '{"prompt": 8, "completion": 7, "cached": 0, "reasoning": 0}');
insert into run_events (run_id, first_seq, last_seq, events) values
    ('run_sample', 4294967297, 4294967299,
     '[
     {"RunCreated":{"status":"queued","started_at":null,"expires_at":"2026-01-01T12:00:00Z","ended_at":null,"outcome":{}}},
     {"RunChanged":{"status":"queued","started_at":null,"expires_at":"2026-01-01T12:00:00Z","ended_at":null,"outcome":{}}},
     {"RunChanged":{"status":"in_progress","started_at":"2026-01-01T12:00:00Z","expires_at":"2026-01-01T12:00:00Z","ended_at":null,"outcome":{}}}]'),
    ('run_sample', 4294967300, 4294967308,
     '[
     {"StepCreated":{"id":"step_sample","run":"run_sample","thread":"thread_sample","assistant":"asst_sample","created_at":"2026-01-01T12:00:00Z","status":"in_progress","expires_at":"2026-01-01T12:00:00Z","ended_at":null,"last_error":null,"details":{"type":"message_creation","message":"msg_sample"},"usage":null}},
     {"StepInProgress":{"id":"step_sample","run":"run_sample","thread":"thread_sample","assistant":"asst_sample","created_at":"2026-01-01T12:00:00Z","status":"in_progress","expires_at":"2026-01-01T12:00:00Z","ended_at":null,"last_error":null,"details":{"type":"message_creation","message":"msg_sample"},"usage":null}},
     {"MessageCreated":{"id":"msg_sample","thread":"thread_sample","created_at":"2026-01-01T12:00:00Z","status":"in_progress","incomplete_reason":null,"ended_at":null,"role":"assistant","content":[],"attachments":[],"assistant":"asst_sample","run":"run_sample","metadata":{}}},
     {"MessageInProgress":{"id":"msg_sample","thread":"thread_sample","created_at":"2026-01-01T12:00:00Z","status":"in_progress","incomplete_reason":null,"ended_at":null,"role":"assistant","content":[],"attachments":[],"assistant":"asst_sample","run":"run_sample","metadata":{}}},
     {"MessageDelta":{"message":"msg_sample","index":0,"first":true,"delta":{"Text":"Hello"}}},
     {"MessageDelta":{"message":"msg_sample","index":0,"first":false,"delta":{"Text":"!"}}},
     {"MessageEnded":{"id":"msg_sample","thread":"thread_sample","created_at":"2026-01-01T12:00:00Z","status":"completed","incomplete_reason":null,"ended_at":"2026-01-01T12:00:00Z","role":"assistant","content":[{"type":"text","value":"Hello!"}],"attachments":[],"assistant":"asst_sample","run":"run_sample","metadata":{}}},
     {"StepEnded":{"id":"step_sample","run":"run_sample","thread":"thread_sample","assistant":"asst_sample","created_at":"2026-01-01T12:00:00Z","status":"completed","expires_at":"2026-01-01T12:00:00Z","ended_at":"2026-01-01T12:00:00Z","last_error":null,"details":{"type":"message_creation","message":"msg_sample"},"usage":{"prompt":8,"completion":7,"cached":0,"reasoning":0}}},
     {"RunChanged":{"status":"completed","started_at":"2026-01-01T12:00:00Z","expires_at":"2026-01-01T12:00:00Z","ended_at":"2026-01-01T12:00:00Z","outcome":{"usage":{"prompt":8,"completion":7,"cached":0,"reasoning":0}}}}]');
insert into files (id, project_id, filename, bytes, purpose) values
    ('file-sample', 'proj_sample', 'sample.txt', 3, 'assistants');
insert into uploads (id, project_id, expires_at, filename, bytes, mime_type, purpose, status) values
    ('upload_sample', 'proj_sample', now() + interval '1 hour', 'sample.txt', 3, 'text/plain',
     'assistants', 'pending');
insert into upload_parts (id, upload_id, bytes) values ('part_sample', 'upload_sample', 3);
