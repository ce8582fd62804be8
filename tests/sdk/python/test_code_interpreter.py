"""Data analysis: the bundled model writes Python, which runs in the sandbox."""

import time
from types import SimpleNamespace

import openai
import pytest

from conftest import WEATHER
from dual import collect, each, got, opened
from pictures import Picture
from test_streams import recorder

SALES = b"month,revenue,users\nJan,12000,100\nFeb,15500,120\nMar,11000,130\nApr,17500,150\nMay,22000,180\n"
PLOT = "plot revenue over time and describe the trend"
CODE = {"type": "code_interpreter"}


@pytest.fixture
def analyst(client):
    """Creates an assistant with code_interpreter, and a thread whose first message has the sales attached."""

    async def make(message, client=client):
        assistant = await got(
            client.beta.assistants.create(
                model="gpt-4o", name="Data Analyst", instructions="You analyse data.", tools=[CODE]
            )
        )
        file = await got(client.files.create(file=("sales.csv", SALES), purpose="assistants"))
        thread = await got(client.beta.threads.create())
        attachments = [{"file_id": file.id, "tools": [CODE]}]
        await got(
            client.beta.threads.messages.create(thread.id, role="user", content=message, attachments=attachments)
        )
        return SimpleNamespace(file_id=file.id, both={"assistant_id": assistant.id, "thread_id": thread.id})

    return make


@pytest.fixture
def outcome(client):
    """Runs a thread; returns the run, the newest message and the run's steps, oldest first."""

    async def run(at, message=None):
        if message:
            await got(client.beta.threads.messages.create(at.both["thread_id"], role="user", content=message))
        run = await got(client.beta.threads.runs.create_and_poll(**at.both))
        assert run.status == "completed", run
        newest = (await got(client.beta.threads.messages.list(run.thread_id, limit=1))).data[0]
        assert newest.run_id == run.id
        steps = await collect(client.beta.threads.runs.steps.list(run.id, thread_id=run.thread_id, order="asc"))
        return run, newest, steps

    return run


def code_of(step):
    (call,) = step.step_details.tool_calls
    assert call.type == "code_interpreter"
    return call.code_interpreter


def details_of(step):
    """The step's details without the delta indexes that the SDK keeps in accumulated objects."""

    def plain(value):
        if isinstance(value, dict):
            return {key: plain(inner) for key, inner in value.items() if key != "index"}
        return [plain(inner) for inner in value] if isinstance(value, list) else value

    return plain(step.step_details.to_dict())


def logs_of(step):
    return "".join(output.logs for output in code_of(step).outputs if output.type == "logs")


async def assert_is_a_plot(client, file_id):
    file = await got(client.files.retrieve(file_id))
    assert file.purpose == "assistants_output"
    data = (await got(client.files.content(file_id))).content
    assert len(data) == file.bytes
    picture = Picture(data)
    assert picture.width > 300 and picture.height > 200
    # A plot: mostly white, with a line, letters and antialiased edges.
    colours = picture.colours()
    assert len(colours) > 50
    assert any(pixel[:3] == (255, 255, 255) for pixel in picture.rows[0])


async def test_the_best_and_the_worst_month_are_named_and_then_plotted(client, analyst, outcome):
    at = await analyst("Which month was best and which was worst?")
    run, message, steps = await outcome(at)
    (content,) = message.content
    assert "May (22000)" in content.text.value and "Mar (11000)" in content.text.value
    assert content.text.annotations == []
    assert [step.type for step in steps] == ["tool_calls", "tool_calls", "message_creation"]
    assert {step.status for step in steps} == {"completed"}
    assert '"/mnt/data/sales.csv"' in code_of(steps[0]).input
    assert "5 rows, 3 columns" in logs_of(steps[0]) and "May (22000)" in logs_of(steps[1])
    assert run.usage.total_tokens == sum(step.usage.total_tokens for step in steps)

    _, message, steps = await outcome(at, PLOT)
    picture, text = message.content
    assert (picture.type, text.type) == ("image_file", "text")
    assert "revenue rises" in text.text.value and "+83.3%" in text.text.value
    (image,) = [output.image for output in code_of(steps[1]).outputs if output.type == "image"]
    assert image.file_id == picture.image_file.file_id
    await assert_is_a_plot(client, image.file_id)


