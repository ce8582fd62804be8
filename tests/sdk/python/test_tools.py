import json

import pytest
from openai import BadRequestError

from conftest import WEATHER
from dual import collect, got


@pytest.fixture
def waiting(client, scene):
    """Creates a run and waits until it requires outputs of function calls."""

    async def bring(message="weather in Oslo", model="weather", **parameters):
        at = await scene(model, message, tools=[WEATHER])
        run = await got(client.beta.threads.runs.create_and_poll(**at.both, **parameters))
        assert run.status == "requires_action", run
        return run

    return bring


def outputs(run, *texts):
    calls = run.required_action.submit_tool_outputs.tool_calls
    return [{"tool_call_id": call.id, "output": text} for call, text in zip(calls, texts, strict=True)]


async def test_a_run_waits_with_the_calls_that_the_model_made(waiting):
    run = await waiting()
    assert run.required_action.type == "submit_tool_outputs"
    (call,) = run.required_action.submit_tool_outputs.tool_calls
    assert (call.type, call.function.name) == ("function", "get_weather")
    assert json.loads(call.function.arguments) == {"city": "Oslo"}
    assert run.usage is None and run.expires_at == run.created_at + 600


async def test_submit_and_poll_completes_the_run(client, waiting, answer):
    run = await waiting()
    done = await got(
        client.beta.threads.runs.submit_tool_outputs_and_poll(
            run_id=run.id, thread_id=run.thread_id, tool_outputs=outputs(run, "cold")
        )
    )
    assert (done.id, done.status, done.required_action) == (run.id, "completed", None)
    assert "cold" in await answer(run.thread_id)


async def test_submit_answers_with_a_queued_run(client, waiting):
    run = await waiting()
    queued = await got(
        client.beta.threads.runs.submit_tool_outputs(run.id, thread_id=run.thread_id, tool_outputs=outputs(run, "cold"))
    )
    assert (queued.status, queued.required_action, queued.started_at) == ("queued", None, run.started_at)
    assert (await got(client.beta.threads.runs.poll(run.id, thread_id=run.thread_id))).status == "completed"


async def test_parallel_calls_are_one_step_and_are_answered_together(client, waiting, answer):
    run = await waiting("weather in Oslo and Rome")
    calls = run.required_action.submit_tool_outputs.tool_calls
    assert [json.loads(call.function.arguments)["city"] for call in calls] == ["Oslo", "Rome"]
    assert len({call.id for call in calls}) == 2
    await got(
        client.beta.threads.runs.submit_tool_outputs_and_poll(
            run_id=run.id, thread_id=run.thread_id, tool_outputs=outputs(run, "cold", "warm")
        )
    )
    said = await answer(run.thread_id)
    assert "cold" in said and "warm" in said
    newest, oldest = await collect(client.beta.threads.runs.steps.list(run.id, thread_id=run.thread_id))
    assert (newest.type, oldest.type) == ("message_creation", "tool_calls")
    assert [call.function.output for call in oldest.step_details.tool_calls] == ["cold", "warm"]


async def test_without_parallel_calls_the_model_calls_once_at_a_time(waiting):
    run = await waiting("weather in Oslo and Rome", parallel_tool_calls=False)
    assert len(run.required_action.submit_tool_outputs.tool_calls) == 1


async def test_pending_calls_are_listed_as_a_step_in_progress(client, waiting):
    run = await waiting()
    (step,) = await collect(client.beta.threads.runs.steps.list(run.id, thread_id=run.thread_id))
    assert (step.type, step.status, step.usage) == ("tool_calls", "in_progress", None)
    (call,) = step.step_details.tool_calls
    assert (call.id, call.function.output) == (run.required_action.submit_tool_outputs.tool_calls[0].id, None)


async def test_an_output_may_be_left_out(client, waiting):
    run = await waiting()
    call = run.required_action.submit_tool_outputs.tool_calls[0]
    done = await got(
        client.beta.threads.runs.submit_tool_outputs_and_poll(
            run_id=run.id, thread_id=run.thread_id, tool_outputs=[{"tool_call_id": call.id}]
        )
    )
    assert done.status == "completed"


async def test_missing_outputs_are_refused_by_the_documented_text(client, waiting):
    run = await waiting("weather in Oslo and Rome")
    first, second = run.required_action.submit_tool_outputs.tool_calls
    with pytest.raises(BadRequestError) as refused:
        await got(
            client.beta.threads.runs.submit_tool_outputs(
                run.id, thread_id=run.thread_id, tool_outputs=[{"tool_call_id": first.id, "output": "cold"}]
            )
        )
    assert refused.value.body["message"] == (
        f"Expected tool outputs for call_ids ['{first.id}', '{second.id}'], got ['{first.id}']"
    )


