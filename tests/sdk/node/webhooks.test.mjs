// Webhook deliveries about runs, verified with the SDK.

import assert from 'node:assert/strict';
import { execFile } from 'node:child_process';
import { createServer } from 'node:http';
import { promisify } from 'node:util';
import { OpenAI, promise } from './sdk.mjs';

const run = promisify(execFile);
const skip = OpenAI.InvalidWebhookSignatureError ? false : 'this SDK knows no webhooks';

// Runs `assistd webhooks …` beside the server.
const webhooks = (...args) =>
  run(process.env.SDK_SERVER, ['webhooks', ...args], {
    env: { ...process.env, ASSISTD_DATA_DIR: process.env.SDK_DATA_DIR, ASSISTD_WEBHOOK_ALLOW_PRIVATE: 'true' },
  });

promise(
  'an event is unwrapped and a forged one is not',
  async ({ t, client, threads, scene }) => {
    const posts = [];
    let arrived = () => {};
    const server = createServer(async (request, response) => {
      const chunks = await request.toArray();
      posts.push({ headers: request.headers, body: Buffer.concat(chunks).toString() });
      arrived();
      response.writeHead(204).end();
    });
    await new Promise((listening) => server.listen(0, '127.0.0.1', listening));
    t.after(() => server.close());
    const url = `http://127.0.0.1:${server.address().port}/`;
    const project = ['--project', process.env.SDK_PROJECT];
    const added = await webhooks('add', ...project, '--url', url, '--events', 'thread.run.completed');
    t.after(() => webhooks('remove', added.stderr.match(/we_\w+/)[0]));
    const secret = added.stdout.trim();

    const { thread_id, assistant_id } = await scene('echo');
    const done = await threads.runs.createAndPoll(thread_id, { assistant_id });
    // Other tests create runs in this project, too.
    const mine = () => posts.find(({ body }) => JSON.parse(body).data.id === done.id);
    while (!mine()) await new Promise((resolve) => (arrived = resolve));
    const { headers, body } = mine();
    const event = await client.webhooks.unwrap(body, headers, secret);
    assert.deepEqual([event.type, event.object, event.data.id], ['thread.run.completed', 'event', done.id]);
    for (const [forged, key] of [[`${body} `, secret], [body, `whsec_${'A'.repeat(43)}=`]])
      await assert.rejects(client.webhooks.unwrap(forged, headers, key), OpenAI.InvalidWebhookSignatureError);
  },
  { skip },
);
