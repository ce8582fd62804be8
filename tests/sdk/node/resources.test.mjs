// Assistants, threads, messages, files, uploads, models, chat completions and embeddings.

import assert from 'node:assert/strict';
import { createHash } from 'node:crypto';
import { OpenAI, WEATHER, at, collect, promise, remove, sdk } from './sdk.mjs';

promise('an assistant is created, read, updated and deleted', async ({ client }) => {
  const { assistants } = client.beta;
  const made = await assistants.create({ model: 'scripted/echo', name: 'Ada', tools: [WEATHER] });
  assert.equal(made.object, 'assistant');
  assert.deepEqual(await assistants.retrieve(made.id), made);
  const changed = await assistants.update(made.id, { name: 'Grace' });
  assert.deepEqual([changed.name, changed.tools], ['Grace', made.tools]);
  const deleted = await remove(assistants, made.id);
  assert.deepEqual(deleted, { id: made.id, object: 'assistant.deleted', deleted: true });
  await assert.rejects(assistants.retrieve(made.id), OpenAI.NotFoundError);
});

promise('iterating assistants walks through all pages', async ({ client }) => {
  const made = [];
  for (let i = 0; i < 5; i++) made.push((await client.beta.assistants.create({ model: 'scripted/echo' })).id);
  const listed = await collect(client.beta.assistants.list({ limit: 2, order: 'asc', after: made[0] }));
  assert.deepEqual(listed.map((a) => a.id).slice(0, 4), made.slice(1));
});

promise('a thread is created from nothing, read, updated and deleted', async ({ threads }) => {
  const made = await threads.create();
  assert.deepEqual(made.metadata, {});
  assert.deepEqual((await threads.update(made.id, { metadata: { a: 'b' } })).metadata, { a: 'b' });
  assert.deepEqual((await threads.retrieve(made.id)).metadata, { a: 'b' });
  assert.equal((await remove(threads, made.id)).object, 'thread.deleted');
  await assert.rejects(threads.retrieve(made.id), OpenAI.NotFoundError);
});

promise('a message is created, read, updated, listed and deleted', async ({ threads }) => {
  const { id } = await threads.create();
  const made = await threads.messages.create(id, { role: 'user', content: 'Hello, 世界' });
  assert.equal(made.content[0].text.value, 'Hello, 世界');
  assert.deepEqual(await threads.messages.retrieve(...at(id, made.id)), made);
  const changed = await threads.messages.update(...at(id, made.id, { metadata: { a: 'b' } }));
  assert.deepEqual(changed.metadata, { a: 'b' });
  assert.deepEqual((await collect(threads.messages.list(id))).map((m) => m.id), [made.id]);
  assert.equal((await remove(threads.messages, ...at(id, made.id))).object, 'thread.message.deleted');
  assert.deepEqual(await collect(threads.messages.list(id)), []);
});

promise('images by URL come back with their detail', async ({ threads }) => {
  const content = [
    { type: 'text', text: 'Look' },
    { type: 'image_url', image_url: { url: 'https://images.example/a.png', detail: 'high' } },
  ];
  const { id } = await threads.create({ messages: [{ role: 'user', content }] });
  const [message] = await collect(threads.messages.list(id));
  assert.deepEqual(message.content[1], content[1]);
});

promise('a file is stored, read, listed, downloaded and deleted', async ({ client }) => {
  const content = Buffer.from('month,revenue\nMay,22000\n');
  const file = await client.files.create({ file: await sdk.toFile(content, '数据.csv'), purpose: 'assistants' });
  assert.deepEqual([file.filename, file.bytes, file.status], ['数据.csv', content.length, 'processed']);
  assert.deepEqual(await client.files.retrieve(file.id), file);
  const listed = await collect(client.files.list({ purpose: 'assistants', limit: 100 }));
  assert.ok(listed.some((other) => other.id === file.id));
  const response = await client.files.content(file.id);
  assert.deepEqual(Buffer.from(await response.arrayBuffer()), content);
  assert.equal((await client.files.waitForProcessing(file.id)).id, file.id);
  assert.deepEqual(await remove(client.files, file.id), { object: 'file', deleted: true, id: file.id });
  await assert.rejects(client.files.retrieve(file.id), OpenAI.NotFoundError);
});

promise('an upload is made of parts and checked', async ({ client }) => {
  const halves = ['hello ', 'parts'];
  const upload = await client.uploads.create({
    filename: 'joined.txt',
    bytes: 11,
    mime_type: 'text/plain',
    purpose: 'assistants',
  });
  const part_ids = [];
  for (const half of halves) {
    const data = await sdk.toFile(Buffer.from(half), 'part');
    part_ids.push((await client.uploads.parts.create(upload.id, { data })).id);
  }
  const md5 = createHash('md5').update(halves.join('')).digest('hex');
  const done = await client.uploads.complete(upload.id, { part_ids, md5 });
  assert.deepEqual([done.status, done.file.bytes], ['completed', 11]);
  assert.equal(await (await client.files.content(done.file.id)).text(), 'hello parts');
});

promise('an upload can be cancelled', async ({ client }) => {
  const upload = await client.uploads.create({ filename: 'a', bytes: 1, mime_type: 'text/plain', purpose: 'vision' });
  assert.equal((await client.uploads.cancel(upload.id)).status, 'cancelled');
  await assert.rejects(client.uploads.complete(upload.id, { part_ids: [] }), OpenAI.BadRequestError);
});

promise('models are listed and read', async ({ client }) => {
  assert.ok((await collect(client.models.list())).some((model) => model.id === 'scripted/echo'));
  assert.equal((await client.models.retrieve('scripted/echo')).object, 'model');
});

promise('a chat completion is answered and streamed', async ({ client }) => {
  const request = { model: 'scripted/echo', messages: [{ role: 'user', content: 'Hi' }] };
  const whole = await client.chat.completions.create(request);
  assert.equal(whole.choices[0].message.content, 'You said: Hi');
  let said = '';
  for await (const chunk of await client.chat.completions.create({ ...request, stream: true }))
    said += chunk.choices[0]?.delta.content ?? '';
  assert.equal(said, 'You said: Hi');
});

promise('embeddings come one for each input', async ({ client }) => {
  const { data } = await client.embeddings.create({
    model: 'text-embedding-3-small',
    input: ['one', 'two'],
    dimensions: 32,
  });
  assert.deepEqual(data.map((item) => [item.index, item.embedding.length]), [[0, 32], [1, 32]]);
});

promise('an error carries the fields of the envelope', async ({ threads }) => {
  const id = `thread_${'0'.repeat(24)}`;
  await assert.rejects(threads.retrieve(id), (error) => {
    assert.ok(error instanceof OpenAI.NotFoundError);
    assert.equal(error.error.message, `No thread found with id '${id}'.`);
    assert.deepEqual([error.type, error.param, error.code], ['invalid_request_error', null, null]);
    return true;
  });
});

promise('a path made with a missing id is a clear error', async ({ client }) => {
  await assert.rejects(client.get('/threads/undefined/runs'), (error) => {
    assert.equal(
      error.error.message,
      "Invalid 'thread_id': 'undefined'. Expected an ID that begins with 'thread'.",
    );
    return error instanceof OpenAI.BadRequestError;
  });
});
