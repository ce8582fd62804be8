"""Asks an assistant a question and prints the answer as it streams."""

from openai import OpenAI

client = OpenAI()  # The server and the key are OPENAI_BASE_URL and OPENAI_API_KEY.
assistant = client.beta.assistants.create(model="gpt-4o", instructions="Be brief.")
thread = client.beta.threads.create(messages=[{"role": "user", "content": "Hello! Who are you?"}])
with client.beta.threads.runs.stream(thread_id=thread.id, assistant_id=assistant.id) as run:
    for text in run.text_deltas:
        print(text, end="", flush=True)
print()