async def test_outputs_for_a_finished_run_are_refused_by_the_documented_text(client, scene):
    at = await scene("echo")
    run = await got(client.beta.threads.runs.create_and_poll(**at.both))
    with pytest.raises(BadRequestError) as refused:
        await got(
            client.beta.threads.runs.submit_tool_outputs(
                run.id, thread_id=at.thread_id, tool_outputs=[{"tool_call_id": "call_x", "output": ""}]
            )
        )
    assert refused.value.body["message"] == 'Runs in status "completed" do not accept tool outputs.'


async def test_text_before_a_call_is_a_message_of_its_own(client, waiting):
    run = await waiting("go", model="thinker")
    run = await got(
        client.beta.threads.runs.submit_tool_outputs_and_poll(
            run_id=run.id, thread_id=run.thread_id, tool_outputs=outputs(run, "cold")
        )
    )
    assert run.status == "requires_action"
    run = await got(
        client.beta.threads.runs.submit_tool_outputs_and_poll(
            run_id=run.id, thread_id=run.thread_id, tool_outputs=outputs(run, "warm")
        )
    )
    assert run.status == "completed"
    messages = await collect(client.beta.threads.messages.list(run.thread_id, run_id=run.id, order="asc"))
    texts = [m.content[0].text.value for m in messages]
    assert texts[:2] == ["Let me look.", "One more look."] and texts[2].startswith("All in all")
    steps = await collect(client.beta.threads.runs.steps.list(run.id, thread_id=run.thread_id, order="asc"))
    assert [step.type for step in steps] == [
        "message_creation",
        "tool_calls",
        "message_creation",
        "tool_calls",
        "message_creation",
    ]
    assert run.usage.total_tokens == sum(step.usage.total_tokens for step in steps)


async def test_tool_choice_none_forbids_the_call(client, scene, answer):
    at = await scene("obedient", "call it", tools=[WEATHER])
    run = await got(client.beta.threads.runs.create_and_poll(**at.both, tool_choice="none"))
    assert run.status == "completed"


@pytest.mark.parametrize("choice", ["required", {"type": "function", "function": {"name": "get_weather"}}])
async def test_a_forced_tool_choice_holds_for_the_first_turn_only(client, waiting, choice):
    run = await waiting("say something", model="obedient", tool_choice=choice)
    assert run.to_dict()["tool_choice"] == choice
    done = await got(
        client.beta.threads.runs.submit_tool_outputs_and_poll(
            run_id=run.id, thread_id=run.thread_id, tool_outputs=outputs(run, "cold")
        )
    )
    assert done.status == "completed"


async def test_tools_of_a_run_replace_the_assistants(client, scene):
    at = await scene("weather", "weather in Oslo")
    run = await got(client.beta.threads.runs.create_and_poll(**at.both, tools=[WEATHER]))
    assert run.status == "requires_action"
    await got(client.beta.threads.runs.cancel(run.id, thread_id=at.thread_id))


async def test_a_waiting_run_can_be_cancelled_and_unlocks_its_thread(client, waiting):
    run = await waiting()
    await got(client.beta.threads.runs.cancel(run.id, thread_id=run.thread_id))
    polled = await got(client.beta.threads.runs.retrieve(run.id, thread_id=run.thread_id))
    assert polled.status in ("cancelling", "cancelled")
    import asyncio

    for _ in range(40):
        if polled.status == "cancelled":
            break
        await asyncio.sleep(0.05)
        polled = await got(client.beta.threads.runs.retrieve(run.id, thread_id=run.thread_id))
    assert polled.status == "cancelled"
    await got(client.beta.threads.messages.create(run.thread_id, role="user", content="go on"))


async def test_earlier_tool_calls_are_part_of_the_next_runs_prompt(client, waiting, answer):
    run = await waiting()
    await got(
        client.beta.threads.runs.submit_tool_outputs_and_poll(
            run_id=run.id, thread_id=run.thread_id, tool_outputs=outputs(run, "cold")
        )
    )
    await got(client.beta.threads.messages.create(run.thread_id, role="user", content="thanks"))
    again = await got(
        client.beta.threads.runs.create_and_poll(thread_id=run.thread_id, assistant_id=run.assistant_id)
    )
    assert (again.status, await answer(run.thread_id)) == ("completed", "I have no tool for that.")
