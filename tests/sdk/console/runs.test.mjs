// The list of runs, the page of a run, and the way to any id. Each test fails on any error of the browser's
// console, report of its policy and unhandled rejection.

import assert from 'node:assert/strict';
import { after, before } from 'node:test';
import { seed } from './scene.mjs';
import { api, key, launch, origin, pageTest } from './support.mjs';

const client = api();
let browser;
let scene;

before(async () => {
  browser = await launch();
  scene = await seed(client);
});
after(() => browser?.close());

const pages = () => browser;
const rowOf = (page, id) => page.getByRole('row').filter({ has: page.locator(`a[href$="/${id}"]`) });

pageTest(
  pages,
  'a server with keys asks for one, and keeps it for the tab alone',
  { keys: {}, expected: [/401/] },
  async ({ page, open }) => {
    await open('/runs');
    await page.getByLabel('API key').fill('sk-of-nobody');
    await page.getByRole('button', { name: 'Open' }).click();
    await page.getByText('Incorrect API key provided').waitFor();
    await page.getByLabel('API key').fill(key);
    await page.getByRole('button', { name: 'Open' }).click();
    await rowOf(page, scene.done.id).waitFor();
    assert.equal(await page.evaluate(() => sessionStorage.getItem('assistd.key')), key);
    assert.equal(await page.evaluate(() => JSON.stringify({ ...localStorage }) + document.cookie), '{}');
    await page.reload();
    await rowOf(page, scene.done.id).waitFor();
  },
);

pageTest(pages, 'runs are filtered, and the address keeps the filters', {}, async ({ page, open }) => {
  await open('/runs');
  await rowOf(page, scene.done.id).waitFor();
  assert.match(await rowOf(page, scene.failed.id).textContent(), /failed.*The model server closed the connection/s);
  assert.match(await rowOf(page, scene.done.id).textContent(), /order 4711/);
  await page.getByRole('button', { name: /^failed/ }).click();
  await rowOf(page, scene.done.id).waitFor({ state: 'detached' });
  await rowOf(page, scene.failed.id).waitFor();
  assert.match(page.url(), /status=failed/);
  await page.reload();
  await rowOf(page, scene.failed.id).waitFor();
  assert.equal(await rowOf(page, scene.done.id).count(), 0);
  await page.getByRole('button', { name: 'Clear' }).click();
  await page.getByLabel('Metadata').fill('order=4711');
  await rowOf(page, scene.failed.id).waitFor({ state: 'detached' });
  await rowOf(page, scene.done.id).waitFor();
  await page.getByLabel('Metadata').fill('order=none');
  await page.getByText('No run matches').waitFor();
});

pageTest(pages, 'the list of runs is live, and cancels', {}, async ({ page, open }) => {
  await open('/runs');
  await rowOf(page, scene.done.id).waitFor();
  const run = await client.run(scene.slow, 'Tell me', { isDone: false });
  await rowOf(page, run.id).getByRole('button', { name: 'Cancel' }).click();
  await rowOf(page, run.id).getByText('cancelled').waitFor();
});

pageTest(pages, 'a run shows its code, logs and pictures', {}, async ({ page, open }) => {
  await open(`/runs/${scene.coded.id}`);
  await page.getByText('plt.plot([1, 3, 2])').first().waitFor();
  await page.getByText('4', { exact: true }).first().waitFor();
  const picture = page.getByRole('img', { name: 'Picture made by the code' });
  await picture.waitFor();
  assert.ok(await picture.evaluate((image) => image.naturalWidth > 100));
  assert.match(await picture.getAttribute('src'), /^blob:/);
  const download = page.waitForEvent('download');
  await page.getByRole('button', { name: 'Download', exact: true }).last().click();
  assert.equal((await download).suggestedFilename(), 'out.csv');
  await page.getByRole('tab', { name: 'JSON' }).click();
  await page.getByText(`"id": "${scene.coded.id}"`).first().waitFor();
  await page.getByRole('tab', { name: 'Code' }).click();
  await page.getByText(`/threads/${scene.coded.thread_id}/runs`).waitFor();
  await page.getByRole('tab', { name: 'Python' }).click();
  await page.getByText('client.beta.threads.runs.stream').waitFor();
});

