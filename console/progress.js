// A run with its steps and messages, kept up to date by the events of its stream.

import { get } from './api.js';
import { listAll } from './data.js';
import { useCallback, useEffect, useRef, useState } from './html.js';
import { follow, patiently, wait } from './stream.js';

const WITH_CONTENT = { 'include[]': 'step_details.tool_calls[*].file_search.results[*].content' };
const ACTIVE = new Set(['queued', 'in_progress', 'cancelling']);

/** @param {string} status whether the run will change without the caller */
export const isActive = (status) => ACTIVE.has(status);

/** @param {string} status whether the run has ended */
export const isOver = (status) => !isActive(status) && status !== 'requires_action';

/**
 * @typedef {object} Progress
 * @property {any} run
 * @property {any[]} steps oldest first
 * @property {Record<string, any>} messages by id
 */

/**
 * Applies one event of a stream.
 * @param {Progress} progress
 * @param {import('./stream.js').StreamEvent} event
 * @returns {Progress}
 */
export function apply(progress, { name, data }) {
  if (!data) return progress;
  if (name.startsWith('thread.run.step.')) {
    const change = name.endsWith('.delta') ? (/** @type {any} */ step) => addToStep(step, data.delta) : () => data;
    return { ...progress, steps: changeStep(progress.steps, data.id, change) };
  }
  if (name.startsWith('thread.run.')) return { ...progress, run: data };
  if (name.startsWith('thread.message.')) {
    const before = progress.messages[data.id];
    const message = name.endsWith('.delta') ? before && addToMessage(before, data.delta) : data;
    return message ? { ...progress, messages: { ...progress.messages, [data.id]: message } } : progress;
  }
  return progress;
}

/**
 * @param {any[]} steps
 * @param {string} id
 * @param {(step: any) => any} change
 */
function changeStep(steps, id, change) {
  const at = steps.findIndex((step) => step.id === id);
  if (at < 0) {
    const step = change(undefined);
    return step ? [...steps, step] : steps;
  }
  return steps.map((step, index) => (index === at ? change(step) : step));
}

/**
 * @param {any} message
 * @param {any} delta
 */
function addToMessage(message, delta) {
  const content = [...message.content];
  for (const { index, ...part } of delta.content ?? []) {
    const before = content[index];
    if (part.type === 'text') {
      const annotations = (part.text.annotations ?? []).map((/** @type {any} */ { index: _, ...rest }) => rest);
      content[index] = {
        type: 'text',
        text: {
          value: (before?.text?.value ?? '') + (part.text.value ?? ''),
          annotations: [...(before?.text?.annotations ?? []), ...annotations],
        },
      };
    } else if (part.type === 'refusal') {
      content[index] = { type: 'refusal', refusal: (before?.refusal ?? '') + part.refusal };
    } else content[index] = part;
  }
  return { ...message, content };
}

/**
 * @param {any} step
 * @param {any} delta
 */
function addToStep(step, delta) {
  if (!step || step.step_details.type !== 'tool_calls') return step;
  const calls = [...step.step_details.tool_calls];
  for (const { index, ...call } of delta.step_details?.tool_calls ?? []) {
    calls[index] = addToCall(calls[index], call);
  }
  return { ...step, step_details: { ...step.step_details, tool_calls: calls } };
}

/**
 * @param {any} before
 * @param {any} call
 */
function addToCall(before, call) {
  if (!before) before = { id: call.id, type: call.type };
  if (call.type === 'function') {
    const known = before.function ?? { name: '', arguments: '', output: null };
    const more = call.function ?? {};
    return {
      ...before,
      function: {
        name: more.name ?? known.name,
        arguments: known.arguments + (more.arguments ?? ''),
        output: more.output ?? known.output,
      },
    };
  }
  if (call.type === 'code_interpreter') {
    const known = before.code_interpreter ?? { input: '', outputs: [] };
    const outputs = [...known.outputs];
    for (const { index, ...output } of call.code_interpreter?.outputs ?? []) {
      const same = outputs[index];
      outputs[index] = same?.type === 'logs' ? { type: 'logs', logs: same.logs + output.logs } : output;
    }
    const input = known.input + (call.code_interpreter?.input ?? '');
    return { ...before, code_interpreter: { ...known, input, outputs } };
  }
  return { ...before, ...call };
}

/**
 * Loads a run with everything that belongs to it.
 * @param {any} run
 * @param {AbortSignal} signal
 * @returns {Promise<Progress>}
 */
async function load(run, signal) {
  const path = `/v1/threads/${run.thread_id}`;
  const [steps, messages] = await Promise.all([
    listAll(`${path}/runs/${run.id}/steps`, { order: 'asc', ...WITH_CONTENT }, signal),
    listAll(`${path}/messages`, { run_id: run.id, order: 'asc' }, signal),
  ]);
  return { run, steps, messages: Object.fromEntries(messages.map((message) => [message.id, message])) };
}

/**
 * Follows a run while it is active.
 * @param {any} started the run; nothing happens without one
 * @param {() => void | Promise<void>} [onEnd] called when a run that was followed has stopped, before its end is shown
 */
export function useProgress(started, onEnd) {
  const [progress, setProgress] = useState(/** @type {Progress | undefined} */ (undefined));
  const [error, setError] = useState(/** @type {any} */ (undefined));
  const [isConnected, setConnected] = useState(true);
  const [round, setRound] = useState(0);
  const ended = useRef(onEnd);
  ended.current = onEnd;
  const id = started?.id;
  useEffect(() => {
    if (!started) return undefined;
    const controller = new AbortController();
    const { signal } = controller;
    setError(undefined);
    const read = () => patiently(() => get(`/v1/objects/${started.id}`, {}, signal), signal);
    const loadAll = (/** @type {any} */ run) => patiently(() => load(run, signal), signal);
    const watch = async () => {
      let run = round === 0 ? started : await read();
      // Whoever opens a run that has stopped already knows its messages.
      let hasChanged = round > 0;
      while (!signal.aborted) {
        if (isActive(run.status)) {
          setProgress((before) => (before && before.run.id === run.id ? { ...before, run } : { run, steps: [], messages: {} }));
          const onEvents = (/** @type {any[]} */ events) => setProgress((before) => before && events.reduce(apply, before));
          await follow(run.thread_id, run.id, onEvents, signal, { onState: setConnected });
          hasChanged = true;
          run = await read();
          if (isActive(run.status)) continue;
        }
        const whole = await loadAll(run);
        if (hasChanged) await ended.current?.();
        setProgress(whole);
        if (run.status !== 'requires_action') return;
        // Outputs may come from elsewhere.
        hasChanged = true;
        do {
          await wait(2000, signal);
          if (!document.hidden) run = await read();
        } while (!signal.aborted && run.status === 'requires_action');
      }
    };
    watch().catch((failure) => !signal.aborted && setError(failure));
    return () => controller.abort();
  }, [id, round]);
  const restart = useCallback(() => setRound((before) => before + 1), []);
  const current = progress && progress.run.id === id ? progress : undefined;
  return { progress: current, error, isConnected, restart };
}
