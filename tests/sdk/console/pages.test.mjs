// All pages but those of runs. Each test fails on any error of the browser's console, report of its policy
// and unhandled rejection.

import assert from 'node:assert/strict';
import { readFile } from 'node:fs/promises';
import { createServer } from 'node:http';
import { execFileSync } from 'node:child_process';
import { after, before } from 'node:test';
import { seed } from './scene.mjs';
import { adminKey, api, launch, pageTest, startServer } from './support.mjs';

const client = api();
let browser;
let scene;

before(async () => {
  browser = await launch();
  scene = await seed(client);
});
after(() => browser?.close());

const pages = () => browser;
const rowOf = (page, text) => page.getByRole('row').filter({ hasText: text });
const confirm = async (page, name) => {
  await page.getByRole('button', { name, exact: true }).click();
  await page.getByRole('dialog').getByRole('button', { name, exact: true }).click();
};

pageTest(pages, 'a thread shows its conversation, and continues it', {}, async ({ page, open }) => {
  await open('/threads');
  await page.locator(`a[href$="${scene.done.thread_id}"]`).click();
  await page.getByText('You said: Hello').waitFor();
  await page.getByLabel('Message', { exact: true }).fill('And *again*');
  await page.getByRole('button', { name: 'Send and run' }).click();
  await page.getByText('You said: And').waitFor();
  await page.locator('.messages > .message.assistant').nth(1).waitFor();
  await page.getByRole('tab', { name: 'Runs' }).click();
  await rowOf(page, scene.done.id).waitFor();
});

pageTest(pages, 'threads are found by their metadata, which can be changed', {}, async ({ page, open }) => {
  const thread = await client.post('/v1/threads', { metadata: { user: 'ada lovelace' } });
  await open('/threads?metadata=user%3Dada+lovelace');
  await page.getByRole('link', { name: thread.id }).click();
  await page.getByRole('button', { name: 'Edit' }).click();
  await page.getByLabel('Pairs').fill('user=grace\nteam=a=b');
  await page.getByRole('button', { name: 'Save' }).click();
  await page.getByText('a=b').waitFor();
  assert.deepEqual((await client.get(`/v1/threads/${thread.id}`)).metadata, { user: 'grace', team: 'a=b' });
});

pageTest(pages, 'a thread is exported and deleted', {}, async ({ page, open }) => {
  const run = await client.run(scene.echo, 'Keep this');
  await open(`/threads/${run.thread_id}`);
  await page.getByText('You said: Keep this').waitFor();
  const download = page.waitForEvent('download');
  await page.getByRole('button', { name: 'Export' }).click();
  const exported = JSON.parse(await readFile(await (await download).path(), 'utf8'));
  assert.equal(exported.messages.length, 2);
  assert.equal(exported.runs[0].id, run.id);
  await confirm(page, 'Delete');
  await page.waitForURL('**/console/threads');
  const left = await client.get('/v1/threads?limit=100');
  assert.ok(left.data.every(({ id }) => id !== run.thread_id));
});

pageTest(pages, 'the playground runs a draft, shows its tool calls, and gives the code', {}, async ({ page, open }) => {
  await open('/playground');
  await page.getByLabel('Model').fill('scripted/coder');
  await page.getByLabel('Code interpreter').check();
  await page.getByLabel('Message', { exact: true }).fill('Draw something');
  await page.getByRole('button', { name: 'Send and run' }).click();
  await page.getByText('Here is the chart.').first().waitFor();
  await page.getByText('1 step with tool calls').click();
  await page.getByText('plt.plot([1, 3, 2])').first().waitFor();
  assert.match(page.url(), /thread=thread_/);
  await page.getByRole('button', { name: 'Get the code' }).click();
  await page.getByRole('dialog').getByText('"model": "scripted/coder"').waitFor();
  await page.keyboard.press('Escape');
  await page.reload();
  await page.getByText('Here is the chart.').waitFor();
});

pageTest(pages, 'the playground stops for tool outputs and goes on', {}, async ({ page, open }) => {
  await open(`/playground?assistant=${scene.weather.id}`);
  await page.getByLabel('Message', { exact: true }).fill('weather in Rome');
  await page.keyboard.press('Control+Enter');
  await page.getByLabel('Output of get_weather').fill('sunny');
  // The run is over before the page asks for it again.
  const thread = new URL(page.url()).searchParams.get('thread');
  await page.route('**/v1/objects/run_*', async (route) => {
    await client.until(`/v1/threads/${thread}/runs`, ({ data }) => data[0].status === 'completed');
    await route.continue();
  });
  await page.getByRole('button', { name: 'Submit the output' }).click();
  await page.locator('.messages').getByText('The weather: sunny.').waitFor();
});

