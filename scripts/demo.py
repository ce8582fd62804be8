"""The story that must always work, told by the official SDK against a running server.

usage: demo.py URL             tells it
       demo.py --is-there URL  exits with 0 if a server answers there
"""

import json
import os
import sys
import time
import urllib.request
import warnings

from openai import OpenAI

MODEL = os.environ.get("DEMO_MODEL", "gpt-4o")

WEATHER = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "description": "The weather in a city.",
        "parameters": {
            "type": "object",
            "properties": {"city": {"type": "string"}},
            "required": ["city"],
        },
    },
}


def get_weather(city):
    return {"city": city, "sky": "clear", "celsius": 21}


def answer_calls(run):
    """Does what the run asks for, as an application would."""
    outputs = []
    for call in run.required_action.submit_tool_outputs.tool_calls:
        result = get_weather(**json.loads(call.function.arguments))
        print(f"   the model calls {call.function.name}({call.function.arguments}) -> {result}")
        outputs.append({"tool_call_id": call.id, "output": json.dumps(result)})
    return outputs


def newest_text(client, thread):
    message = client.beta.threads.messages.list(thread.id, limit=1).data[0]
    return message.content[0].text.value


def title(text):
    print(f"\n== {text}")


def tell(client):
    beta = client.beta

    title("An assistant, a thread, a run that is polled")
    assistant = beta.assistants.create(
        model=MODEL, name="Guide", instructions="You help travellers. Be brief.", tools=[WEATHER]
    )
    thread = beta.threads.create(metadata={"from": "demo"})
    beta.threads.messages.create(thread.id, role="user", content="Hello! Who are you?")
    run = beta.threads.runs.create_and_poll(thread_id=thread.id, assistant_id=assistant.id)
    print(f"   {assistant.id}, {thread.id}, {run.id}: {run.status}")
    print(f"   answer: {newest_text(client, thread)}")
    print(f"   tokens: {run.usage.prompt_tokens} in, {run.usage.completion_tokens} out")

    title("The same thread, streamed")
    beta.threads.messages.create(thread.id, role="user", content="Say something about streams.")
    begun = time.monotonic()
    first = None
    with beta.threads.runs.stream(thread_id=thread.id, assistant_id=assistant.id) as stream:
        print("   ", end="")
        for text in stream.text_deltas:
            first = first or time.monotonic() - begun
            print(text, end="", flush=True)
    print(f"\n   first token after {first * 1000:.0f} ms")

    title("A function of ours, polled: requires_action and submit_tool_outputs")
    beta.threads.messages.create(thread.id, role="user", content="What is the weather in Oslo?")
    run = beta.threads.runs.create_and_poll(thread_id=thread.id, assistant_id=assistant.id)
    print(f"   {run.status}")
    while run.status == "requires_action":
        run = beta.threads.runs.submit_tool_outputs_and_poll(
            run_id=run.id, thread_id=thread.id, tool_outputs=answer_calls(run)
        )
    print(f"   {run.status}: {newest_text(client, thread)}")

    title("The same, streamed")
    beta.threads.messages.create(thread.id, role="user", content="And the weather in Lima?")
    with beta.threads.runs.stream(thread_id=thread.id, assistant_id=assistant.id) as stream:
        stream.until_done()
        run = stream.current_run
    while run.status == "requires_action":
        with beta.threads.runs.submit_tool_outputs_stream(
            run_id=run.id, thread_id=thread.id, tool_outputs=answer_calls(run)
        ) as stream:
            print("   ", end="")
            for text in stream.text_deltas:
                print(text, end="", flush=True)
            print()
            run = stream.current_run

    title("What the run did")
    for step in beta.threads.runs.steps.list(run.id, thread_id=thread.id, order="asc"):
        print(f"   {step.id}  {step.type}  {step.status}  {step.usage.total_tokens} tokens")

    title("A file")
    text = b"month,revenue,users\nJan,12000,100\nMar,11000,130\nMay,22000,180\n"
    file = client.files.create(file=("sales.csv", text), purpose="assistants")
    back = client.files.content(file.id).read()
    print(f"   {file.id}: {file.filename}, {file.bytes} bytes, read back the same: {back == text}")
    client.files.delete(file.id)

    beta.threads.delete(thread.id)
    beta.assistants.delete(assistant.id)
    print("\nNot in this version: the tools code_interpreter and file_search.")


def is_there(url):
    try:
        with urllib.request.urlopen(f"{url}/healthz", timeout=2) as response:
            return response.status == 200
    except OSError:
        return False


if __name__ == "__main__":
    if sys.argv[1] == "--is-there":
        sys.exit(0 if is_there(sys.argv[2]) else 1)
    # The SDK announces the end of the hosted API with every call; this server is why it can go on.
    warnings.simplefilter("ignore", DeprecationWarning)
    tell(OpenAI(base_url=f"{sys.argv[1]}/v1", api_key=os.environ.get("ASSISTD_KEY", "any")))
