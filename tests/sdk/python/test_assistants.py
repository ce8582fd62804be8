import pytest

from conftest import WEATHER
from dual import collect, got


async def test_a_new_assistant_has_the_documented_defaults(client):
    assistant = await got(client.beta.assistants.create(model="scripted/echo"))
    assert assistant.object == "assistant"
    assert assistant.id.startswith("asst_") and len(assistant.id) == len("asst_") + 24
    assert (assistant.name, assistant.description, assistant.instructions) == (None, None, None)
    assert (assistant.temperature, assistant.top_p) == (1.0, 1.0)
    assert (assistant.tools, assistant.metadata, assistant.response_format) == ([], {}, "auto")


async def test_every_field_of_an_assistant_comes_back_as_it_was_sent(client):
    sent = {
        "model": "scripted/echo",
        "name": "Ada",
        "description": "counts",
        "instructions": "Be brief. 你好",
        "temperature": 0.5,
        "top_p": 0.25,
        "metadata": {"team": "blue"},
        "reasoning_effort": "low",
        "response_format": {"type": "json_object"},
    }
    created = await got(client.beta.assistants.create(**sent))
    read = await got(client.beta.assistants.retrieve(created.id))
    assert read == created
    fields = read.to_dict()
    assert {name: fields[name] for name in sent} == sent


async def test_a_function_tool_comes_back_with_its_defaults(client):
    tool = {"type": "function", "function": {"name": "ping"}}
    assistant = await got(client.beta.assistants.create(model="scripted/echo", tools=[tool, WEATHER]))
    first, second = [tool.to_dict() for tool in assistant.tools]
    assert first["function"]["parameters"] == {"type": "object", "properties": {}}
    assert first["function"]["strict"] is False
    assert second["function"] == WEATHER["function"] | {"strict": False}


async def test_a_json_schema_format_comes_back_verbatim(client):
    wanted = {
        "type": "json_schema",
        "json_schema": {"name": "point", "schema": {"type": "object", "properties": {"x": {"type": "number"}}}, "strict": True},
    }
    assistant = await got(client.beta.assistants.create(model="scripted/json", response_format=wanted))
    assert assistant.to_dict()["response_format"] == wanted


async def test_the_order_of_a_schemas_properties_is_kept(client):
    # Models fill in a schema in the order of its keys.
    properties = {name: {"type": "string"} for name in ("reasoning", "zebra", "answer", "b", "aa")}
    schema = {"type": "object", "properties": properties}
    assistant = await got(
        client.beta.assistants.create(
            model="scripted/json",
            tools=[{"type": "function", "function": {"name": "f", "parameters": schema}}],
            response_format={"type": "json_schema", "json_schema": {"name": "a", "schema": schema}},
        )
    )
    await got(client.beta.assistants.update(assistant.id, name="Ada"))
    read = (await got(client.beta.assistants.retrieve(assistant.id))).to_dict()
    assert list(read["tools"][0]["function"]["parameters"]["properties"]) == list(properties)
    assert list(read["response_format"]["json_schema"]["schema"]["properties"]) == list(properties)


async def test_an_update_keeps_what_it_does_not_name(client):
    before = await got(client.beta.assistants.create(model="scripted/echo", name="Ada", instructions="Be brief."))
    after = await got(client.beta.assistants.update(before.id, name="Grace", metadata={"a": "b"}))
    assert (after.name, after.instructions, after.metadata) == ("Grace", "Be brief.", {"a": "b"})
    assert (after.model, after.created_at) == (before.model, before.created_at)


async def test_an_update_can_clear_a_field(client):
    assistant = await got(client.beta.assistants.create(model="scripted/echo", name="Ada"))
    assert (await got(client.beta.assistants.update(assistant.id, name=None))).name is None


async def test_a_deleted_assistant_is_gone(client, connect):
    from openai import NotFoundError

    assistant = await got(client.beta.assistants.create(model="scripted/echo"))
    deleted = await got(client.beta.assistants.delete(assistant.id))
    assert (deleted.id, deleted.object, deleted.deleted) == (assistant.id, "assistant.deleted", True)
    with pytest.raises(NotFoundError):
        await got(client.beta.assistants.retrieve(assistant.id))


async def test_iterating_a_list_fetches_all_pages_in_order(client):
    made = [await got(client.beta.assistants.create(model="scripted/echo", name=f"n{i}")) for i in range(5)]
    oldest_first = client.beta.assistants.list(limit=2, order="asc", after=made[0].id)
    assert [a.id for a in await collect(oldest_first)][:4] == [a.id for a in made[1:]]
    newest_first = []
    async for assistant in _until(client.beta.assistants.list(limit=2), made[0].id):
        newest_first.append(assistant)
    assert [a for a in newest_first if a in {m.id for m in made}] == [m.id for m in reversed(made)]


async def _until(iterable, last):
    from dual import each

    async for element in each(iterable):
        yield element.id
        if element.id == last:
            return


async def test_before_gives_what_stands_ahead_in_the_list(client):
    first, second, third = [await got(client.beta.assistants.create(model="scripted/echo")) for _ in range(3)]
    page = await got(client.beta.assistants.list(order="asc", after=first.id, before=third.id))
    assert [a.id for a in page.data] == [second.id]
