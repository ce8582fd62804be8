"""The demonstration: the official SDK against a running server.

usage: demo.py BASE_URL          runs it, with the key in OPENAI_API_KEY if that is set
       demo.py --is-running URL  exits with 0 if a server answers at URL
"""

import json
import os
import sys
import tempfile
import time
import urllib.request
import warnings
from pathlib import Path

from openai import (
    APIConnectionError,
    APIStatusError,
    AssistantEventHandler,
    AuthenticationError,
    BadRequestError,
    NotFoundError,
    OpenAI,
    OpenAIError,
)

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


CODE = {"type": "code_interpreter"}
SEARCH = {"type": "file_search"}

SALES = b"""\
month,revenue,users
Jan,12000,100
Feb,15500,120
Mar,11000,130
Apr,17500,150
May,22000,180
"""

DOCUMENTS = {
    "returns.md": """\
# Returns

Goods may be returned within 30 days of purchase. After that, store credit is given.

# Shipping

Parcels leave the warehouse in Hamburg every weekday at 17:00.
""",
    "printer.txt": "ERR-4711 means that the printer is out of paper.\n\nERR-4712 means that it is on fire.\n",
    "office.html": "<h1>The office</h1><p>The cat is called Miso. She sleeps on the printer.</p>",
}


class DemoError(Exception):
    """Why the demonstration cannot go on, in a sentence for the user."""


def get_weather(city):
    return {"city": city, "sky": "clear", "celsius": 21}


def answer_calls(run):
    """Calls the functions that the run requires, as an application would."""
    outputs = []
    for call in run.required_action.submit_tool_outputs.tool_calls:
        result = get_weather(**json.loads(call.function.arguments))
        print(f"   the model calls {call.function.name}({call.function.arguments}) -> {result}")
        outputs.append({"tool_call_id": call.id, "output": json.dumps(result)})
    return outputs


def newest(client, thread):
    return client.beta.threads.messages.list(thread.id, limit=1).data[0]


def newest_text(client, thread):
    return "\n".join(part.text.value for part in newest(client, thread).content if part.type == "text")


def check_ended(run):
    """Returns the run, and raises if it has failed."""
    if run.status in ("failed", "expired", "cancelled", "incomplete"):
        reason = run.last_error.message if run.last_error else "the server gives no reason"
        raise DemoError(f"run {run.id} ended as {run.status}: {reason}")
    return run


def title(text):
    print(f"\n== {text}")


def show(text, mark="   "):
    print("\n".join(mark + line for line in text.rstrip("\n").split("\n")))


class Watcher(AssistantEventHandler):
    """Prints the code, its output and the answer as they stream."""

    def on_run_step_created(self, run_step):
        self.begun = False

    def on_tool_call_delta(self, delta, snapshot):
        self.write(delta.code_interpreter.input or "", "   > ")
        for output in delta.code_interpreter.outputs or []:
            if output.type == "logs":
                self.write(output.logs, "   | ")

    def on_message_delta(self, delta, snapshot):
        for part in delta.content:
            if part.type == "image_file":
                print(f"   a picture: {part.image_file.file_id}")
            else:
                self.write(part.text.value, "   ")

    def write(self, text, mark):
        """Prints a chunk of text with a mark before each line; a new mark starts a new line."""
        for piece in text.splitlines(keepends=True):
            if self.begun != mark:
                print(("\n" if self.begun else "") + mark, end="")
            self.begun = mark
            print(piece.rstrip("\n"), end="", flush=True)
            if piece.endswith("\n"):
                print()
                self.begun = False


def download(client, file_id, name):
    """Downloads a file and prints its path."""
    path = Path(tempfile.mkdtemp(prefix="assistd-demo-")) / name
    path.write_bytes(client.files.content(file_id).read())
    print(f"   {file_id}, {path.stat().st_size} bytes, saved as {path}")


