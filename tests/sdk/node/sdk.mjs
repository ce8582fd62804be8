// The SDK under test and helpers. The environment names the SDK and the server:
// SDK_PACKAGE (a folder with node_modules), SDK_BASE_URL (with /v1), SDK_API_KEY, SDK_SHORT_LIVED_URL.

import { createRequire } from 'node:module';
import { readFileSync } from 'node:fs';
import path from 'node:path';
import { test } from 'node:test';

const folder = process.env.SDK_PACKAGE;
export const sdk = createRequire(path.join(folder, '/'))('openai');
export const OpenAI = sdk.default ?? sdk;
export const version = JSON.parse(
  readFileSync(path.join(folder, 'node_modules/openai/package.json'), 'utf8'),
).version;
export const major = Number(version.split('.')[0]);
export const key = process.env.SDK_API_KEY;
export const baseURL = process.env.SDK_BASE_URL;
export const shortLivedURL = process.env.SDK_SHORT_LIVED_URL;

export const WEATHER = {
  type: 'function',
  function: {
    name: 'get_weather',
    description: 'The weather of a city.',
    parameters: { type: 'object', properties: { city: { type: 'string' } }, required: ['city'] },
  },
};

// Version 4 has positional path parameters; later versions take the last one and an object with the others.
const positional = major < 5;
export const at = (thread_id, id, params) =>
  positional ? [thread_id, id, ...(params ? [params] : [])] : [id, { thread_id, ...params }];
export const atStep = (thread_id, run_id, id, params) =>
  positional
    ? [thread_id, run_id, id, ...(params ? [params] : [])]
    : [id, { thread_id, run_id, ...params }];
export const within = (vector_store_id, id, params) =>
  positional ? [vector_store_id, id, ...(params ? [params] : [])] : [id, { vector_store_id, ...params }];
export const remove = (resource, ...args) => (resource.delete ?? resource.del).apply(resource, args);

// Declares a test. Its body gets a client whose requests name the test to the validating proxy.
export function promise(name, body, options = {}) {
  test(name, { timeout: 60_000, ...options }, async (t) => {
    const defaultHeaders = { 'x-test': `node ${version} ${name}` };
    const connect = (more = {}) => new OpenAI({ apiKey: key, baseURL, defaultHeaders, ...more });
    const client = connect();
    const threads = client.beta.threads;
    const scene = async (model, message = 'Hi', assistant = {}, by = client) => {
      const { id: assistant_id } = await by.beta.assistants.create({
        model: `scripted/${model}`,
        ...assistant,
      });
      const { id: thread_id } = await by.beta.threads.create({
        messages: [{ role: 'user', content: message }],
      });
      return { assistant_id, thread_id };
    };
    const answer = async (thread_id) =>
      (await threads.messages.list(thread_id, { limit: 1 })).data[0].content[0].text.value;
    await body({ t, client, threads, connect, scene, answer, defaultHeaders });
  });
}

// All elements of a paginated list.
export async function collect(page) {
  const all = [];
  for await (const element of await page) all.push(element);
  return all;
}
