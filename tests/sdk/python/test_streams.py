import asyncio

import openai
import pytest

from conftest import WEATHER
from dual import collect, each, got, opened


def recorder(mode):
    """An event handler that records its calls."""
    base = openai.AssistantEventHandler if mode == "sync" else openai.AsyncAssistantEventHandler
    names = [name for name in dir(base) if name.startswith("on_")]

    def callback(name):
        if mode == "sync":
            return lambda self, *values: self.calls.append((name, values))

        async def record(self, *values):
            self.calls.append((name, values))

        return record

    handler = type("Recorder", (base,), {name: callback(name) for name in names})()
    handler.calls = []
    return handler


def names(handler):
    return [name for name, _ in handler.calls]


async def test_a_raw_stream_ends_with_the_completed_run(client, scene):
    at = await scene("greeter")
    events = await collect(client.beta.threads.runs.create(**at.both, stream=True))
    assert [e.event for e in events][:3] == ["thread.run.created", "thread.run.queued", "thread.run.in_progress"]
    assert events[-1].event == "thread.run.completed"
    said = "".join(e.data.delta.content[0].text.value for e in events if e.event == "thread.message.delta")
    assert said == "Hello! How can I help?"


async def test_text_deltas_give_the_answer_in_pieces(client, scene):
    at = await scene("greeter")
    async with opened(client.beta.threads.runs.stream(**at.both)) as stream:
        pieces = [piece async for piece in each(stream.text_deltas)]
    assert "".join(pieces) == "Hello! How can I help?" and len(pieces) > 1


async def test_an_event_handler_is_called_for_a_message(client, scene, mode):
    at = await scene("greeter")
    handler = recorder(mode)
    async with opened(client.beta.threads.runs.stream(**at.both, event_handler=handler)) as stream:
        await got(stream.until_done())
    seen = [name for name in names(handler) if name != "on_event"]
    once = [name for name in seen if name not in ("on_message_delta", "on_text_delta")]
    assert once == [
        "on_run_step_created",
        "on_message_created",
        "on_text_created",
        "on_text_done",
        "on_message_done",
        "on_run_step_done",
        "on_end",
    ]
    assert seen.count("on_text_delta") == seen.count("on_message_delta") > 1
    done = dict(handler.calls)["on_text_done"][0]
    assert done.value == "Hello! How can I help?"


async def test_the_helpers_final_objects_are_those_of_the_server(client, scene):
    at = await scene("greeter")
    async with opened(client.beta.threads.runs.stream(**at.both)) as stream:
        run = await got(stream.get_final_run())
        (message,) = await got(stream.get_final_messages())
        (step,) = await got(stream.get_final_run_steps())
    assert run == await got(client.beta.threads.runs.retrieve(run.id, thread_id=at.thread_id))
    assert message == await got(client.beta.threads.messages.retrieve(message.id, thread_id=at.thread_id))
    assert step.step_details.message_creation.message_id == message.id


async def test_create_and_stream_works_as_stream_does(client, scene):
    at = await scene("greeter")
    async with opened(client.beta.threads.runs.create_and_stream(**at.both)) as stream:
        assert "".join([piece async for piece in each(stream.text_deltas)]) == "Hello! How can I help?"


async def test_create_and_run_stream_begins_with_the_thread(client):
    assistant = await got(client.beta.assistants.create(model="scripted/echo"))
    thread = {"messages": [{"role": "user", "content": "Hi"}]}
    manager = client.beta.threads.create_and_run_stream(assistant_id=assistant.id, thread=thread)
    async with opened(manager) as stream:
        events = [event async for event in each(stream)]
        (message,) = await got(stream.get_final_messages())
    assert events[0].event == "thread.created"
    assert (events[0].data.id, message.content[0].text.value) == (message.thread_id, "You said: Hi")


async def test_an_event_handler_is_called_for_function_calls(client, scene, mode):
    at = await scene("weather", "weather in Oslo and Rome", tools=[WEATHER])
    handler = recorder(mode)
    async with opened(client.beta.threads.runs.stream(**at.both, event_handler=handler)) as stream:
        await got(stream.until_done())
        run = await got(stream.get_final_run())
        (step,) = await got(stream.get_final_run_steps())
    assert run.status == "requires_action"
    created = [values[0] for name, values in handler.calls if name == "on_tool_call_created"]
    assert [(call.type, call.function.name) for call in created] == [("function", "get_weather")] * 2
    assert "on_tool_call_delta" in names(handler) and "on_tool_call_done" in names(handler)
    pending = run.required_action.submit_tool_outputs.tool_calls
    accumulated = step.step_details.tool_calls
    assert [(c.id, c.function.name, c.function.arguments) for c in accumulated] == [
        (c.id, c.function.name, c.function.arguments) for c in pending
    ]