async def test_a_plot_is_streamed_to_an_event_handler(client, analyst, mode):
    at = await analyst(PLOT)
    handler = recorder(mode)
    async with opened(client.beta.threads.runs.stream(**at.both, event_handler=handler)) as stream:
        await got(stream.until_done())
        run = await got(stream.get_final_run())
        (message,) = await got(stream.get_final_messages())
        steps = await got(stream.get_final_run_steps())
    assert run.status == "completed"

    thread_id = run.thread_id
    assert message == await got(client.beta.threads.messages.retrieve(message.id, thread_id=thread_id))
    stored = await collect(client.beta.threads.runs.steps.list(run.id, thread_id=thread_id, order="asc"))
    assert [details_of(step) for step in steps] == [details_of(step) for step in stored]

    called = {name: [values for called, values in handler.calls if called == name] for name, _ in handler.calls}
    # The SDK identifies calls by their index in a step, so it misses the first call of the second step.
    assert [call.type for (call,) in called["on_tool_call_created"]] == ["code_interpreter"]
    deltas = [delta.code_interpreter for delta, _ in called["on_tool_call_delta"]]
    pieces = [delta.input for delta in deltas if delta.input]
    assert len(pieces) > 10
    assert "".join(pieces) == "".join(code_of(step).input for step in stored[:-1])
    # A call's code precedes its first output.
    kinds = ["code" if delta.input else "output" for delta in deltas if delta.input or delta.outputs]
    changes = [kind for kind, before in zip(kinds, [None, *kinds]) if kind != before]
    assert changes == ["code", "output", "code", "output"]

    ((picture,),) = called["on_image_file_done"]
    assert picture.file_id == message.content[0].image_file.file_id
    await assert_is_a_plot(client, picture.file_id)
    said = "".join(delta.value for delta, _ in called["on_text_delta"])
    assert said == message.content[1].text.value and len(called["on_text_delta"]) > 5


async def test_an_exported_file_is_annotated_and_downloads(client, analyst, outcome):
    at = await analyst("Save the rows as best first.csv, please: as `best_first.csv`")
    _, message, steps = await outcome(at)
    (content,) = message.content
    (annotation,) = content.text.annotations
    link = "sandbox:/mnt/data/best_first.csv"
    assert (annotation.type, annotation.text) == ("file_path", link)
    assert content.text.value[annotation.start_index : annotation.end_index] == link
    file = await got(client.files.retrieve(annotation.file_path.file_id))
    assert (file.filename, file.purpose) == ("best_first.csv", "assistants_output")
    written = (await got(client.files.content(file.id))).content.decode()
    assert written.splitlines() == [
        "month,revenue,users",
        "May,22000,180",
        "Apr,17500,150",
        "Feb,15500,120",
        "Jan,12000,100",
        "Mar,11000,130",
    ]
    assert len(written) == file.bytes


async def test_an_export_is_streamed_with_its_annotation(client, analyst):
    at = await analyst("Export it to Excel")
    async with opened(client.beta.threads.runs.stream(**at.both)) as stream:
        said = "".join([piece async for piece in each(stream.text_deltas)])
        (message,) = await got(stream.get_final_messages())
    assert said == message.content[0].text.value
    assert message == await got(client.beta.threads.messages.retrieve(message.id, thread_id=message.thread_id))
    text = message.content[0].text
    (annotation,) = text.annotations
    assert text.value[annotation.start_index : annotation.end_index] == "sandbox:/mnt/data/sales_export.xlsx"
    book = (await got(client.files.content(annotation.file_path.file_id))).content
    assert book.startswith(b"PK")


async def test_variables_and_files_stay_from_run_to_run(client, analyst, outcome):
    at = await analyst("Run this code: x = 20; open('/mnt/data/note.txt', 'w').write('kept');")
    _, message, steps = await outcome(at)
    assert code_of(steps[0]).input.startswith("x = 20") and logs_of(steps[0]) == ""
    code = f"print(x + 1, open('note.txt').read(), open('/mnt/data/{at.file_id}').readline())"
    _, message, steps = await outcome(at, f"Run this code: {code}")
    assert logs_of(steps[0]) == "21 kept month,revenue,users\n\n"
    assert "21 kept month,revenue,users" in message.content[0].text.value


async def test_the_value_of_the_last_expression_is_in_the_logs(analyst, outcome):
    at = await analyst("Run this code: [n * n for n in range(4)]")
    _, _, steps = await outcome(at)
    assert logs_of(steps[0]).strip() == "[0, 1, 4, 9]"


