// Runs and their steps without streams.

import assert from 'node:assert/strict';
import { OpenAI, WEATHER, at, atStep, collect, promise, shortLivedURL } from './sdk.mjs';

const outputsFor = (run, ...texts) =>
  run.required_action.submit_tool_outputs.tool_calls.map((call, index) => ({
    tool_call_id: call.id,
    output: texts[index],
  }));

promise('createAndPoll completes a run', async ({ threads, scene, answer }) => {
  const { thread_id, assistant_id } = await scene('echo', 'Hello');
  const run = await threads.runs.createAndPoll(thread_id, { assistant_id });
  assert.deepEqual([run.status, run.last_error, run.expires_at], ['completed', null, null]);
  assert.equal(await answer(thread_id), 'You said: Hello');
});

promise('create, retrieve and poll see the same run', async ({ threads, scene }) => {
  const { thread_id, assistant_id } = await scene('echo');
  const run = await threads.runs.create(thread_id, { assistant_id });
  assert.equal(run.status, 'queued');
  assert.equal((await threads.runs.retrieve(...at(thread_id, run.id))).id, run.id);
  const done = await threads.runs.poll(...at(thread_id, run.id));
  assert.deepEqual([done.id, done.status], [run.id, 'completed']);
});

promise('createAndRun and createAndRunPoll make a thread', async ({ client, threads }) => {
  const { id: assistant_id } = await client.beta.assistants.create({ model: 'scripted/echo' });
  const thread = { messages: [{ role: 'user', content: 'Hi' }] };
  const queued = await threads.createAndRun({ assistant_id, thread });
  assert.equal((await threads.runs.poll(...at(queued.thread_id, queued.id))).status, 'completed');
  assert.equal((await threads.createAndRunPoll({ assistant_id, thread })).status, 'completed');
});

promise('runs are listed and their metadata changed', async ({ threads, scene }) => {
  const { thread_id, assistant_id } = await scene('echo');
  const made = [];
  for (let i = 0; i < 3; i++) made.unshift((await threads.runs.createAndPoll(thread_id, { assistant_id })).id);
  assert.deepEqual((await collect(threads.runs.list(thread_id, { limit: 2 }))).map((run) => run.id), made);
  const changed = await threads.runs.update(...at(thread_id, made[0], { metadata: { seen: 'yes' } }));
  assert.deepEqual(changed.metadata, { seen: 'yes' });
});

promise('steps are listed and read', async ({ threads, scene }) => {
  const { thread_id, assistant_id } = await scene('echo');
  const run = await threads.runs.createAndPoll(thread_id, { assistant_id });
  const [step] = await collect(threads.runs.steps.list(...at(thread_id, run.id)));
  assert.deepEqual([step.type, step.status], ['message_creation', 'completed']);
  const include = ['step_details.tool_calls[*].file_search.results[*].content'];
  assert.deepEqual(await threads.runs.steps.retrieve(...atStep(thread_id, run.id, step.id, { include })), step);
});

promise('submitToolOutputsAndPoll completes a run', async ({ threads, scene, answer }) => {
  const { thread_id, assistant_id } = await scene('weather', 'weather in Oslo and Rome', { tools: [WEATHER] });
  const run = await threads.runs.createAndPoll(thread_id, { assistant_id });
  assert.equal(run.status, 'requires_action');
  const tool_outputs = outputsFor(run, 'cold', 'warm');
  const done = await threads.runs.submitToolOutputsAndPoll(...at(thread_id, run.id, { tool_outputs }));
  assert.equal(done.status, 'completed');
  assert.match(await answer(thread_id), /cold.*warm/);
});

promise('submitToolOutputs answers with a queued run', async ({ threads, scene }) => {
  const { thread_id, assistant_id } = await scene('weather', 'weather in Oslo', { tools: [WEATHER] });
  const run = await threads.runs.createAndPoll(thread_id, { assistant_id });
  const tool_outputs = outputsFor(run, 'cold');
  const queued = await threads.runs.submitToolOutputs(...at(thread_id, run.id, { tool_outputs }));
  assert.deepEqual([queued.status, queued.required_action], ['queued', null]);
  assert.equal((await threads.runs.poll(...at(thread_id, run.id))).status, 'completed');
});

promise('a run is cancelled', async ({ threads, scene }) => {
  const { thread_id, assistant_id } = await scene('slow');
  const run = await threads.runs.create(thread_id, { assistant_id });
  const cancelling = await threads.runs.cancel(...at(thread_id, run.id));
  assert.match(cancelling.status, /^cancell(ing|ed)$/);
  assert.equal((await threads.runs.poll(...at(thread_id, run.id))).status, 'cancelled');
});

promise('a run expires', async ({ connect, scene }) => {
  const client = connect({ baseURL: shortLivedURL });
  const { thread_id, assistant_id } = await scene('slow', 'Hi', {}, client);
  const run = await client.beta.threads.runs.createAndPoll(thread_id, { assistant_id });
  assert.equal(run.status, 'expired');
});

promise('a failing upstream fails the run', async ({ threads, scene }) => {
  const { thread_id, assistant_id } = await scene('broken');
  const run = await threads.runs.createAndPoll(thread_id, { assistant_id });
  assert.deepEqual([run.status, run.last_error.code], ['failed', 'server_error']);
});

promise('a budget ends the run as incomplete', async ({ threads, scene }) => {
  const { thread_id, assistant_id } = await scene('long');
  const run = await threads.runs.createAndPoll(thread_id, { assistant_id, max_completion_tokens: 256 });
  assert.deepEqual([run.status, run.incomplete_details.reason], ['incomplete', 'max_completion_tokens']);
});

promise('a second run of a busy thread is refused', async ({ threads, scene }) => {
  const { thread_id, assistant_id } = await scene('slow');
  const run = await threads.runs.create(thread_id, { assistant_id });
  await assert.rejects(threads.runs.create(thread_id, { assistant_id }), (error) => {
    assert.equal(error.error.message, `Thread ${thread_id} already has an active run ${run.id}.`);
    return error instanceof OpenAI.BadRequestError;
  });
  await threads.runs.cancel(...at(thread_id, run.id));
});
