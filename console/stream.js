// The events of a run, by the public stream, across lost connections and hidden tabs.

import { ApiError, send } from './api.js';

/** @typedef {{id: string, name: string, data: any}} StreamEvent */

/**
 * Follows a run until its stream ends: when the run has ended or waits for tool outputs. Reconnects after
 * the last event that was received.
 * @param {string} thread
 * @param {string} run
 * @param {(events: StreamEvent[]) => void} onEvents
 * @param {AbortSignal} signal
 * @param {{after?: string, onState?: (isConnected: boolean) => void}} [options]
 */
export async function follow(thread, run, onEvents, signal, { after, onState } = {}) {
  let last = after;
  let delay = 500;
  while (!signal.aborted) {
    try {
      await whenVisible(signal);
      const connection = new AbortController();
      const isOver = await readUntilHidden(connection, signal, async () => {
        const headers = last ? { 'last-event-id': last } : undefined;
        const path = `/v1/threads/${thread}/runs/${run}/stream`;
        const response = await send(path, { headers, signal: connection.signal });
        onState?.(true);
        delay = 500;
        for await (const batch of batches(response)) {
          last = batch.at(-1)?.id || last;
          const isDone = batch.some((event) => event.name === 'done');
          const failure = batch.find((event) => event.name === 'error');
          onEvents(batch.filter((event) => event.name !== 'done' && event.name !== 'error'));
          if (failure) throw new ApiError(503, failure.data?.error?.message ?? 'The stream failed.');
          if (isDone) return true;
        }
        return false;
      });
      if (isOver) return last;
    } catch (error) {
      if (signal.aborted) return last;
      const status = error instanceof ApiError ? error.status : 0;
      if (status >= 400 && status < 500 && status !== 429) throw error;
    }
    onState?.(false);
    await wait(delay, signal);
    delay = Math.min(delay * 2, 10_000);
  }
  return last;
}

/**
 * @param {AbortController} connection
 * @param {AbortSignal} signal
 * @param {() => Promise<boolean>} read
 */
async function readUntilHidden(connection, signal, read) {
  const close = () => connection.abort();
  const whenHidden = () => document.hidden && close();
  signal.addEventListener('abort', close);
  document.addEventListener('visibilitychange', whenHidden);
  try {
    return await read();
  } catch (error) {
    if (connection.signal.aborted) return false;
    throw error;
  } finally {
    signal.removeEventListener('abort', close);
    document.removeEventListener('visibilitychange', whenHidden);
    close();
  }
}

/**
 * The events of a response, as many at a time as have arrived.
 * @param {Response} response
 * @returns {AsyncGenerator<StreamEvent[]>}
 */
async function* batches(response) {
  const reader = /** @type {ReadableStream<Uint8Array>} */ (response.body).getReader();
  const decoder = new TextDecoder();
  let rest = '';
  for (;;) {
    const { done, value } = await reader.read();
    if (done) return;
    rest += decoder.decode(value, { stream: true });
    const end = rest.lastIndexOf('\n\n');
    if (end < 0) continue;
    const events = rest.slice(0, end).split('\n\n').map(parse).filter((event) => event.name);
    rest = rest.slice(end + 2);
    if (events.length) yield events;
  }
}

/** @param {string} block */
function parse(block) {
  const event = { id: '', name: '', data: /** @type {any} */ (null) };
  for (const line of block.split('\n')) {
    if (line.startsWith('event: ')) event.name = line.slice(7);
    else if (line.startsWith('id: ')) event.id = line.slice(4);
    else if (line.startsWith('data: {')) event.data = JSON.parse(line.slice(6));
  }
  return event;
}

/** @param {AbortSignal} signal */
function whenVisible(signal) {
  if (!document.hidden || signal.aborted) return Promise.resolve();
  return new Promise((resolve) => {
    const check = () => {
      if (document.hidden && !signal.aborted) return;
      document.removeEventListener('visibilitychange', check);
      signal.removeEventListener('abort', check);
      resolve(undefined);
    };
    document.addEventListener('visibilitychange', check);
    signal.addEventListener('abort', check);
  });
}

/**
 * Repeats an action until it succeeds, as long as only the server or the way to it is the reason.
 * @template T
 * @param {() => Promise<T>} action
 * @param {AbortSignal} signal
 * @returns {Promise<T>}
 */
export async function patiently(action, signal) {
  for (let delay = 500; ; delay = Math.min(delay * 2, 10_000)) {
    try {
      return await action();
    } catch (error) {
      const isTransient = error instanceof ApiError && (error.status === 0 || error.status >= 500 || error.status === 429);
      if (signal.aborted || !isTransient) throw error;
      await wait(delay, signal);
    }
  }
}

/**
 * @param {number} delay
 * @param {AbortSignal} signal
 */
export function wait(delay, signal) {
  return new Promise((resolve) => {
    const timer = setTimeout(resolve, delay);
    signal.addEventListener('abort', () => {
      clearTimeout(timer);
      resolve(undefined);
    });
  });
}
