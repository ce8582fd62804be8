// Documents are indexed, searched, quoted and cited.

import assert from 'node:assert/strict';
import { OpenAI, at, atStep, collect, promise, remove, sdk, within } from './sdk.mjs';

const SEARCH = { type: 'file_search' };
const CONTENT = ['step_details.tool_calls[*].file_search.results[*].content'];
const DOCUMENTS = {
  'policy.md': '# Refunds\n\nGoods may be returned within 30 days. After that, store credit is given.\n',
  'errors.txt': 'ERR-4711 means that the printer is out of paper.\nERR-4712 means that it is on fire.\n',
  'cat.html': '<html><body><p>The office cat is called Miso.</p></body></html>',
};

const storesOf = (client) => client.vectorStores ?? client.beta.vectorStores;
const asFile = ([name, text]) => sdk.toFile(Buffer.from(text), name);

// Creates a store of indexed documents; the ids of its files by name.
async function library(client, documents = DOCUMENTS) {
  const stores = storesOf(client);
  const { id } = await stores.create({ name: 'Library' });
  const files = await Promise.all(Object.entries(documents).map(asFile));
  const batch = await stores.fileBatches.uploadAndPoll(id, { files });
  assert.deepEqual([batch.status, batch.file_counts.completed], ['completed', files.length]);
  const ids = {};
  for (const file of await collect(stores.files.list(id)))
    ids[(await client.files.retrieve(file.id)).filename] = file.id;
  return { id, files: ids };
}

async function librarian(client, content, store, attachments) {
  const { id: assistant_id } = await client.beta.assistants.create({
    model: 'gpt-4o',
    tools: [SEARCH],
    ...(store && { tool_resources: { file_search: { vector_store_ids: [store] } } }),
  });
  const { id: thread_id } = await client.beta.threads.create({
    messages: [{ role: 'user', content, ...(attachments && { attachments }) }],
  });
  return { assistant_id, thread_id };
}

// The cited files, with each marker's position checked.
const cited = ({ value, annotations }) =>
  annotations.map(({ type, text, start_index, end_index, file_citation }) => {
    assert.equal(type, 'file_citation');
    assert.equal(value.slice(start_index, end_index), text);
    return [text, file_citation.file_id];
  });

const newest = async (client, thread_id) =>
  (await client.beta.threads.messages.list(thread_id, { limit: 1 })).data[0].content[0].text;

const names = async (client, store, query, more = {}) =>
  (await collect(storesOf(client).search(store, { query, ...more }))).map((result) => result.filename);

promise('a question is answered with a citation', async ({ client, threads }) => {
  const store = await library(client);
  const { assistant_id, thread_id } = await librarian(client, 'May goods be returned?', store.id);
  const run = await threads.runs.createAndPoll(thread_id, { assistant_id });
  assert.equal(run.status, 'completed');
  const text = await newest(client, thread_id);
  assert.match(text.value, /“Goods may be returned within 30 days\. .*”【4:0†policy\.md】/);
  assert.deepEqual(cited(text), [['【4:0†policy.md】', store.files['policy.md']]]);

  const [step] = await collect(threads.runs.steps.list(...at(thread_id, run.id, { order: 'asc' })));
  const [plain] = step.step_details.tool_calls[0].file_search.results;
  assert.deepEqual([plain.file_name, plain.content], ['policy.md', undefined]);
  const read = await threads.runs.steps.retrieve(...atStep(thread_id, run.id, step.id, { include: CONTENT }));
  assert.match(read.step_details.tool_calls[0].file_search.results[0].content[0].text, /store credit/);
});

promise('a streamed answer has its citation in one piece', async ({ client, threads }) => {
  const store = await library(client);
  const { assistant_id, thread_id } = await librarian(client, 'What is the cat called?', store.id);
  const begun = [];
  const deltas = [];
  const stream = threads.runs
    .stream(thread_id, { assistant_id, include: CONTENT })
    .on('toolCallCreated', (call) => begun.push(call.type))
    // The SDK merges later deltas into the first one.
    .on('textDelta', (delta) => deltas.push({ value: delta.value, marked: delta.annotations?.length > 0 }));
  const [message] = await stream.finalMessages();
  assert.deepEqual(begun, ['file_search']);
  const { text } = message.content[0];
  assert.equal(text.value, (await newest(client, thread_id)).value);
  assert.deepEqual(cited(text), [['【4:0†cat.html】', store.files['cat.html']]]);
  assert.equal(deltas.map((delta) => delta.value).join(''), text.value);
  const marked = deltas.filter((delta) => delta.marked);
  assert.deepEqual(marked.map((delta) => delta.value), ['【4:0†cat.html】']);
  const [step] = await stream.finalRunSteps();
  assert.match(step.step_details.tool_calls[0].file_search.results[0].content[0].text, /Miso/);
});