async def test_code_that_fails_is_a_step_that_completes(analyst, outcome):
    at = await analyst("Run this code: print('before')\nmissing + 1")
    _, message, steps = await outcome(at)
    assert [step.status for step in steps] == ["completed", "completed"]
    logs = logs_of(steps[0])
    assert logs.startswith("before\n") and "Traceback" in logs and "NameError: name 'missing' is not defined" in logs
    assert "NameError" in message.content[0].text.value


async def test_two_cells_of_one_turn_are_one_step_and_run_in_order(client, scene):
    at = await scene("pair", tools=[CODE])
    async with opened(client.beta.threads.runs.stream(**at.both)) as stream:
        await got(stream.until_done())
        (message,) = await got(stream.get_final_messages())
        run = await got(stream.get_final_run())
    first, _ = await collect(client.beta.threads.runs.steps.list(run.id, thread_id=run.thread_id, order="asc"))
    logs = [call.code_interpreter.outputs[0].logs for call in first.step_details.tool_calls]
    assert logs == ["first 1\n", "second 2\n"]
    assert message.content[0].text.value == "Both ran: code_interpreter: first 1; code_interpreter: second 2"


async def test_code_runs_before_the_caller_is_asked(client, scene, answer):
    at = await scene("mixed", tools=[CODE, WEATHER])
    async with opened(client.beta.threads.runs.stream(**at.both)) as stream:
        await got(stream.until_done())
        run = await got(stream.get_final_run())
    assert run.status == "requires_action"
    (call,) = run.required_action.submit_tool_outputs.tool_calls
    assert call.function.name == "get_weather"
    (step,) = await collect(client.beta.threads.runs.steps.list(run.id, thread_id=run.thread_id))
    assert step.step_details.tool_calls[0].code_interpreter.outputs[0].logs == "42\n"
    outputs = [{"tool_call_id": call.id, "output": "cold"}]
    run = await got(
        client.beta.threads.runs.submit_tool_outputs_and_poll(
            run_id=run.id, thread_id=run.thread_id, tool_outputs=outputs
        )
    )
    assert run.status == "completed"
    assert await answer(run.thread_id) == "Both answered: code_interpreter: 42; get_weather: cold"


async def test_a_cancelled_run_interrupts_its_cell_and_keeps_the_session(client, analyst, outcome):
    at = await analyst("Run this code: import time; x = 7; print('asleep'); time.sleep(100)")
    begun = time.monotonic()
    async with opened(client.beta.threads.runs.stream(**at.both)) as stream:
        async for event in each(stream):
            if event.event == "thread.run.step.delta" and "asleep" in str(event.data.delta):
                run = stream.current_run
                await got(client.beta.threads.runs.cancel(run.id, thread_id=run.thread_id))
        assert (await got(stream.get_final_run())).status == "cancelled"
    assert time.monotonic() - begun < 50
    _, _, steps = await outcome(at, "Run this code: print(x)")
    assert logs_of(steps[0]) == "7\n"


async def test_files_of_the_assistant_are_there_too(client, outcome):
    file = await got(client.files.create(file=("prices.tsv", b"item\tprice\nnut\t3\nbolt\t8\n"), purpose="assistants"))
    assistant = await got(
        client.beta.assistants.create(
            model="gpt-4o", tools=[CODE], tool_resources={"code_interpreter": {"file_ids": [file.id]}}
        )
    )
    thread = await got(client.beta.threads.create(messages=[{"role": "user", "content": "Which item is best?"}]))
    at = SimpleNamespace(both={"assistant_id": assistant.id, "thread_id": thread.id})
    _, message, _ = await outcome(at)
    assert "Best item by price: bolt (8)" in message.content[0].text.value


async def test_a_threads_outputs_outlive_it(client, analyst, outcome):
    at = await analyst("export it")
    _, message, _ = await outcome(at)
    (annotation,) = message.content[0].text.annotations
    assert (await got(client.beta.threads.delete(message.thread_id))).deleted
    assert (await got(client.files.content(annotation.file_path.file_id))).content.startswith(b"month,")
    with pytest.raises(openai.NotFoundError):
        await got(client.beta.threads.runs.create(**at.both))


async def test_without_a_sandbox_such_runs_are_refused_and_others_are_not(short_lived, analyst):
    at = await analyst("Hello", short_lived)
    with pytest.raises(openai.BadRequestError) as refused:
        await got(short_lived.beta.threads.runs.create(**at.both))
    assert (refused.value.code, refused.value.param) == ("unsupported_tool", "tools")
    assert "code_interpreter" in refused.value.body["message"]
    run = await got(short_lived.beta.threads.runs.create_and_poll(**at.both, tools=[]))
    assert run.status == "completed"
