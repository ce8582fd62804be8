import asyncio

import pytest
from openai import BadRequestError

from dual import collect, got


async def test_create_and_poll_completes_a_run(client, scene, answer):
    at = await scene("echo", "Hello", instructions="Be brief.", metadata={"a": "1"})
    run = await got(client.beta.threads.runs.create_and_poll(**at.both, metadata={"b": "2"}))
    assert run.object == "thread.run"
    assert (run.status, run.assistant_id, run.thread_id) == ("completed", at.assistant_id, at.thread_id)
    assert (run.model, run.instructions, run.metadata) == ("scripted/echo", "Be brief.", {"b": "2"})
    assert run.created_at <= run.started_at <= run.completed_at
    assert run.expires_at is None and run.required_action is None and run.last_error is None
    assert await answer(at.thread_id) == "You said: Hello"


async def test_create_answers_with_a_queued_run_that_poll_sees_complete(client, scene):
    at = await scene("echo")
    run = await got(client.beta.threads.runs.create(**at.both))
    assert (run.status, run.started_at, run.usage) == ("queued", None, None)
    assert run.expires_at == run.created_at + 600
    polled = await got(client.beta.threads.runs.poll(run.id, thread_id=at.thread_id))
    assert (polled.id, polled.status) == (run.id, "completed")


async def test_polling_helpers_are_told_how_long_to_wait(client, scene):
    at = await scene("echo")
    created = await got(client.beta.threads.runs.create(**at.both))
    raw = await got(client.beta.threads.runs.with_raw_response.retrieve(created.id, thread_id=at.thread_id))
    assert 0 < int(raw.headers["openai-poll-after-ms"]) <= 1000


async def test_a_run_without_instructions_has_an_empty_text(client, scene):
    at = await scene("echo")
    run = await got(client.beta.threads.runs.create_and_poll(**at.both))
    assert run.instructions == ""


async def test_a_runs_parameters_override_the_assistants(client, scene):
    at = await scene("echo", instructions="Be brief.", temperature=0.1)
    overrides = {
        "model": "scripted/greeter",
        "instructions": "Be long.",
        "temperature": 1.5,
        "top_p": 0.5,
        "max_prompt_tokens": 5000,
        "max_completion_tokens": 500,
        "truncation_strategy": {"type": "last_messages", "last_messages": 3},
        "parallel_tool_calls": False,
        "tool_choice": "none",
        "response_format": {"type": "text"},
    }
    run = await got(client.beta.threads.runs.create_and_poll(**at.both, **overrides))
    fields = run.to_dict()
    assert {name: fields[name] for name in overrides} == overrides
    assert run.status == "completed"


async def test_additional_instructions_follow_the_assistants(client, scene, answer):
    at = await scene("mirror", "your instructions?", instructions="First part.")
    run = await got(client.beta.threads.runs.create_and_poll(**at.both, additional_instructions="Second part."))
    said = await answer(at.thread_id)
    assert said.index("First part.") < said.index("Second part.")
    assert run.status == "completed"


async def test_run_instructions_replace_the_assistants(client, scene, answer):
    at = await scene("mirror", "your instructions?", instructions="First part.")
    await got(client.beta.threads.runs.create_and_poll(**at.both, instructions="Only this."))
    assert await answer(at.thread_id) == "[Only this.]"


async def test_additional_messages_are_added_before_the_run(client, scene, answer):
    at = await scene("echo", "first")
    await got(
        client.beta.threads.runs.create_and_poll(**at.both, additional_messages=[{"role": "user", "content": "second"}])
    )
    assert await answer(at.thread_id) == "You said: second"
    assert len(await collect(client.beta.threads.messages.list(at.thread_id))) == 3


async def test_truncation_shows_the_model_only_the_last_messages(client, answer):
    assistant = await got(client.beta.assistants.create(model="scripted/mirror"))
    messages = [{"role": "user", "content": f"how many? {i}"} for i in range(5)]
    thread = await got(client.beta.threads.create(messages=messages))
    truncation = {"type": "last_messages", "last_messages": 2}
    await got(
        client.beta.threads.runs.create_and_poll(
            thread_id=thread.id, assistant_id=assistant.id, truncation_strategy=truncation
        )
    )
    assert await answer(thread.id) == "I see 2 user messages."


