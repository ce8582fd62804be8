// Data analysis: the bundled model writes Python, which runs in the sandbox.

import assert from 'node:assert/strict';
import { inflateSync } from 'node:zlib';
import { collect, promise, sdk, shortLivedURL } from './sdk.mjs';

const SALES = 'month,revenue,users\nJan,12000,100\nFeb,15500,120\nMar,11000,130\nApr,17500,150\nMay,22000,180\n';
const CODE = { type: 'code_interpreter' };

async function analyst(client, content) {
  const { id: assistant_id } = await client.beta.assistants.create({
    model: 'gpt-4o',
    name: 'Data Analyst',
    instructions: 'You analyse data.',
    tools: [CODE],
  });
  const file = await client.files.create({
    file: await sdk.toFile(Buffer.from(SALES), 'sales.csv'),
    purpose: 'assistants',
  });
  const attachments = [{ file_id: file.id, tools: [CODE] }];
  const messages = [{ role: 'user', content, attachments }];
  const { id: thread_id } = await client.beta.threads.create({ messages });
  return { assistant_id, thread_id };
}

const codeOf = (step) => step.step_details.tool_calls[0].code_interpreter;

// Removes the indexes of deltas, which older SDKs keep in accumulated objects.
const unplaced = (value) => JSON.parse(JSON.stringify(value, (key, inner) => (key === 'index' ? undefined : inner)));

// The image's pixel rows, each preceded by its filter type.
function pixels(png) {
  assert.equal(png.subarray(1, 4).toString('latin1'), 'PNG');
  const parts = [];
  for (let at = 8; at < png.length; at += png.readUInt32BE(at) + 12)
    if (png.subarray(at + 4, at + 8).toString('latin1') === 'IDAT')
      parts.push(png.subarray(at + 8, at + 8 + png.readUInt32BE(at)));
  return inflateSync(Buffer.concat(parts));
}

async function assertIsAPlot(client, file_id) {
  assert.equal((await client.files.retrieve(file_id)).purpose, 'assistants_output');
  const png = Buffer.from(await (await client.files.content(file_id)).arrayBuffer());
  const [width, height] = [png.readUInt32BE(16), png.readUInt32BE(20)];
  assert.ok(width > 300 && height > 200);
  const raw = pixels(png);
  assert.equal(raw.length % height, 0);
  assert.ok(new Set(raw).size > 50);
}

promise('the best and the worst month are named', async ({ client, threads, answer }) => {
  const at = await analyst(client, 'Which month was best and which was worst?');
  const run = await threads.runs.createAndPoll(at.thread_id, { assistant_id: at.assistant_id });
  assert.equal(run.status, 'completed');
  const text = await answer(at.thread_id);
  assert.match(text, /May \(22000\)/);
  assert.match(text, /Mar \(11000\)/);
});

promise('a plot is streamed', async ({ client, threads }) => {
  const { thread_id, assistant_id } = await analyst(client, 'plot revenue over time and describe the trend');
  const stream = threads.runs.stream(thread_id, { assistant_id });
  const kinds = [];
  let [code, text] = ['', ''];
  const pictures = [];
  stream.on('toolCallDelta', ({ code_interpreter: delta }) => {
    code += delta.input ?? '';
    if (delta.input || delta.outputs?.length) kinds.push(delta.input ? 'code' : 'output');
  });
  stream.on('imageFileDone', (picture) => pictures.push(picture.file_id));
  stream.on('textDelta', (delta) => (text += delta.value ?? ''));
  const [message] = await stream.finalMessages();
  const steps = await stream.finalRunSteps();
  const stored = await collect(
    threads.messages.list(thread_id, { run_id: stream.currentRun().id }),
  );
  assert.deepEqual(stored[0].content, unplaced(message.content));
  const calls = steps.filter((step) => step.type === 'tool_calls');
  assert.equal(code, calls.map((step) => codeOf(step).input).join(''));
  assert.ok(kinds.filter((kind) => kind === 'code').length > 10);
  const changes = kinds.filter((kind, index) => kind !== kinds[index - 1]);
  assert.deepEqual(changes, ['code', 'output', 'code', 'output']);
  assert.deepEqual(message.content.map((part) => part.type), ['image_file', 'text']);
  assert.equal(message.content[1].text.value, text);
  assert.match(text, /revenue rises/);
  assert.deepEqual(pictures, [message.content[0].image_file.file_id]);
  await assertIsAPlot(client, pictures[0]);
});

promise('an exported file is annotated and downloads', async ({ client, threads }) => {
  const { thread_id, assistant_id } = await analyst(client, 'Export it as CSV');
  const [message] = await threads.runs.stream(thread_id, { assistant_id }).finalMessages();
  const { value, annotations } = message.content[0].text;
  assert.equal(annotations.length, 1);
  const { type, start_index, end_index, file_path } = annotations[0];
  assert.equal(type, 'file_path');
  assert.equal(value.slice(start_index, end_index), 'sandbox:/mnt/data/sales_export.csv');
  const text = await (await client.files.content(file_path.file_id)).text();
  assert.deepEqual(text.trim().split('\n').slice(0, 2), ['month,revenue,users', 'May,22000,180']);
});

promise('variables stay from run to run', async ({ client, threads, answer }) => {
  const { thread_id, assistant_id } = await analyst(client, 'Run this code: x = 20');
  await threads.runs.createAndPoll(thread_id, { assistant_id });
  await threads.messages.create(thread_id, { role: 'user', content: 'Run this code: print(x + 1)' });
  await threads.runs.createAndPoll(thread_id, { assistant_id });
  assert.match(await answer(thread_id), /\b21\b/);
});

promise('without a sandbox such a run is refused', async ({ connect }) => {
  const client = connect({ baseURL: shortLivedURL });
  const { thread_id, assistant_id } = await analyst(client, 'Hello');
  await assert.rejects(client.beta.threads.runs.create(thread_id, { assistant_id }), (error) => {
    assert.deepEqual([error.status, error.code, error.param], [400, 'unsupported_tool', 'tools']);
    return true;
  });
});
