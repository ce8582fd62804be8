// Every page with hostile texts, by axe-core's rules, and as pictures in a folder.

import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import path from 'node:path';
import { after, before, test } from 'node:test';
import { HOSTILE, seed } from './scene.mjs';
import { adminKey, api, key, launch, openPage, pageTest, require, screenshots, startServer } from './support.mjs';

const client = api();
const AXE = readFileSync(require.resolve('axe-core/axe.min.js'), 'utf8');
const LONG_WORD = 'W'.repeat(1_000_000);
let browser;
let scene;

before(async () => {
  browser = await launch();
  scene = await seed(client);
  const name = HOSTILE.slice(0, 250);
  scene.evil = await client.post('/v1/assistants', {
    model: 'scripted/echo',
    name,
    description: HOSTILE,
    instructions: HOSTILE,
    metadata: { '<b>key</b>': HOSTILE },
  });
  scene.evilRun = await client.run(scene.evil, HOSTILE, { metadata: { '<i>run</i>': HOSTILE } });
  scene.evilFile = await client.upload('<img src=x onerror=alert(1)>.txt', `${HOSTILE} cake`);
  scene.evilStore = await client.post('/v1/vector_stores', { name, metadata: { '<u>s</u>': HOSTILE } });
  await client.post(`/v1/vector_stores/${scene.evilStore.id}/files`, {
    file_id: scene.evilFile.id,
    attributes: { '<s>a</s>': HOSTILE },
  });
  scene.evilThread = await client.post('/v1/threads', {
    metadata: { '<b>t</b>': HOSTILE },
    messages: [{ role: 'user', content: HOSTILE }],
  });
  scene.waiting = await client.run(scene.weather, 'weather in Oslo');
  const outputs = (run) => run.required_action.submit_tool_outputs.tool_calls.map(({ id }) => ({ tool_call_id: id, output: HOSTILE }));
  scene.answered = await client.run(scene.weather, 'weather in Rome');
  const address = `/v1/threads/${scene.answered.thread_id}/runs/${scene.answered.id}`;
  await client.post(`${address}/submit_tool_outputs`, { tool_outputs: outputs(scene.answered) });
  await client.until(address, ({ status }) => status === 'completed');
});
after(() => browser?.close());

const views = () => ({
  runs: '/runs',
  run: `/runs/${scene.coded.id}`,
  'run-search': `/runs/${scene.searched.id}`,
  'run-failed': `/runs/${scene.failed.id}`,
  'run-waiting': `/runs/${scene.waiting.id}`,
  'run-json': `/runs/${scene.evilRun.id}?tab=json`,
  'run-code': `/runs/${scene.evilRun.id}?tab=code`,
  'run-hostile': `/runs/${scene.evilRun.id}`,
  'run-outputs': `/runs/${scene.answered.id}`,
  threads: '/threads',
  thread: `/threads/${scene.evilRun.thread_id}`,
  playground: `/playground?assistant=${scene.evil.id}&thread=${scene.evilThread.id}`,
  assistants: '/assistants',
  assistant: `/assistants/${scene.evil.id}`,
  'vector-stores': '/vector-stores',
  'vector-store': `/vector-stores/${scene.evilStore.id}`,
  files: '/files',
  file: `/files/${scene.evilFile.id}`,
  admin: '/admin',
  usage: '/admin/usage',
  webhooks: '/admin/webhooks',
  audit: '/admin/audit',
  health: '/health',
});

/** Waits until nothing is being loaded. */
async function settle(page) {
  await page.getByRole('heading', { level: 1 }).first().waitFor();
  await page.waitForFunction(() => !document.querySelector('.loading'));
}

const both = { project: key, admin: adminKey };

test('hostile texts are shown as text on every page', { timeout: 240_000 }, async () => {
  const opened = await openPage(browser, { keys: both });
  const { page, open, problems } = opened;
  for (const [name, view] of Object.entries(views())) {
    await open(view);
    await settle(page);
    const foreign = await page.evaluate(() => {
      const allowed = /^(\/console\/app\.js)$/;
      const scripts = [...document.scripts].filter((script) => !allowed.test(new URL(script.src).pathname));
      const elements = document.querySelectorAll('#app :is(script, iframe, object, embed, [onerror], [onload], a[href^="javascript:"])');
      return [...scripts, ...elements].map((element) => element.outerHTML);
    });
    assert.deepEqual(foreign, [], name);
  }
  for (const name of ['run-hostile', 'thread', 'playground', 'assistant']) {
    await open(views()[name]);
    await page.getByText('<script>alert(1)</script>').first().waitFor({ state: 'attached' });
  }
  assert.deepEqual(problems, []);
  await opened.context.close();
});