async def test_the_thread_is_the_models_memory(client, scene, answer):
    at = await scene("mirror", "how many?")
    await got(client.beta.threads.runs.create_and_poll(**at.both))
    await got(client.beta.threads.messages.create(at.thread_id, role="user", content="and now, how many?"))
    await got(client.beta.threads.runs.create_and_poll(**at.both))
    assert await answer(at.thread_id) == "I see 2 user messages."


async def test_create_and_run_makes_a_thread_too(client, answer):
    assistant = await got(client.beta.assistants.create(model="scripted/echo"))
    run = await got(
        client.beta.threads.create_and_run(
            assistant_id=assistant.id,
            thread={"messages": [{"role": "user", "content": "Hi"}], "metadata": {"k": "v"}},
        )
    )
    assert run.status == "queued"
    assert (await got(client.beta.threads.runs.poll(run.id, thread_id=run.thread_id))).status == "completed"
    assert (await got(client.beta.threads.retrieve(run.thread_id))).metadata == {"k": "v"}
    assert await answer(run.thread_id) == "You said: Hi"


async def test_create_and_run_poll_completes(client):
    assistant = await got(client.beta.assistants.create(model="scripted/echo"))
    thread = {"messages": [{"role": "user", "content": "Hi"}]}
    run = await got(client.beta.threads.create_and_run_poll(assistant_id=assistant.id, thread=thread))
    assert run.status == "completed"


async def test_usage_is_what_the_model_reported(client, scene):
    at = await scene("counted")
    run = await got(client.beta.threads.runs.create_and_poll(**at.both))
    assert (run.usage.prompt_tokens, run.usage.completion_tokens, run.usage.total_tokens) == (100, 20, 120)
    fields = run.usage.to_dict()
    assert fields["prompt_token_details"] == {"cached_tokens": 64}
    assert fields["completion_tokens_details"] == {"reasoning_tokens": 8}


async def test_runs_are_listed_newest_first_and_over_pages(client, scene):
    at = await scene("echo")
    made = [(await got(client.beta.threads.runs.create_and_poll(**at.both))).id for _ in range(3)]
    listed = await collect(client.beta.threads.runs.list(at.thread_id, limit=2))
    assert [run.id for run in listed] == made[::-1]


async def test_a_finished_runs_metadata_can_be_changed(client, scene):
    at = await scene("echo")
    run = await got(client.beta.threads.runs.create_and_poll(**at.both))
    changed = await got(client.beta.threads.runs.update(run.id, thread_id=at.thread_id, metadata={"seen": "yes"}))
    assert (changed.metadata, changed.status) == ({"seen": "yes"}, "completed")
    assert (await got(client.beta.threads.runs.retrieve(run.id, thread_id=at.thread_id))).metadata == {"seen": "yes"}


async def test_the_completion_budget_ends_a_run_as_incomplete(client, scene):
    at = await scene("long")
    run = await got(client.beta.threads.runs.create_and_poll(**at.both, max_completion_tokens=256))
    assert (run.status, run.incomplete_details.reason) == ("incomplete", "max_completion_tokens")
    assert run.completed_at is not None and run.usage.completion_tokens <= 256
    (message,) = await collect(client.beta.threads.messages.list(at.thread_id, run_id=run.id))
    assert (message.status, message.incomplete_details.reason) == ("incomplete", "max_tokens")
    assert message.content[0].text.value.startswith("One two three")


async def test_a_content_filter_leaves_an_incomplete_message(client, scene):
    at = await scene("filtered")
    run = await got(client.beta.threads.runs.create_and_poll(**at.both))
    assert run.status in ("incomplete", "completed")
    (message,) = await collect(client.beta.threads.messages.list(at.thread_id, run_id=run.id))
    assert (message.status, message.incomplete_details.reason) == ("incomplete", "content_filter")


async def test_a_refusal_is_a_content_block_of_its_own(client, scene):
    at = await scene("refuser")
    run = await got(client.beta.threads.runs.create_and_poll(**at.both))
    (message,) = await collect(client.beta.threads.messages.list(at.thread_id, run_id=run.id))
    assert (run.status, message.content[0].type, message.content[0].refusal) == (
        "completed",
        "refusal",
        "I will not do that.",
    )