def show_code_interpreter(client):
    beta = client.beta

    title("A data analyst: an assistant with code_interpreter, and a table attached to a message")
    assistant = beta.assistants.create(
        model=MODEL,
        name="Data Analyst",
        instructions="You are a data analyst. Answer questions about files by running Python.",
        tools=[CODE],
    )
    file = client.files.create(file=("sales.csv", SALES), purpose="assistants")
    thread = beta.threads.create(metadata={"from": "demo"})
    beta.threads.messages.create(
        thread.id,
        role="user",
        content="Which month was best, and which was worst?",
        attachments=[{"file_id": file.id, "tools": [CODE]}],
    )
    print(f"   {assistant.id}, {file.id} ({file.filename}), {thread.id}")
    begun = time.monotonic()
    try:
        run = beta.threads.runs.create_and_poll(thread_id=thread.id, assistant_id=assistant.id)
    except BadRequestError as error:
        print(f"   not on this server: {message_of(error)}")
        beta.threads.delete(thread.id)
        beta.assistants.delete(assistant.id)
        client.files.delete(file.id)
        return
    check_ended(run)
    print(f"   {run.id}: {run.status} after {time.monotonic() - begun:.1f} s")
    for step in beta.threads.runs.steps.list(run.id, thread_id=thread.id, order="asc"):
        if step.type == "tool_calls":
            for call in step.step_details.tool_calls:
                code = call.code_interpreter
                print(f"   Python, {len(code.input.splitlines())} lines; it printed:")
                for output in code.outputs:
                    show(output.logs if output.type == "logs" else output.image.file_id, "   | ")
    show(newest_text(client, thread))

    title("On the same thread: a picture")
    question = "Plot revenue over time and describe the trend."
    beta.threads.messages.create(thread.id, role="user", content=question)
    check_ended(beta.threads.runs.create_and_poll(thread_id=thread.id, assistant_id=assistant.id))
    for part in newest(client, thread).content:
        if part.type == "image_file":
            download(client, part.image_file.file_id, "revenue.png")
    show(newest_text(client, thread))

    title("The same, streamed: the code, its output, the answer")
    beta.threads.messages.create(thread.id, role="user", content="Plot users over time as a bar chart.")
    with beta.threads.runs.stream(
        thread_id=thread.id, assistant_id=assistant.id, event_handler=Watcher()
    ) as stream:
        stream.until_done()
        check_ended(stream.current_run)
    print()

    title("A file that the code writes")
    beta.threads.messages.create(thread.id, role="user", content="Save the table as best_first.csv.")
    check_ended(beta.threads.runs.create_and_poll(thread_id=thread.id, assistant_id=assistant.id))
    show(newest_text(client, thread))
    for part in newest(client, thread).content:
        for annotation in part.text.annotations if part.type == "text" else []:
            download(client, annotation.file_path.file_id, annotation.text.split("/")[-1])

    beta.threads.delete(thread.id)
    beta.assistants.delete(assistant.id)
    client.files.delete(file.id)


def show_file_search(client):
    beta, stores = client.beta, client.vector_stores

    title("A librarian: a folder of documents is indexed in a vector store")
    folder = Path(tempfile.mkdtemp(prefix="assistd-demo-"))
    for name, text in DOCUMENTS.items():
        (folder / name).write_text(text, encoding="utf-8")
    store = stores.create(name="Handbook")
    begun = time.monotonic()
    batch = stores.file_batches.upload_and_poll(store.id, files=sorted(folder.iterdir()))
    print(f"   {store.id}: {batch.file_counts.completed} files indexed in {time.monotonic() - begun:.1f} s")

    title("Hybrid search: lexical and semantic")
    for query in ["ERR-4712", "our feline colleague"]:
        found = stores.search(store.id, query=query).data
        best = f"{found[0].filename} ({found[0].score:.2f})" if found else "nothing"
        print(f"   {query!r} -> {best}")

    title("A question, answered with citations, streamed")
    assistant = beta.assistants.create(
        model=MODEL,
        instructions="Answer from the files.",
        tools=[SEARCH],
        tool_resources={"file_search": {"vector_store_ids": [store.id]}},
    )
    question = "How long may goods be returned, and what does ERR-4711 mean?"
    thread = beta.threads.create(messages=[{"role": "user", "content": question}])
    print(f"   {question}\n")
    notes = {}
    line = "   "
    with beta.threads.runs.stream(thread_id=thread.id, assistant_id=assistant.id) as stream:
        for event in stream:
            if event.event == "thread.run.failed":
                check_ended(event.data)
            if event.event != "thread.message.delta":
                continue
            for part in event.data.delta.content:
                text = part.text.value
                for note in part.text.annotations or []:
                    number = notes.setdefault(note.file_citation.file_id, len(notes) + 1)
                    text = text.replace(note.text, f" [{number}]")
                print(line + text.replace("\n", "\n   "), end="", flush=True)
                line = ""
    print("\n")
    for file_id, number in notes.items():
        print(f"   [{number}] {client.files.retrieve(file_id).filename}, {file_id}")

    files = list(stores.files.list(store.id))
    beta.threads.delete(thread.id)
    beta.assistants.delete(assistant.id)
    stores.delete(store.id)
    for file in files:
        client.files.delete(file.id)


