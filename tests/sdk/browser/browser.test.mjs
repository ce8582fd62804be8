// openai-node in pages in Chromium, some of which must be refused. The environment tells where things
// are: SDK_PACKAGE (a folder with node_modules), SDK_SERVER_URL, SDK_API_KEY, SDK_SERVER (the program), and
// optionally CHROMIUM (the browser).

import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { accessSync, constants, mkdtempSync, rmSync } from 'node:fs';
import { createServer } from 'node:http';
import { createRequire } from 'node:module';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { after, before, test } from 'node:test';
import { createInterface } from 'node:readline';

const require = createRequire(path.join(process.env.SDK_PACKAGE, '/'));
const esbuild = require('esbuild');
const { chromium } = require('playwright-core');

const key = process.env.SDK_API_KEY;
const serverUrl = process.env.SDK_SERVER_URL;
const FLAGS = [
  '--no-sandbox',
  '--disable-gpu',
  '--disable-quic',
  '--no-first-run',
  '--disable-background-networking',
  '--disable-component-update',
  '--disable-sync',
];
// The listed origin and unlisted ones. All resolve to `pages`.
const LISTED = 'http://app.example';
const FOREIGN = ['http://evil.example', 'http://intranet', 'http://printer.local', 'http://app.test'];
// A foreign name that resolves to the server without API keys (DNS rebinding).
const REBOUND = 'http://rebound.example';

let browser;
let pages;
let keyless;

before(async () => {
  pages = await servePages(await bundle());
  keyless = await startKeyless();
  const port = new URL(keyless.origin).port;
  const rules = [
    ...[LISTED, ...FOREIGN].map((url) => `MAP ${new URL(url).host}:80 127.0.0.1:${pages.address().port}`),
    `MAP ${new URL(REBOUND).host}:80 127.0.0.1:${port}`,
  ];
  browser = await chromium.launch({
    executablePath: chromiumProgram(),
    args: [...FLAGS, `--host-resolver-rules=${rules.join(',')}`],
  });
});

after(async () => {
  await browser?.close();
  pages?.close();
  await keyless?.stop();
});

function chromiumProgram() {
  const programs = process.env.CHROMIUM ? [process.env.CHROMIUM] : ['/usr/bin/chromium', '/usr/bin/chromium-browser'];
  for (const program of programs) {
    try {
      accessSync(program, constants.X_OK);
      return program;
    } catch {
      // Tries the next path.
    }
  }
  throw new Error(
    `There is no Chromium at ${programs.join(' or ')}: install the package chromium, or set CHROMIUM to a browser.`,
  );
}

async function bundle() {
  const result = await esbuild.build({
    stdin: {
      contents: "export { default as OpenAI } from 'openai';",
      resolveDir: process.env.SDK_PACKAGE,
    },
    bundle: true,
    format: 'iife',
    globalName: 'sdk',
    platform: 'browser',
    write: false,
  });
  return result.outputFiles[0].text;
}

async function servePages(script) {
  const server = createServer((request, response) => {
    const isScript = request.url === '/sdk.js';
    response.setHeader('content-type', isScript ? 'text/javascript' : 'text/html');
    response.end(isScript ? script : '<!doctype html><title>page</title><script src="/sdk.js"></script>');
  });
  await new Promise((resolve) => server.listen(0, '127.0.0.1', resolve));
  return server;
}

// A server without API keys.
async function startKeyless() {
  const folder = mkdtempSync(path.join(tmpdir(), 'assistd-browser-'));
  const isOurs = ([name]) => !/^(ASSISTD_|OPENAI_|DATABASE_URL)/.test(name);
  const child = spawn(process.env.SDK_SERVER, ['serve'], {
    env: {
      ...Object.fromEntries(Object.entries(process.env).filter(isOurs)),
      ASSISTD_LISTEN: '127.0.0.1:0',
      ASSISTD_DATA_DIR: path.join(folder, 'data'),
      ASSISTD_SANDBOX: 'off',
      ASSISTD_EMBEDDING_MODEL: 'off',
      ASSISTD_CONSOLE: 'false',
    },
    stdio: ['ignore', 'pipe', 'pipe'],
  });
  let log = '';
  child.stderr.on('data', (text) => (log += text));
  const ended = new Promise((resolve) => child.on('exit', resolve));
  const started = new Promise((resolve) => {
    createInterface({ input: child.stdout }).on('line', (line) => {
      const address = line.match(/Base URL +(http:\S+)\/v1/);
      if (address) resolve(address[1]);
    });
  });
  const origin = await Promise.race([started, ended.then(() => undefined)]);
  assert.ok(origin, `the server did not start: ${log}`);
  const stop = async () => {
    child.kill('SIGTERM');
    await ended;
    rmSync(folder, { recursive: true, force: true });
  };
  return { origin, stop };
}

function browserTest(name, body) {
  test(name, { timeout: 120_000 }, async () => {
    const context = await browser.newContext();
    try {
      await body(await context.newPage());
    } finally {
      await context.close();
    }
  });
}

// Only browsers are refused, so this program may read.
async function assistantsOf(origin) {
  const response = await fetch(`${origin}/v1/assistants`, { headers: { authorization: 'Bearer any' } });
  assert.equal(response.status, 200);
  return (await response.json()).data;
}

