// Writes to a thread, runs an assistant on it, and shows what it does as it happens.

import { get, post } from '../api.js';
import { plural } from '../format.js';
import { html, useRef, useState } from '../html.js';
import { listAll, useLoad } from '../data.js';
import { isActive, useProgress } from '../progress.js';
import { BASE } from '../router.js';
import { ErrorNote, Status } from './basic.js';
import { OutputsForm } from './outputs.js';
import { Timeline } from './steps.js';
import { UploadList, useUploads } from './uploads.js';
import { Why } from './why.js';
import { Cancel } from '../pages/runs.js';

/**
 * The assistants to choose from; nothing while they are being loaded.
 * @returns {any[] | undefined}
 */
export function useAssistants() {
  const assistants = useLoad((signal) => listAll('/v1/assistants', {}, signal, 500), []);
  return assistants.error ? [] : assistants.data;
}

/**
 * @typedef {object} ChatProps
 * @property {string | null} thread
 * @property {() => any} body of the run; nothing if none can be made. May be a promise.
 * @property {(thread: string) => void} [onThread] called with the thread that was made for the first message
 * @property {() => void | Promise<void>} onStored called when messages were stored
 * @property {any} [controls] beside the buttons
 */

/** @param {ChatProps} props */
export function Chat(props) {
  const { thread, controls } = props;
  // A message is sent in several steps, between which the page around is rendered again.
  const latest = useRef(props);
  latest.current = props;
  const [text, setText] = useState('');
  const [run, setRun] = useState(/** @type {any} */ (null));
  const [error, setError] = useState(/** @type {any} */ (null));
  const [isBusy, setBusy] = useState(false);
  const uploads = useUploads();
  const field = useRef(/** @type {HTMLTextAreaElement | null} */ (null));
  const { progress, error: failure, isConnected, restart } = useProgress(run, () => latest.current.onStored());
  const current = progress?.run ?? run;
  const isRunning = current && (isActive(current.status) || current.status === 'requires_action');

  /** @param {boolean} runs whether an assistant answers */
  const send = async (runs) => {
    setBusy(true);
    setError(null);
    try {
      let target = thread;
      if (!target) {
        target = (await post('/v1/threads')).id;
        latest.current.onThread?.(/** @type {string} */ (target));
      }
      if (text.trim() || uploads.done.length) {
        await post(`/v1/threads/${target}/messages`, { role: 'user', content: text.trim() || 'See the files.', attachments: uploads.attachments });
        setText('');
        uploads.clear();
        latest.current.onStored();
      }
      if (runs) {
        setRun(null);
        setRun(await post(`/v1/threads/${target}/runs`, await latest.current.body()));
      }
    } catch (problem) {
      setError(problem);
    }
    setBusy(false);
    field.current?.focus();
  };
  const submit = (/** @type {Event} */ event) => {
    event.preventDefault();
    if (!isRunning && !isBusy) send(true);
  };
  const keyDown = (/** @type {KeyboardEvent} */ event) => {
    if (event.key === 'Enter' && (event.ctrlKey || event.metaKey)) submit(event);
  };
  const isDisabled = isBusy || Boolean(isRunning) || uploads.isBusy;
  return html`<section class="chat" aria-label="Conversation">
    ${current && html`<div class="card live-run" aria-live="polite">
      <div class="row"><${Status} status=${current.status} /><a href=${`${BASE}/runs/${current.id}`}>${current.id}</a>
        ${!isConnected && html`<span class="live" data-off="true">Reconnecting…</span>`}
        <span class="spacer"></span><${Cancel} run=${current} onDone=${() => {}} />
        ${!isRunning && html`<button type="button" class="quiet" onClick=${() => setRun(null)} aria-label="Hide this run">✕</button>`}</div>
      <${ErrorNote} error=${failure} onRetry=${restart} />
      <${Why} run=${current} execution=${null} />
      ${current.status === 'requires_action' && html`<${OutputsForm} key=${current.required_action?.submit_tool_outputs.tool_calls[0]?.id} run=${current} onDone=${restart} />`}
      ${progress && isRunning && html`<${Timeline} progress=${progress} execution=${null} marked=${null} />`}
      ${progress && !isRunning && html`<${Work} progress=${progress} />`}
    </div>`}
    <form class="card composer" onSubmit=${submit}>
      <textarea ref=${field} rows="3" dir="auto" placeholder="Write a message… (Ctrl+Enter sends it and runs the assistant)" aria-label="Message" value=${text}
        onInput=${(/** @type {any} */ event) => setText(event.target.value)} onKeyDown=${keyDown}></textarea>
      <${UploadList} uploads=${uploads} hasTools />
      <${ErrorNote} error=${error} />
      <div class="row">${controls}<span class="spacer"></span>
        <button type="button" disabled=${isDisabled || !text.trim()} onClick=${() => send(false)}>Add only</button>
        <button class="primary" disabled=${isDisabled}>${text.trim() ? 'Send and run' : 'Run'}</button></div>
    </form>
  </section>`;
}

/** @param {{progress: import('../progress.js').Progress}} props the tool calls of a run whose messages are above it */
function Work({ progress }) {
  const { run } = progress;
  const steps = progress.steps.filter((step) => step.type === 'tool_calls');
  const execution = useLoad((signal) => get(`/v1/runs/${run.id}/execution`, {}, signal), [run.id]);
  if (!steps.length) return null;
  return html`<details><summary>${plural(steps.length, 'step')} with tool calls</summary>
    <${Timeline} progress=${{ ...progress, steps }} execution=${execution.data} marked=${null} />
  </details>`;
}

/**
 * The messages of a thread, oldest first, reloaded on request.
 * @param {string | null} thread
 */
export function useMessages(thread) {
  return useLoad(async (signal) => {
    if (!thread) return [];
    const page = await get(`/v1/threads/${thread}/messages`, { limit: 100 }, signal);
    return page.data.reverse();
  }, [thread]);
}