pageTest(() => browser, 'a word of a million letters leaves a page usable', {}, async ({ page, open }) => {
  const thread = await client.post('/v1/threads', { messages: [{ role: 'user', content: LONG_WORD.slice(0, 250_000) }] });
  const file = await client.upload('word.txt', LONG_WORD);
  for (const view of [`/threads/${thread.id}`, `/files/${file.id}`]) {
    await open(view);
    await page.getByText(/^WWW/).first().waitFor();
    assert.ok(await page.evaluate(() => document.documentElement.scrollWidth <= innerWidth), `${view} is wider than its window`);
  }
});

for (const theme of ['light', 'dark']) {
  test(`axe-core finds nothing serious, ${theme}`, { timeout: 240_000 }, async () => {
    // The policy forbids the page to be given another script; it is tested elsewhere.
    const opened = await openPage(browser, { keys: both, colorScheme: theme, bypassCSP: true, viewport: { width: 1280, height: 900 } });
    const found = [];
    for (const [name, view] of Object.entries(views())) {
      await opened.open(view);
      await settle(opened.page);
      await opened.page.screenshot({ path: path.join(screenshots, `${name}-${theme}.png`) });
      await opened.page.evaluate(AXE);
      const { violations } = await opened.page.evaluate(() => globalThis.axe.run(document, { resultTypes: ['violations'] }));
      for (const { id, impact, nodes } of violations) {
        if (impact !== 'serious' && impact !== 'critical') continue;
        found.push(`${name}: ${id}: ${nodes.slice(0, 3).map((node) => `${node.html.slice(0, 160)} ${node.any[0]?.message ?? ''}`).join(' | ')}`);
      }
    }
    assert.deepEqual(found, []);
    assert.deepEqual(opened.problems, []);
    await opened.context.close();
  });
}

for (const width of [390, 1000]) {
  test(`a window of ${width} points shows every page without scrolling sideways`, { timeout: 240_000 }, async () => {
    const opened = await openPage(browser, { keys: both, viewport: { width, height: 800 } });
    for (const [name, view] of Object.entries(views())) {
      await opened.open(view);
      await settle(opened.page);
      await opened.page.screenshot({ path: path.join(screenshots, `${name}-${width}.png`) });
      const tooWide = await opened.page.evaluate(() =>
        [document.documentElement, ...document.querySelectorAll('.table')]
          .filter((element) => element.scrollWidth > element.clientWidth + 1)
          .map((element) => `${element.className} ${element.scrollWidth}`),
      );
      assert.deepEqual(tooWide, [], `${name} is too wide`);
    }
    assert.deepEqual(opened.problems, []);
    await opened.context.close();
  });
}

test('a project without anything is told what to do', { timeout: 120_000 }, async () => {
  const server = await startServer();
  const opened = await openPage(browser, { at: server.origin, keys: {} });
  try {
    for (const [view, text] of [
      ['/runs', 'No runs yet'],
      ['/threads', 'No threads yet'],
      ['/playground', 'Say something'],
      ['/assistants', 'No assistants yet'],
      ['/vector-stores', 'No vector stores yet'],
      ['/files', 'No files yet'],
      ['/admin', 'The admin key, please'],
      ['/health', 'It is ready'],
    ]) {
      await opened.open(view);
      await opened.page.getByText(text).first().waitFor();
      await opened.page.screenshot({ path: path.join(screenshots, `empty${view.replace('/', '-')}.png`) });
    }
    assert.deepEqual(opened.problems, []);
  } finally {
    await opened.context.close();
    await server.stop();
  }
});

test('everything is reached by the keyboard', { timeout: 60_000 }, async () => {
  const opened = await openPage(browser);
  const { page, open } = opened;
  await open('/runs');
  await page.getByRole('row').nth(1).waitFor();
  await page.keyboard.press('/');
  await page.keyboard.type(scene.done.id);
  await page.keyboard.press('Enter');
  await page.getByRole('heading', { level: 1, name: 'Run completed' }).waitFor();
  await page.getByRole('tab', { name: /^Steps/ }).focus();
  await page.keyboard.press('ArrowRight');
  await page.getByRole('heading', { name: 'Instructions' }).waitFor();
  assert.equal(await page.evaluate(() => document.activeElement.textContent), 'Settings');
  assert.deepEqual(opened.problems, []);
  await opened.context.close();
});