def show_runs(client):
    beta = client.beta

    title("An assistant, a thread, a run that is polled")
    assistant = beta.assistants.create(
        model=MODEL, name="Guide", instructions="You help travellers. Be brief.", tools=[WEATHER]
    )
    thread = beta.threads.create(metadata={"from": "demo"})
    beta.threads.messages.create(thread.id, role="user", content="Hello! Who are you?")
    run = check_ended(beta.threads.runs.create_and_poll(thread_id=thread.id, assistant_id=assistant.id))
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
        check_ended(stream.current_run)
    print(f"\n   first token after {first * 1000:.0f} ms" if first else "\n   no text came")

    title("A function call, polled: requires_action and submit_tool_outputs")
    beta.threads.messages.create(thread.id, role="user", content="What is the weather in Oslo?")
    run = beta.threads.runs.create_and_poll(thread_id=thread.id, assistant_id=assistant.id)
    print(f"   {run.status}")
    while run.status == "requires_action":
        run = beta.threads.runs.submit_tool_outputs_and_poll(
            run_id=run.id, thread_id=thread.id, tool_outputs=answer_calls(run)
        )
    print(f"   {check_ended(run).status}: {newest_text(client, thread)}")

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
    check_ended(run)

    title("The steps of the run")
    for step in beta.threads.runs.steps.list(run.id, thread_id=thread.id, order="asc"):
        tokens = step.usage.total_tokens if step.usage else 0
        print(f"   {step.id}  {step.type}  {step.status}  {tokens} tokens")

    beta.threads.delete(thread.id)
    beta.assistants.delete(assistant.id)


def message_of(error):
    """The message of the server's error."""
    body = error.body if isinstance(error.body, dict) else {}
    return body.get("message") or error.message


def explain(error, base_url, key):
    """Explains an error of the SDK in a sentence."""
    if isinstance(error, APIConnectionError):
        return f"no server answers at {base_url} ({error.__cause__ or error}): is it running?"
    if isinstance(error, AuthenticationError) and not key:
        return (
            f"the server at {base_url} requires a key: set OPENAI_API_KEY to one "
            "(its operator creates it with `assistd keys create --project NAME`)"
        )
    if isinstance(error, AuthenticationError):
        return f"the server at {base_url} does not accept the key in OPENAI_API_KEY: {message_of(error)}"
    if isinstance(error, APIStatusError):
        return f"the server at {base_url} answered {error.status_code}: {message_of(error)}"
    return f"the server at {base_url}: {error}"


def check_server(client, base_url):
    """Raises unless the server has the Assistants API."""
    try:
        found = client.with_options(max_retries=0).beta.assistants.list(limit=1)
    except NotFoundError:
        found = None
    # Other web servers answer with success and a page.
    if not isinstance(getattr(found, "data", None), list):
        raise DemoError(
            f"{base_url} does not serve the Assistants API: set OPENAI_BASE_URL to a base URL of assistd, "
            "such as http://127.0.0.1:8000/v1, or unset it"
        )


def is_running(url):
    try:
        with urllib.request.urlopen(f"{url}/healthz", timeout=2) as response:
            return response.status == 200
    except OSError:
        return False


def main(base_url):
    # The SDK warns with every call that the hosted API has ended, which does not apply to this server.
    warnings.simplefilter("ignore", DeprecationWarning)
    key = os.environ.get("OPENAI_API_KEY")
    sdk = OpenAI(base_url=base_url, api_key=key or "any")
    try:
        check_server(sdk, base_url)
        show_code_interpreter(sdk)
        show_file_search(sdk)
        show_runs(sdk)
    except DemoError as error:
        sys.exit(f"demo: {error}")
    except OpenAIError as error:
        sys.exit(f"demo: {explain(error, base_url, key)}")


if __name__ == "__main__":
    if sys.argv[1] == "--is-running":
        sys.exit(0 if is_running(sys.argv[2]) else 1)
    main(sys.argv[1])
