// The Azure client class: another header for the key, another path, a version in the query.

import assert from 'node:assert/strict';
import { baseURL, key, promise, sdk } from './sdk.mjs';

const endpoint = baseURL.replace(/\/v1$/, '');
const azure = (defaultHeaders) =>
  new sdk.AzureOpenAI({ endpoint, apiKey: key, apiVersion: '2024-05-01-preview', defaultHeaders });

promise('the Azure client holds a conversation', async ({ defaultHeaders }) => {
  const client = azure(defaultHeaders);
  const { id: assistant_id } = await client.beta.assistants.create({ model: 'scripted/echo' });
  const { id: thread_id } = await client.beta.threads.create({ messages: [{ role: 'user', content: 'Hi' }] });
  const run = await client.beta.threads.runs.createAndPoll(thread_id, { assistant_id });
  assert.equal(run.status, 'completed');
  const page = await client.beta.threads.messages.list(thread_id);
  assert.equal(page.data[0].content[0].text.value, 'You said: Hi');
});

promise('the Azure client reads a stream', async ({ defaultHeaders }) => {
  const client = azure(defaultHeaders);
  const { id: assistant_id } = await client.beta.assistants.create({ model: 'scripted/greeter' });
  const { id: thread_id } = await client.beta.threads.create({ messages: [{ role: 'user', content: 'Hi' }] });
  const run = await client.beta.threads.runs.stream(thread_id, { assistant_id }).finalRun();
  assert.equal(run.status, 'completed');
});

promise('the Azure client names the model in the path of a chat', async ({ defaultHeaders }) => {
  const completion = await azure(defaultHeaders).chat.completions.create({
    model: 'gpt-4o',
    messages: [{ role: 'user', content: 'Hi' }],
  });
  assert.match(completion.choices[0].message.content, /^Hello! I am assistd's scripted model\./);
});