async def test_a_json_schema_reaches_the_model(client, scene, answer):
    import json

    at = await scene("json")
    schema = {
        "type": "object",
        "properties": {"city": {"type": "string"}, "count": {"type": "integer"}},
        "required": ["city", "count"],
        "additionalProperties": False,
    }
    await got(
        client.beta.threads.runs.create_and_poll(
            **at.both,
            response_format={"type": "json_schema", "json_schema": {"name": "answer", "schema": schema, "strict": True}},
        )
    )
    value = json.loads(await answer(at.thread_id))
    assert isinstance(value["city"], str) and isinstance(value["count"], int)


async def test_an_upstream_that_is_down_fails_the_run(client, scene):
    at = await scene("broken")
    run = await got(client.beta.threads.runs.create_and_poll(**at.both))
    assert (run.status, run.last_error.code) == ("failed", "server_error")
    assert run.failed_at is not None and run.last_error.message


async def test_an_upstream_that_limits_fails_the_run_with_that_code(client, scene):
    at = await scene("limited")
    run = await got(client.beta.threads.runs.create_and_poll(**at.both))
    assert (run.status, run.last_error.code) == ("failed", "rate_limit_exceeded")


async def test_a_short_trouble_of_the_upstream_is_not_seen(client, scene, answer, mode, labels):
    at = await scene("flaky", f"{mode} {labels['x-test']}")
    run = await got(client.beta.threads.runs.create_and_poll(**at.both))
    assert (run.status, await answer(at.thread_id)) == ("completed", "Third time lucky.")


async def test_a_broken_answer_fails_the_run_and_keeps_what_came(client, scene):
    at = await scene("quitter")
    run = await got(client.beta.threads.runs.create_and_poll(**at.both))
    assert (run.status, run.last_error.code) == ("failed", "server_error")
    (message,) = await collect(client.beta.threads.messages.list(at.thread_id, run_id=run.id))
    assert (message.status, message.incomplete_details.reason) == ("incomplete", "run_failed")
    assert "Once upon a time".startswith(message.content[0].text.value.strip())


async def test_a_thread_with_a_failed_run_can_be_run_again(client, scene):
    at = await scene("broken")
    await got(client.beta.threads.runs.create_and_poll(**at.both))
    run = await got(client.beta.threads.runs.create_and_poll(**at.both, model="scripted/echo"))
    assert run.status == "completed"


async def test_a_running_run_is_cancelled_within_a_second_or_so(client, scene):
    at = await scene("slow")
    run = await got(client.beta.threads.runs.create(**at.both))
    await _until_started(client, run)
    cancelling = await got(client.beta.threads.runs.cancel(run.id, thread_id=at.thread_id))
    assert cancelling.status in ("cancelling", "cancelled")
    await asyncio.sleep(1.5)
    cancelled = await got(client.beta.threads.runs.retrieve(run.id, thread_id=at.thread_id))
    assert cancelled.status == "cancelled" and cancelled.cancelled_at is not None


async def _until_started(client, run):
    while (await got(client.beta.threads.runs.retrieve(run.id, thread_id=run.thread_id))).status == "queued":
        await asyncio.sleep(0.05)


async def test_a_run_expires_when_its_time_is_over(short_lived, scene):
    at = await scene("slow", client=short_lived)
    run = await got(short_lived.beta.threads.runs.create_and_poll(**at.both))
    assert (run.status, run.expires_at) == ("expired", None)
    assert (run.completed_at, run.failed_at, run.cancelled_at, run.last_error) == (None, None, None, None)
    (message,) = await collect(short_lived.beta.threads.messages.list(at.thread_id, run_id=run.id))
    assert (message.status, message.incomplete_details.reason) == ("incomplete", "run_expired")


async def test_a_run_that_waits_for_its_caller_expires_too(short_lived, scene):
    from conftest import WEATHER

    at = await scene("weather", "weather in Oslo", client=short_lived, tools=[WEATHER])
    run = await got(short_lived.beta.threads.runs.create_and_poll(**at.both))
    assert run.status == "requires_action"
    call = run.required_action.submit_tool_outputs.tool_calls[0]
    await asyncio.sleep(run.expires_at - run.created_at + 2)
    assert (await got(short_lived.beta.threads.runs.retrieve(run.id, thread_id=at.thread_id))).status == "expired"
    with pytest.raises(BadRequestError) as refused:
        await got(
            short_lived.beta.threads.runs.submit_tool_outputs(
                run.id, thread_id=at.thread_id, tool_outputs=[{"tool_call_id": call.id, "output": "cold"}]
            )
        )
    assert refused.value.body["message"] == 'Runs in status "expired" do not accept tool outputs.'