browserTest('a page of a listed origin holds a conversation, uploads a file and reads headers', async (page) => {
  await page.goto(LISTED);
  const seen = await page.evaluate(
    async ({ baseURL, apiKey }) => {
      const client = new sdk.OpenAI({ apiKey, baseURL, dangerouslyAllowBrowser: true });
      const assistant = await client.beta.assistants.create({ model: 'scripted/echo' });
      const thread = await client.beta.threads.create({ messages: [{ role: 'user', content: 'Hi' }] });
      let text = '';
      const stream = client.beta.threads.runs.stream(thread.id, { assistant_id: assistant.id });
      stream.on('textDelta', (delta) => (text += delta.value));
      const run = await stream.finalRun();
      const file = await client.files.create({ file: new File(['text'], 'page.txt'), purpose: 'assistants' });
      const { response } = await client.beta.threads.retrieve(thread.id).withResponse();
      const missing = await client.beta.assistants.retrieve('asst_none').catch((error) => error);
      const deleted = await client.beta.assistants.delete(assistant.id);
      return {
        text,
        status: run.status,
        filename: file.filename,
        requestId: response.headers.get('x-request-id'),
        version: response.headers.get('openai-version'),
        missing: [missing.status, missing.message, missing.requestID],
        deleted: deleted.deleted,
      };
    },
    { baseURL: `${serverUrl}/v1`, apiKey: key },
  );
  assert.equal(seen.text, 'You said: Hi');
  assert.equal(seen.status, 'completed');
  assert.equal(seen.filename, 'page.txt');
  assert.match(seen.requestId, /^req_/);
  assert.equal(seen.version, '2020-10-01');
  assert.equal(seen.missing[0], 404);
  assert.match(seen.missing[1], /No assistant found with id 'asst_none'/);
  assert.match(seen.missing[2], /^req_/);
  assert.equal(seen.deleted, true);
});

browserTest('a page of another origin reads nothing, even with a key', async (page) => {
  await page.goto(FOREIGN[0]);
  const failure = await page.evaluate(
    async ({ baseURL, apiKey }) => {
      const client = new sdk.OpenAI({ apiKey, baseURL, dangerouslyAllowBrowser: true, maxRetries: 0 });
      return client.beta.assistants.list().then(
        () => 'it was answered',
        (error) => error.message,
      );
    },
    { baseURL: `${serverUrl}/v1`, apiKey: key },
  );
  assert.equal(failure, 'Connection error.');
});

for (const origin of FOREIGN) {
  browserTest(`a form of ${origin} creates nothing on a server without keys`, async (page) => {
    await page.goto(origin);
    // Simulates browsers that send the credentials of a URL without a challenge.
    await page.setExtraHTTPHeaders({ authorization: 'Bearer any' });
    const answered = page.waitForResponse((response) => response.url().includes('/v1/assistants'));
    await page.evaluate((action) => {
      const form = document.createElement('form');
      Object.assign(form, { action, method: 'POST', enctype: 'text/plain' });
      // Encodes a JSON object as `name=value`.
      const field = Object.assign(document.createElement('input'), {
        name: '{"model":"scripted/hello","name":"',
        value: '"}',
      });
      form.append(field);
      document.body.append(form);
      form.submit();
    }, `${keyless.origin}/v1/assistants`);
    assert.equal((await answered).status(), 403);
    assert.deepEqual(await assistantsOf(keyless.origin), []);
  });

  browserTest(`scripts and pictures of ${origin} do nothing on a server without keys`, async (page) => {
    await page.goto(origin);
    const outcomes = await page.evaluate(async (url) => {
      const body = '{"model":"scripted/hello"}';
      const attempt = (init) =>
        fetch(url, { method: 'POST', body, ...init }).then(
          (response) => response.type,
          () => 'failed',
        );
      const headers = { authorization: 'Bearer any', 'content-type': 'application/json' };
      const picture = new Promise((resolve) => {
        const image = new Image();
        image.onload = () => resolve('loaded');
        image.onerror = () => resolve('failed');
        image.src = url;
      });
      return [await attempt({ headers }), await attempt({ mode: 'no-cors' }), await picture];
    }, `${keyless.origin}/v1/assistants`);
    // A script cannot read an opaque response.
    assert.deepEqual(outcomes, ['failed', 'opaque', 'failed']);
    assert.deepEqual(await assistantsOf(keyless.origin), []);
  });
}

browserTest('a name that its owner points at a server without keys opens nothing', async (page) => {
  await page.setExtraHTTPHeaders({ authorization: 'Bearer any' });
  const refused = await page.goto(`${REBOUND}/v1/assistants`);
  assert.equal(refused.status(), 403);
  const allowed = await page.goto(`${keyless.origin}/v1/assistants`);
  assert.equal(allowed.status(), 200);
});

browserTest('a browser at the root sees a page that its policy lets be styled', async (page) => {
  const problems = [];
  page.on('console', (message) => message.type() === 'error' && problems.push(message.text()));
  const requests = [];
  page.on('request', (request) => requests.push(request.url()));
  const response = await page.goto(`${keyless.origin}/`);
  assert.equal(response.status(), 200);
  assert.match(await page.textContent('h1'), /^assistd \d/);
  assert.equal(await page.textContent('pre'), `${keyless.origin}/v1`);
  const width = await page.locator('body').evaluate((body) => getComputedStyle(body).maxWidth);
  assert.notEqual(width, 'none');
  if (process.env.SCREENSHOT) await page.screenshot({ path: process.env.SCREENSHOT });
  await page.click('a[href="/openapi.json"]');
  await page.waitForURL('**/openapi.json');
  const isOwn = (url) => url.startsWith(keyless.origin);
  assert.deepEqual(requests.filter((url) => !isOwn(url)), []);
  assert.deepEqual(problems.filter((text) => text.includes('Content Security Policy')), []);
});