promise('an attached file is searched once it is indexed', async ({ client, threads }) => {
  const file = await sdk.toFile(Buffer.from('The cashier is in room 12.'), 'bills.txt');
  const { id: file_id } = await client.files.create({ file, purpose: 'assistants' });
  const attachments = [{ file_id, tools: [SEARCH] }];
  const { assistant_id, thread_id } = await librarian(client, 'Where is the cashier?', undefined, attachments);
  await threads.runs.createAndPoll(thread_id, { assistant_id });
  assert.deepEqual(cited(await newest(client, thread_id)), [['【4:0†bills.txt】', file_id]]);
});

promise('words and meaning find their passages', async ({ client }) => {
  const { id } = await library(client);
  assert.equal((await names(client, id, 'ERR-4711'))[0], 'errors.txt');
  assert.equal((await names(client, id, 'our feline colleague'))[0], 'cat.html');
  const page = await storesOf(client).search(id, {
    query: ['return of goods', 'ERR-4712'],
    max_num_results: 2,
    rewrite_query: true,
    ranking_options: { ranker: 'auto', score_threshold: 0 },
  });
  assert.deepEqual(page.data.map((result) => result.filename).sort(), ['errors.txt', 'policy.md']);
  const [first, second] = page.data;
  assert.ok(first.score >= second.score && first.score <= 1 && second.score >= 0);
});

promise('searches are filtered by attributes', async ({ client }) => {
  const stores = storesOf(client);
  const { id } = await stores.create({});
  const kept = { a: { lang: 'de', year: 2020 }, b: { lang: 'en', year: 2021 }, c: { lang: 'de', year: 2022 } };
  for (const [name, attributes] of Object.entries(kept)) {
    const file = await asFile([`${name}.txt`, `Report ${name} about turtles.`]);
    const { id: file_id } = await client.files.create({ file, purpose: 'assistants' });
    await stores.files.createAndPoll(id, { file_id, attributes });
  }
  const compare = (key, type, value) => ({ key, type, value });
  for (const [filters, expected] of [
    [compare('lang', 'eq', 'de'), 'ac'],
    [compare('lang', 'ne', 'de'), 'b'],
    [compare('year', 'gt', 2020), 'bc'],
    [compare('year', 'gte', 2022), 'c'],
    [compare('year', 'lt', 2021), 'a'],
    [compare('year', 'lte', 2021), 'ab'],
    [compare('year', 'in', [2020, 2021]), 'ab'],
    [compare('lang', 'nin', ['de']), 'b'],
    [{ type: 'and', filters: [compare('lang', 'eq', 'de'), compare('year', 'gt', 2020)] }, 'c'],
    [{ type: 'or', filters: [compare('lang', 'eq', 'en'), compare('year', 'eq', 2020)] }, 'ab'],
  ]) {
    const found = await names(client, id, 'turtles', { filters });
    assert.equal(found.map((name) => name[0]).sort().join(''), expected, JSON.stringify(filters));
  }
});

promise('files that are gone are not found', async ({ client }) => {
  const store = await library(client);
  await remove(storesOf(client).files, ...within(store.id, store.files['cat.html']));
  await remove(client.files, store.files['errors.txt']);
  assert.deepEqual(await names(client, store.id, 'the cat of ERR-4711'), ['policy.md']);
  await remove(storesOf(client), store.id);
  await assert.rejects(names(client, store.id, 'cat'), OpenAI.NotFoundError);
});

promise('a file that is no document fails', async ({ client }) => {
  const stores = storesOf(client);
  const { id } = await stores.create({});
  const noise = await sdk.toFile(Buffer.from(Array.from({ length: 2000 }, (_, n) => n % 256)), 'noise.bin');
  const file = await stores.files.uploadAndPoll(id, noise);
  assert.equal(file.status, 'failed');
  assert.match(file.last_error.code, /^(unsupported_file|invalid_file)$/);
});