pageTest(pages, 'an assistant is created with checked functions, changed, duplicated and deleted', {}, async ({ page, open }) => {
  await open('/assistants');
  await page.getByRole('link', { name: 'New assistant' }).click();
  await page.getByLabel('Name').fill('Desk');
  await page.getByLabel('Model').fill('scripted/echo');
  await page.getByLabel('Functions').fill('[{"name": "find", "parameters": {"type": "object", "properties": {"a": {"type": "text"}}}}]');
  await page.getByText('find.a: there is no type "text".').first().waitFor();
  assert.ok(await page.getByRole('button', { name: 'Create' }).isDisabled());
  await page.getByLabel('Functions').fill('[{"name": "find", "parameters": {"type": "object", "properties": {}}}]');
  await page.getByRole('button', { name: 'Create' }).click();
  await page.getByRole('heading', { name: 'Desk' }).waitFor();
  await page.waitForURL('**/assistants/asst_*');
  const id = page.url().split('/').at(-1);
  assert.equal((await client.get(`/v1/assistants/${id}`)).tools[0].function.name, 'find');
  await page.getByLabel('Instructions').fill('Be brief.');
  await page.getByRole('button', { name: 'Save' }).click();
  await page.getByText('Saved.').waitFor();
  await page.getByRole('button', { name: 'Duplicate' }).click();
  await page.getByRole('heading', { name: 'Desk (copy)' }).waitFor();
  const copy = page.url().split('/').at(-1);
  assert.equal((await client.get(`/v1/assistants/${copy}`)).instructions, 'Be brief.');
  await confirm(page, 'Delete');
  await page.waitForURL('**/console/assistants');
  await rowOf(page, 'Desk').first().waitFor();
  assert.equal(await page.getByRole('link', { name: 'Desk (copy)' }).count(), 0);
});

pageTest(pages, 'a vector store takes files, says what failed, retries and searches', {}, async ({ page, open }) => {
  await open('/vector-stores');
  await page.getByRole('button', { name: 'New vector store' }).click();
  await page.waitForURL('**/vector-stores/vs_*');
  await page.getByLabel('Upload and add files').setInputFiles([
    { name: 'cakes.md', mimeType: 'text/markdown', buffer: Buffer.from('Dora bakes a lemon cake.') },
    { name: 'empty.txt', mimeType: 'text/plain', buffer: Buffer.from('') },
  ]);
  await rowOf(page, 'cakes.md').getByText('completed').waitFor();
  const failed = rowOf(page, 'empty.txt');
  await failed.getByText('failed').waitFor();
  await failed.locator('.bad-text').waitFor();
  await failed.getByRole('button', { name: 'Retry' }).click();
  await failed.getByText('failed').waitFor();
  await rowOf(page, 'cakes.md').getByRole('button', { name: 'Text' }).click();
  await page.getByRole('dialog').getByText('Dora bakes a lemon cake.').waitFor();
  await page.keyboard.press('Escape');
  await failed.getByRole('button', { name: 'Remove' }).click();
  await page.getByRole('dialog').getByRole('button', { name: 'Remove' }).click();
  await failed.waitFor({ state: 'detached' });
  await page.getByRole('tab', { name: 'Search' }).click();
  await page.getByLabel('Question or words').fill('Who bakes?');
  await page.getByRole('button', { name: 'Search' }).click();
  await page.getByText('Dora bakes a lemon cake.').waitFor();
  await page.getByRole('tab', { name: 'Settings' }).click();
  await page.getByLabel('Expires after days without use').fill('7');
  await page.getByRole('button', { name: 'Save' }).click();
  await page.locator('dt', { hasText: 'Expires' }).waitFor();
});

pageTest(pages, 'files are uploaded, shown without being opened, downloaded and deleted', {}, async ({ page, open }) => {
  await open('/files');
  const text = '<script>alert(1)</script> é';
  await page.getByLabel('Upload files').setInputFiles({ name: 'page.html', mimeType: 'text/html', buffer: Buffer.from(text) });
  await page.getByRole('link', { name: 'page.html' }).first().click();
  await page.getByText(text).waitFor();
  const download = page.waitForEvent('download');
  await page.getByRole('button', { name: 'Download' }).click();
  assert.equal(await readFile(await (await download).path(), 'utf8'), text);
  await confirm(page, 'Delete');
  await page.waitForURL('**/console/files');
});

