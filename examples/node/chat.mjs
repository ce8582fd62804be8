// Asks an assistant a question and prints the answer as it streams.
import OpenAI from "openai";

const client = new OpenAI(); // The server and the key are OPENAI_BASE_URL and OPENAI_API_KEY.
const assistant = await client.beta.assistants.create({ model: "gpt-4o", instructions: "Be brief." });
const messages = [{ role: "user", content: "Hello! Who are you?" }];
const thread = await client.beta.threads.create({ messages });
const run = client.beta.threads.runs.stream(thread.id, { assistant_id: assistant.id });
run.on("textDelta", (delta) => process.stdout.write(delta.value));
await run.done();
console.log();