async def test_submit_tool_outputs_stream_goes_on_to_the_answer(client, scene):
    at = await scene("weather", "weather in Oslo", tools=[WEATHER])
    run = await got(client.beta.threads.runs.create_and_poll(**at.both))
    call = run.required_action.submit_tool_outputs.tool_calls[0]
    manager = client.beta.threads.runs.submit_tool_outputs_stream(
        run_id=run.id, thread_id=at.thread_id, tool_outputs=[{"tool_call_id": call.id, "output": "cold"}]
    )
    async with opened(manager) as stream:
        events = [event async for event in each(stream)]
        (message,) = await got(stream.get_final_messages())
    assert events[0].event == "thread.run.step.completed"
    assert events[0].data.step_details.tool_calls[0].function.output == "cold"
    assert "cold" in message.content[0].text.value
    assert events[-1].event == "thread.run.completed"


async def test_a_whole_tool_loop_runs_over_streams(client, scene):
    at = await scene("thinker", "go", tools=[WEATHER])
    said, manager = [], client.beta.threads.runs.stream(**at.both)
    for output in ("cold", "warm", None):
        async with opened(manager) as stream:
            said.append("".join([piece async for piece in each(stream.text_deltas)]))
            run = await got(stream.get_final_run())
        if output is None:
            break
        call = run.required_action.submit_tool_outputs.tool_calls[0]
        manager = client.beta.threads.runs.submit_tool_outputs_stream(
            run_id=run.id, thread_id=at.thread_id, tool_outputs=[{"tool_call_id": call.id, "output": output}]
        )
    assert run.status == "completed"
    assert said[:2] == ["Let me look.", "One more look."] and said[2].startswith("All in all")


async def test_a_refusal_is_streamed(client, scene):
    at = await scene("refuser")
    async with opened(client.beta.threads.runs.stream(**at.both)) as stream:
        await got(stream.until_done())
        (message,) = await got(stream.get_final_messages())
    assert message.content[0].refusal == "I will not do that."


async def test_a_run_cancelled_in_mid_stream_ends_the_stream(client, scene):
    at = await scene("slow")
    seen = []
    async with opened(client.beta.threads.runs.stream(**at.both)) as stream:
        async for event in each(stream):
            seen.append(event.event)
            if seen.count("thread.message.delta") == 3 and seen[-1] == "thread.message.delta":
                run_id = stream.current_run.id
                await got(client.beta.threads.runs.cancel(run_id, thread_id=at.thread_id))
        run = await got(stream.get_final_run())
    assert run.status == "cancelled"
    tail = [name for name in seen if name != "thread.message.delta"][-4:]
    assert tail == [
        "thread.run.cancelling",
        "thread.message.incomplete",
        "thread.run.step.cancelled",
        "thread.run.cancelled",
    ]


async def test_a_failed_run_ends_the_stream(client, scene):
    at = await scene("quitter")
    async with opened(client.beta.threads.runs.stream(**at.both)) as stream:
        await got(stream.until_done())
        run = await got(stream.get_final_run())
    assert (run.status, run.last_error.code) == ("failed", "server_error")


async def test_an_incomplete_run_ends_the_stream(client, scene):
    at = await scene("long")
    async with opened(client.beta.threads.runs.stream(**at.both, max_completion_tokens=256)) as stream:
        await got(stream.until_done())
        run = await got(stream.get_final_run())
    assert (run.status, run.incomplete_details.reason) == ("incomplete", "max_completion_tokens")


async def test_an_expired_run_ends_the_stream(short_lived, scene):
    at = await scene("slow", client=short_lived)
    async with opened(short_lived.beta.threads.runs.stream(**at.both)) as stream:
        await got(stream.until_done())
        assert (await got(stream.get_final_run())).status == "expired"


async def test_a_run_goes_on_when_its_reader_leaves(client, scene):
    at = await scene("slow")
    async with opened(client.beta.threads.runs.stream(**at.both)) as stream:
        async for event in each(stream):
            if event.event == "thread.message.delta":
                run = stream.current_run
                break
    await asyncio.sleep(0.5)
    alive = await got(client.beta.threads.runs.retrieve(run.id, thread_id=at.thread_id))
    assert alive.status == "in_progress"
    await got(client.beta.threads.runs.cancel(run.id, thread_id=at.thread_id))


async def test_an_error_before_the_stream_is_an_ordinary_error(client):
    thread = await got(client.beta.threads.create(messages=[{"role": "user", "content": "Hi"}]))
    with pytest.raises(openai.NotFoundError):
        async with opened(
            client.beta.threads.runs.stream(thread_id=thread.id, assistant_id="asst_" + "0" * 24)
        ) as stream:
            await got(stream.until_done())
