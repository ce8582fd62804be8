// Vector stores, their files and batches, and stores created with assistants and threads.

import assert from 'node:assert/strict';
import { OpenAI, collect, promise, remove, sdk, within } from './sdk.mjs';

// The first versions have vector stores under `beta`.
const storesOf = (client) => client.vectorStores ?? client.beta.vectorStores;

const upload = async (client, name = 'foods.txt', text = 'Ana likes cake.') =>
  (await client.files.create({ file: await sdk.toFile(Buffer.from(text), name), purpose: 'assistants' })).id;

const uploads = (client, count) =>
  Promise.all(Array.from({ length: count }, (_, n) => upload(client, `${n}.txt`, `Text number ${n}.`)));

promise('a vector store is created, read, changed, listed and deleted', async ({ client }) => {
  const stores = storesOf(client);
  const made = await stores.create({
    name: 'Manuals',
    metadata: { a: 'b' },
    expires_after: { anchor: 'last_active_at', days: 3 },
  });
  assert.deepEqual([made.object, made.status, made.usage_bytes], ['vector_store', 'completed', 0]);
  assert.equal(made.expires_at, made.created_at + 3 * 86400);
  assert.deepEqual(await stores.retrieve(made.id), made);
  const changed = await stores.update(made.id, { name: 'Books', expires_after: null });
  assert.deepEqual([changed.name, changed.expires_after, changed.metadata], ['Books', null, { a: 'b' }]);
  const listed = await collect(stores.list({ limit: 2 }));
  assert.ok(listed.some((store) => store.id === made.id));
  const deleted = await remove(stores, made.id);
  assert.deepEqual(deleted, { id: made.id, object: 'vector_store.deleted', deleted: true });
  await assert.rejects(stores.retrieve(made.id), OpenAI.NotFoundError);
});

promise('a file is added, waited for, changed, read and taken out', async ({ client }) => {
  const stores = storesOf(client);
  const { id } = await stores.create({});
  const file_id = await upload(client);
  const done = await stores.files.createAndPoll(id, { file_id, attributes: { year: 2024 } });
  assert.deepEqual([done.status, done.last_error, done.attributes], ['completed', null, { year: 2024 }]);
  assert.deepEqual(await stores.files.retrieve(...within(id, file_id)), done);
  const changed = await stores.files.update(...within(id, file_id, { attributes: { open: true } }));
  assert.deepEqual(changed.attributes, { open: true });
  const [piece] = await collect(stores.files.content(...within(id, file_id)));
  assert.deepEqual([piece.type, piece.text.trim()], ['text', 'Ana likes cake.']);
  const gone = await remove(stores.files, ...within(id, file_id));
  assert.deepEqual(gone, { id: file_id, object: 'vector_store.file.deleted', deleted: true });
  await assert.rejects(stores.files.retrieve(...within(id, file_id)), OpenAI.NotFoundError);
  assert.equal((await client.files.retrieve(file_id)).id, file_id);
});

promise('a file is uploaded into a store and waited for', async ({ client }) => {
  const stores = storesOf(client);
  const { id } = await stores.create({});
  const file = await sdk.toFile(Buffer.from('# Notes\n\nBuy milk.'), 'notes.md');
  assert.equal((await stores.files.uploadAndPoll(id, file)).status, 'completed');
});

promise('files are listed page by page and by status', async ({ client }) => {
  const stores = storesOf(client);
  const files = await uploads(client, 5);
  const { id } = await stores.create({ file_ids: files });
  const listed = await collect(stores.files.list(id, { limit: 2, order: 'asc' }));
  assert.deepEqual(listed.map((file) => file.id), files);
  assert.deepEqual(await collect(stores.files.list(id, { filter: 'cancelled' })), []);
});

promise('a batch is created, waited for and listed', async ({ client }) => {
  const stores = storesOf(client);
  const files = await uploads(client, 3);
  const { id } = await stores.create({});
  const done = await stores.fileBatches.createAndPoll(id, { file_ids: files });
  assert.deepEqual([done.status, done.object], ['completed', 'vector_store.file_batch']);
  assert.deepEqual(done.file_counts, { in_progress: 0, completed: 3, failed: 0, cancelled: 0, total: 3 });
  const listed = await collect(stores.fileBatches.listFiles(...within(id, done.id, { limit: 2, order: 'asc' })));
  assert.deepEqual(listed.map((file) => file.id), files);
  assert.deepEqual(await stores.fileBatches.retrieve(...within(id, done.id)), done);
  assert.equal((await stores.fileBatches.cancel(...within(id, done.id))).status, 'completed');
});

promise('a batch may have settings for each file', async ({ client }) => {
  const stores = storesOf(client);
  const [first, second] = await uploads(client, 2);
  const { id } = await stores.create({});
  const chunking_strategy = {
    type: 'static',
    static: { max_chunk_size_tokens: 200, chunk_overlap_tokens: 100 },
  };
  const files = [
    { file_id: first, attributes: { n: 1 } },
    { file_id: second, chunking_strategy },
  ];
  const batch = await stores.fileBatches.create(id, { files });
  const listed = await collect(stores.fileBatches.listFiles(...within(id, batch.id, { order: 'asc' })));
  assert.deepEqual(listed.map((file) => file.attributes), [{ n: 1 }, {}]);
  assert.deepEqual(listed[1].chunking_strategy, chunking_strategy);
});

promise('a batch of uploads is waited for', async ({ client }) => {
  const stores = storesOf(client);
  const { id } = await stores.create({});
  const texts = ['one', 'two'].map((text) => sdk.toFile(Buffer.from(text), `${text}.txt`));
  const done = await stores.fileBatches.uploadAndPoll(id, {
    files: await Promise.all(texts),
    fileIds: [await upload(client)],
  });
  assert.deepEqual([done.status, done.file_counts.completed], ['completed', 3]);
});

promise('a batch can be cancelled', async ({ client }) => {
  const stores = storesOf(client);
  const { id } = await stores.create({});
  const batch = await stores.fileBatches.create(id, { file_ids: await uploads(client, 10) });
  const { status, file_counts } = await stores.fileBatches.cancel(...within(id, batch.id));
  assert.equal(file_counts.completed + file_counts.cancelled, 10);
  assert.equal(status, file_counts.cancelled ? 'cancelled' : 'completed');
});

promise('assistants and threads bring stores', async ({ client, threads }) => {
  const stores = storesOf(client);
  const file_id = await upload(client);
  const tool_resources = { file_search: { vector_stores: [{ file_ids: [file_id] }] } };
  const assistant = await client.beta.assistants.create({
    model: 'scripted/echo',
    tools: [{ type: 'file_search' }],
    tool_resources,
  });
  const thread = await threads.create({ tool_resources });
  const [mine] = assistant.tool_resources.file_search.vector_store_ids;
  const [its] = thread.tool_resources.file_search.vector_store_ids;
  assert.equal((await stores.retrieve(mine)).expires_after, null);
  assert.deepEqual((await stores.retrieve(its)).expires_after, { anchor: 'last_active_at', days: 7 });
});

promise('an attachment makes the store of its thread', async ({ client, threads }) => {
  const stores = storesOf(client);
  const file_id = await upload(client);
  const attachments = [{ file_id, tools: [{ type: 'file_search' }] }];
  const { id } = await threads.create({ messages: [{ role: 'user', content: 'Look', attachments }] });
  const [store] = (await threads.retrieve(id)).tool_resources.file_search.vector_store_ids;
  assert.deepEqual((await collect(stores.files.list(store))).map((file) => file.id), [file_id]);
});
