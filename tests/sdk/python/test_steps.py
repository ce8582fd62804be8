from dual import collect, got


async def test_a_message_step_names_its_message(client, scene):
    at = await scene("echo")
    run = await got(client.beta.threads.runs.create_and_poll(**at.both))
    (step,) = await collect(client.beta.threads.runs.steps.list(run.id, thread_id=at.thread_id))
    assert step.id.startswith("step_") and len(step.id) == len("step_") + 24
    assert (step.object, step.type, step.status) == ("thread.run.step", "message_creation", "completed")
    message = await got(
        client.beta.threads.messages.retrieve(step.step_details.message_creation.message_id, thread_id=at.thread_id)
    )
    assert message.run_id == run.id
    assert step.to_dict()["expires_at"] is None


async def test_a_step_is_read_by_its_id(client, scene):
    at = await scene("echo")
    run = await got(client.beta.threads.runs.create_and_poll(**at.both))
    (step,) = await collect(client.beta.threads.runs.steps.list(run.id, thread_id=at.thread_id))
    read = await got(
        client.beta.threads.runs.steps.retrieve(
            step.id,
            thread_id=at.thread_id,
            run_id=run.id,
            include=["step_details.tool_calls[*].file_search.results[*].content"],
        )
    )
    assert read == step


async def test_usage_of_a_run_is_that_of_its_steps(client, scene):
    at = await scene("counted")
    run = await got(client.beta.threads.runs.create_and_poll(**at.both))
    steps = await collect(
        client.beta.threads.runs.steps.list(
            run.id, thread_id=at.thread_id, include=["step_details.tool_calls[*].file_search.results[*].content"]
        )
    )
    assert [step.usage.total_tokens for step in steps] == [run.usage.total_tokens]