pageTest(
  pages,
  'the admin key opens projects, keys, limits, usage and the audit log',
  { keys: {}, expected: [/401/] },
  async ({ page, open }) => {
    await open('/admin');
    await page.getByLabel('Admin key').fill(adminKey);
    await page.getByRole('button', { name: 'Open' }).click();
    const name = `desk-${Date.now()}`;
    await page.getByLabel('Name of the new project').fill(name);
    await page.getByRole('button', { name: 'New project' }).click();
    await rowOf(page, name).getByRole('button', { name: 'Keys' }).click();
    await page.getByRole('button', { name: 'New key' }).click();
    const value = await page.getByRole('dialog').locator('.note code').textContent();
    await api(undefined, value).get('/v1/assistants');
    await page.keyboard.press('Escape');
    await rowOf(page, name).getByRole('button', { name: 'Keys' }).click();
    await page.getByRole('dialog').getByText('default').waitFor();
    assert.equal(await page.getByText(value).count(), 0, 'a key is shown once');
    await page.keyboard.press('Escape');
    await rowOf(page, name).getByRole('button', { name: 'Edit' }).click();
    await page.getByLabel('Runs at a time').fill('20');
    await page.getByRole('button', { name: 'Save' }).click();
    await rowOf(page, name).getByText('20 runs').waitFor();
    await page.getByRole('tab', { name: 'Usage' }).click();
    await page.getByRole('table', { name: 'Usage by project and model' }).getByText('scripted/echo').first().waitFor();
    await page.getByRole('img', { name: /Tokens by day/ }).waitFor();
    await page.getByRole('tab', { name: 'Audit log' }).click();
    await rowOf(page, 'project.updated').first().waitFor();
  },
);

pageTest(pages, 'webhook deliveries are shown and made again', { keys: { admin: adminKey }, expected: [/401/] }, async ({ page, open }) => {
  const received = [];
  const receiver = createServer((request, response) => {
    received.push(request.headers['webhook-id']);
    request.resume();
    response.end();
  });
  await new Promise((resolve) => receiver.listen(0, '127.0.0.1', resolve));
  try {
    const url = `http://127.0.0.1:${receiver.address().port}/hook`;
    const command = ['webhooks', 'add', '--project', process.env.SDK_PROJECT, '--url', url, '--events', 'thread.run.completed'];
    execFileSync(process.env.SDK_SERVER, command, {
      env: { ...process.env, ASSISTD_DATA_DIR: process.env.SDK_DATA_DIR },
      stdio: 'pipe',
    });
    await client.run(scene.echo, 'Hello');
    await open('/admin/webhooks');
    await rowOf(page, url).getByRole('button', { name: 'Deliveries' }).click();
    await rowOf(page, 'thread.run.completed').getByText('delivered').waitFor();
    await rowOf(page, 'thread.run.completed').getByRole('button', { name: 'Redeliver' }).click();
    while (received.length < 2) await new Promise((resolve) => setTimeout(resolve, 50));
    assert.equal(received[0], received[1]);
  } finally {
    receiver.close();
  }
});

pageTest(pages, 'the health page shows queues, and asks the upstreams', { keys: { admin: adminKey }, expected: [/401/] }, async ({ page, open }) => {
  await open('/health');
  await page.getByText('It is ready').waitFor();
  await page.getByRole('region', { name: 'Database' }).getByText('ok').waitFor();
  await page.getByRole('button', { name: 'Ask every upstream' }).click();
  await page.getByRole('region', { name: 'Models' }).getByText('built in').waitFor();
  await page.getByRole('region', { name: 'Models' }).getByText('ok').first().waitFor();
});

pageTest(pages, 'a keyless server opens at once, and a live view survives its restart', { keys: {}, expected: [/ERR_|Failed to load/] }, async ({ page }) => {
  const server = await startServer();
  try {
    const own = api(server.origin, 'none');
    const echo = await own.post('/v1/assistants', { model: 'scripted/slow' });
    await page.goto(`${server.origin}/`);
    await page.getByText('No runs yet').waitFor();
    const run = await own.run(echo, 'Tell me', { isDone: false });
    await page.getByRole('link', { name: run.id }).click();
    await page.getByText(/^One two three/).waitFor();
    await server.halt();
    await page.getByText('Reconnecting…').waitFor();
    await server.resume();
    await page.getByText('Live').waitFor();
    await page.getByRole('button', { name: 'Cancel' }).click();
    await page.getByRole('heading', { name: 'Run cancelled' }).waitFor();
  } finally {
    await page.goto('about:blank');
    await server.stop();
  }
});