pageTest(pages, 'a search shows its query, scores and chunks, and a citation opens its chunk', {}, async ({ page, open }) => {
  await open(`/runs/${scene.searched.id}`);
  const call = page.getByRole('region', { name: 'File search' });
  await call.getByText('Who likes cake?').waitFor();
  await call.getByText('Ana likes cake. Bert likes coffee.').waitFor();
  assert.ok(Number(await call.locator('meter').first().getAttribute('value')) > 0.3);
  await page.getByRole('button', { name: 'Citation 1' }).click();
  await page.getByRole('complementary', { name: 'Citation' }).getByText('Ana likes cake').waitFor();
});

pageTest(pages, 'a run says in words why it failed', {}, async ({ page, open }) => {
  await open(`/runs/${scene.failed.id}`);
  const why = page.getByRole('region', { name: 'Why it failed' });
  await why.getByText('The model server or this server failed.').waitFor();
  await why.getByText(scene.failed.last_error.message).waitFor();
});

pageTest(pages, 'tool outputs are submitted, and the run goes on while it is watched', {}, async ({ page, open }) => {
  const run = await client.run(scene.weather, 'weather in Oslo');
  await open(`/runs/${run.id}`);
  await page.getByText('It waits for the application to submit the outputs of 1 function call').waitFor();
  await page.getByText('"city": "Oslo"').first().waitFor();
  await page.getByLabel('Output of get_weather').fill('{"sky": "<b>clear</b>"}');
  await page.getByRole('button', { name: 'Submit the output' }).click();
  await page.getByText('The weather: {"sky": "<b>clear</b>"}.').waitFor();
  await page.getByRole('heading', { name: 'Run completed' }).waitFor();
});

pageTest(pages, 'a run is followed as it writes', {}, async ({ page, open }) => {
  const run = await client.run(scene.slow, 'Tell me', { isDone: false });
  await open(`/runs/${run.id}`);
  await page.getByText(/^One two three/).waitFor();
  await page.getByText('Live').waitFor();
  const length = () => page.locator('.markdown').evaluate((element) => element.textContent.length);
  const before = await length();
  await page.waitForFunction((before) => document.querySelector('.markdown').textContent.length > before, before);
  await page.getByRole('button', { name: 'Cancel' }).click();
  await page.getByRole('heading', { name: 'Run cancelled' }).waitFor();
});

pageTest(pages, 'any id leads to its page', { expected: [/404/] }, async ({ page, open }) => {
  const thread = scene.searched.thread_id;
  const [step] = (await client.get(`/v1/threads/${thread}/runs/${scene.searched.id}/steps`)).data;
  const [message] = (await client.get(`/v1/threads/${thread}/messages`)).data;
  await open('/runs');
  for (const [id, address] of [
    [scene.done.id, `/runs/${scene.done.id}`],
    [step.id, `/runs/${scene.searched.id}?step=${step.id}`],
    [thread, `/threads/${thread}`],
    [message.id, `/threads/${thread}?message=${message.id}`],
    [scene.echo.id, `/assistants/${scene.echo.id}`],
    [scene.store.id, `/vector-stores/${scene.store.id}`],
    [scene.file.id, `/files/${scene.file.id}`],
  ]) {
    await page.getByLabel('Go to an id').fill(id);
    await page.keyboard.press('Enter');
    await page.waitForURL(`${origin}/console${address}`);
    await page.getByRole('heading', { level: 1 }).waitFor();
  }
  await page.getByLabel('Go to an id').fill('run_none');
  await page.keyboard.press('Enter');
  await page.getByText("No run found with id 'run_none'").waitFor();
});

pageTest(pages, 'a hidden tab asks the server for nothing, and catches up when it is shown', {}, async ({ page, open }) => {
  await page.clock.install();
  await open('/runs');
  await rowOf(page, scene.done.id).waitFor();
  const show = (isHidden) =>
    page.evaluate((isHidden) => {
      Object.defineProperty(document, 'hidden', { configurable: true, get: () => isHidden });
      document.dispatchEvent(new Event('visibilitychange'));
    }, isHidden);
  await show(true);
  let requests = 0;
  page.on('request', () => (requests += 1));
  const run = await client.run(scene.echo, 'While nobody looks');
  await page.clock.runFor(60_000);
  assert.equal(requests, 0);
  await show(false);
  await rowOf(page, run.id).waitFor();
});
