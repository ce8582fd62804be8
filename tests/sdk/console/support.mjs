// A browser whose pages may report nothing wrong, and a client of the server beside it.

import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { accessSync, constants, mkdirSync, mkdtempSync, rmSync } from 'node:fs';
import { createRequire } from 'node:module';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { createInterface } from 'node:readline';
import { test } from 'node:test';

export const require = createRequire(path.join(process.env.SDK_PACKAGE, '/'));
const { chromium } = require('playwright-core');

export const key = process.env.SDK_API_KEY;
export const adminKey = process.env.SDK_ADMIN_KEY;
// Through the validating proxy, so that every request of the console is checked by the contract.
export const origin = process.env.SDK_BASE_URL.replace(/\/v1$/, '');
export const screenshots = process.env.SCREENSHOTS || path.join(tmpdir(), 'assistd-console-screenshots');

const FLAGS = [
  '--no-sandbox',
  '--disable-gpu',
  '--disable-quic',
  '--no-first-run',
  '--disable-background-networking',
  '--disable-component-update',
  '--disable-sync',
];

export function launch() {
  mkdirSync(screenshots, { recursive: true });
  return chromium.launch({ executablePath: chromiumProgram(), args: FLAGS });
}

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

/**
 * Opens a page that fails the test on every error of its console, report of its policy, and unhandled
 * rejection, except console errors that match `expected`.
 */
export async function openPage(browser, { at = origin, keys = { project: key }, expected = [], ...options } = {}) {
  const context = await browser.newContext({ reducedMotion: 'reduce', ...options });
  await context.grantPermissions(['clipboard-read', 'clipboard-write'], { origin: at });
  const problems = [];
  await context.addInitScript(
    ({ project, admin }) => {
      if (project) sessionStorage.setItem('assistd.key', project);
      if (admin) sessionStorage.setItem('assistd.admin-key', admin);
      document.addEventListener('securitypolicyviolation', (event) => {
        console.error(`policy: ${event.violatedDirective} ${event.blockedURI} ${event.sample}`);
      });
    },
    keys,
  );
  const page = await context.newPage();
  page.setDefaultTimeout(20_000);
  page.on('console', (message) => {
    const isExpected = expected.some((pattern) => pattern.test(`${message.text()} ${message.location().url}`));
    if (message.type() === 'error' && !isExpected) problems.push(`${message.text()} ${message.location().url}`);
  });
  page.on('pageerror', (error) => problems.push(error.stack ?? String(error)));
  page.on('dialog', (dialog) => {
    problems.push(`a script opened a dialog: ${dialog.message()}`);
    dialog.dismiss();
  });
  page.on('request', (request) => {
    const isOwn = /^(blob:|data:|http:\/\/127\.0\.0\.1:)/.test(request.url());
    if (!isOwn) problems.push(`a request to another site: ${request.url()}`);
  });
  const open = (view) => page.goto(`${at}/console${view}`);
  return { page, context, open, problems };
}

/** A test with a page of its own. */
export function pageTest(browser, name, options, body) {
  test(name, { timeout: 120_000 }, async () => {
    const opened = await openPage(browser(), options);
    try {
      await body(opened);
      assert.deepEqual(opened.problems, []);
    } catch (error) {
      const file = path.join(screenshots, `failed-${name.replace(/\W+/g, '-').slice(0, 60)}.png`);
      await opened.page.screenshot({ path: file }).catch(() => {});
      if (opened.problems.length) error.message += `\nThe page reported: ${opened.problems.join('\n')}`;
      throw error;
    } finally {
      await opened.context.close();
    }
  });
}

/** A client of the API, which fails on refusals. */
export function api(at = origin, bearer = key) {
  const request = async (method, target, body) => {
    const isForm = body instanceof FormData;
    const response = await fetch(`${at}${target}`, {
      method,
      headers: { authorization: `Bearer ${bearer}`, ...(body && !isForm && { 'content-type': 'application/json' }) },
      body: body && !isForm ? JSON.stringify(body) : body,
    });
    const text = await response.text();
    assert.ok(response.ok, `${method} ${target}: ${text}`);
    return JSON.parse(text);
  };
  const client = {
    get: (target) => request('GET', target),
    post: (target, body = {}) => request('POST', target, body),
    remove: (target) => request('DELETE', target),
    upload(name, content) {
      const form = new FormData();
      form.append('purpose', 'assistants');
      form.append('file', new File([content], name));
      return request('POST', '/v1/files', form);
    },
    async until(target, isReady) {
      const deadline = Date.now() + 60_000;
      for (;;) {
        const object = await client.get(target);
        if (isReady(object)) return object;
        assert.ok(Date.now() < deadline, `${target}: ${JSON.stringify(object)}`);
        await new Promise((resolve) => setTimeout(resolve, 50));
      }
    },
    /** Runs an assistant on a new thread, up to its end or to its tool calls. */
    async run(assistant, text, { isDone = true, ...body } = {}) {
      const thread = await client.post('/v1/threads', { messages: [{ role: 'user', content: text }] });
      const run = await client.post(`/v1/threads/${thread.id}/runs`, { assistant_id: assistant.id, ...body });
      const rests = ({ status }) => !['queued', 'in_progress', 'cancelling'].includes(status);
      return isDone ? client.until(`/v1/threads/${thread.id}/runs/${run.id}`, rests) : run;
    },
  };
  return client;
}

/** A server of its own, without API keys, that can be stopped and started again at the same address. */
export async function startServer(settings = {}) {
  const folder = mkdtempSync(path.join(tmpdir(), 'assistd-console-'));
  const isForeign = ([name]) => !/^(ASSISTD_|OPENAI_|DATABASE_URL)/.test(name);
  let child;
  let ended;
  const start = async (listen) => {
    child = spawn(process.env.SDK_SERVER, ['serve'], {
      env: {
        ...Object.fromEntries(Object.entries(process.env).filter(isForeign)),
        ASSISTD_LISTEN: listen,
        ASSISTD_DATA_DIR: path.join(folder, 'data'),
        ASSISTD_SCRIPT: path.join(import.meta.dirname, '..', 'script.yaml'),
        ASSISTD_SANDBOX: 'off',
        ASSISTD_EMBEDDING_MODEL: 'off',
        ...settings,
      },
      stdio: ['ignore', 'pipe', 'pipe'],
    });
    let log = '';
    child.stderr.on('data', (text) => (log += text));
    ended = new Promise((resolve) => child.on('exit', resolve));
    const started = new Promise((resolve) => {
      createInterface({ input: child.stdout }).on('line', (line) => {
        const address = line.match(/Base URL +(http:\S+)\/v1/);
        if (address) resolve(address[1]);
      });
    });
    const address = await Promise.race([started, ended.then(() => undefined)]);
    assert.ok(address, `the server did not start: ${log}`);
    return address;
  };
  const halt = async () => {
    child.kill('SIGTERM');
    await ended;
  };
  const address = await start('127.0.0.1:0');
  return {
    origin: address,
    halt,
    resume: () => start(new URL(address).host),
    stop: async () => {
      await halt();
      rmSync(folder, { recursive: true, force: true });
    },
  };
}
