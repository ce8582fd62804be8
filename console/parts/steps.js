// The steps of a run on a time line, and what each of them did.

import { html, useState } from '../html.js';
import { duration, number, plural, prettyText } from '../format.js';
import { ErrorNote, Id, Status, Time } from './basic.js';
import { LongText, Picture } from './code.js';
import { Chunk, Message } from './message.js';

/**
 * @param {{progress: import('../progress.js').Progress, execution: any, marked: string | null}} props without `execution`
 *   (null) times have whole seconds; while it is being loaded (undefined) there are none
 */
export function Timeline({ progress, execution, marked }) {
  const { run, steps, messages } = progress;
  const span = spanOf(run, execution);
  const chunks = steps.flatMap((step) => step.step_details.tool_calls ?? []).flatMap((call) => call?.file_search?.results ?? []);
  if (!steps.length) return html`<p class="faint">No steps yet.</p>`;
  return html`<ol class="timeline">
    ${span.wait > 0 && html`<li class="wait"><span>Waited for a worker</span><${Bar} span=${span} from=${span.start} to=${span.start + span.wait} kind="wait" /></li>`}
    ${steps.map(
      (step, at) => html`<${Step} key=${step.id} step=${step} number=${at + 1} times=${execution?.steps.find((/** @type {any} */ one) => one.id === step.id)}
        hasTimes=${execution !== undefined} span=${span} messages=${messages} chunks=${chunks} isMarked=${step.id === marked} isLive=${run.status === 'in_progress'} />`,
    )}
  </ol>`;
}

/**
 * The time that the run took, in milliseconds.
 * @param {any} run
 * @param {any} execution
 */
function spanOf(run, execution) {
  const start = execution?.created_at_ms ?? run.created_at * 1000;
  const end = execution?.ended_at_ms ?? Date.now();
  // `started_at` is the last start; the first step tells when the run was first taken up.
  const first = execution?.steps[0]?.created_at_ms ?? execution?.started_at_ms ?? start;
  const begun = Math.min(first, execution?.started_at_ms ?? first);
  return { start, end: Math.max(end, start + 1), wait: begun - start };
}

/** @param {{span: {start: number, end: number}, from: number, to: number, kind: string}} props */
function Bar({ span, from, to, kind }) {
  const total = span.end - span.start;
  const left = Math.min(99, Math.max(0, ((from - span.start) / total) * 100));
  const width = Math.max(0.6, Math.min(100 - left, ((to - from) / total) * 100));
  return html`<span class="track" role="img" aria-label=${`${duration(from - span.start)} after the start, for ${duration(to - from)}`}>
    <span class="bar" data-kind=${kind} style=${{ left: `${left}%`, width: `${width}%` }}></span>
  </span>
  <span class="number took">${duration(to - from)}</span>`;
}

const KINDS = /** @type {Record<string, string>} */ ({ function: 'Function', code_interpreter: 'Code', file_search: 'File search' });

/** @param {any} step what a step did, in a few words */
function title(step) {
  if (step.type === 'message_creation') return 'Message';
  const calls = step.step_details.tool_calls ?? [];
  if (!calls.length) return 'Tool calls';
  const names = calls.map((/** @type {any} */ call) => (call?.function ? call.function.name : KINDS[call?.type] ?? 'Tool'));
  return names.length > 3 ? `${names.slice(0, 3).join(', ')} and ${names.length - 3} more` : names.join(', ');
}

/** @param {any} step */
const kindOf = (step) => (step.type === 'message_creation' ? 'message' : (step.step_details.tool_calls?.[0]?.type ?? 'function'));

/** @param {any} props */
function Step({ step, number: position, times, hasTimes, span, messages, chunks, isMarked, isLive }) {
  const from = times?.created_at_ms ?? step.created_at * 1000;
  const stopped = step.completed_at ?? step.failed_at ?? step.cancelled_at ?? step.expired_at;
  const to = times?.ended_at_ms ?? (stopped ? stopped * 1000 : Math.max(from, span.end));
  const message = messages[step.step_details.message_creation?.message_id];
  const [isOpen, setOpen] = useState(true);
  return html`<li class=${`step ${isMarked ? 'marked' : ''}`} id=${step.id}>
    <div class="step-head">
      <button type="button" class="fold" aria-expanded=${isOpen} onClick=${() => setOpen(!isOpen)}>
        <span class="step-number">${position}</span><span class="step-title" dir="auto">${title(step)}</span>
      </button>
      ${step.status !== 'completed' && html`<${Status} status=${step.status} />`}
      ${hasTimes && html`<${Bar} span=${span} from=${from} to=${Math.max(from, to)} kind=${kindOf(step)} />`}
    </div>
    ${isOpen && html`<div class="step-body">
      ${step.last_error && html`<${ErrorNote} error=${step.last_error} />`}
      ${step.type === 'message_creation' && (message ? html`<${Message} message=${message} chunks=${chunks} isLive=${isLive} isOfRun />` : html`<p class="faint">The message was deleted, or is not written yet.</p>`)}
      ${(step.step_details.tool_calls ?? []).map((/** @type {any} */ call, /** @type {number} */ at) => call && html`<${Call} key=${call.id ?? at} call=${call} searches=${times?.searches ?? {}} />`)}
      <p class="faint step-foot"><${Id} id=${step.id} /> <${Time} at=${step.created_at} />
        ${step.usage && html` <span title="Tokens of this step's model call">${number(step.usage.prompt_tokens)} tokens in, ${number(step.usage.completion_tokens)} out</span>`}
        ${step.usage?.prompt_token_details?.cached_tokens > 0 && html` <span>(${number(step.usage.prompt_token_details.cached_tokens)} cached)</span>`}</p>
    </div>`}
  </li>`;
}

/** @param {{call: any, searches: Record<string, string>}} props */
function Call({ call, searches }) {
  switch (call.type) {
    case 'code_interpreter':
      return html`<${CodeCall} code=${call.code_interpreter} />`;
    case 'file_search':
      return html`<${SearchCall} search=${call.file_search} query=${queryOf(searches[call.id])} />`;
    default:
      return html`<${FunctionCall} id=${call.id} call=${call.function} />`;
  }
}

/** @param {{code: any}} props */
function CodeCall({ code }) {
  const outputs = (code?.outputs ?? []).filter(Boolean);
  return html`<section class="call" aria-label="Code">
    <h3>Input</h3>
    <${LongText} text=${code?.input ?? ''} label="Code" />
    <h3>Output</h3>
    ${outputs.length === 0 && html`<p class="faint">None.</p>`}
    ${outputs.map((/** @type {any} */ output, /** @type {number} */ at) =>
      output.type === 'image'
        ? html`<${Picture} key=${at} file=${output.image.file_id} label="Picture made by the code" />`
        : html`<${LongText} key=${at} text=${output.logs} label="Logs" />`,
    )}
  </section>`;
}

/** @param {string | undefined} text the arguments of a search, as the model wrote them */
function queryOf(text) {
  try {
    return [JSON.parse(text ?? '').queries].flat().join(' · ');
  } catch {
    return text ?? '';
  }
}

/** @param {{search: any, query: string}} props */
function SearchCall({ search, query }) {
  const results = search?.results ?? [];
  return html`<section class="call" aria-label="File search">
    ${query && html`<p dir="auto"><span class="faint">Query</span> ${query}</p>`}
    <h3>${plural(results.length, 'result')} <span class="faint">${search?.ranking_options && `ranker ${search.ranking_options.ranker}, scores from ${search.ranking_options.score_threshold}`}</span></h3>
    ${results.map((/** @type {any} */ result, /** @type {number} */ at) => html`<${Chunk} key=${at} chunk=${result} />`)}
  </section>`;
}

/** @param {{id: string, call: any}} props */
function FunctionCall({ id, call }) {
  return html`<section class="call" aria-label=${`Function ${call?.name ?? ''}`}>
    <h3 dir="auto">${call?.name} <span class="faint">${id}</span></h3>
    <h4>Arguments</h4><${LongText} text=${prettyText(call?.arguments ?? '')} label="Arguments" />
    <h4>Output</h4>
    ${call?.output === null || call?.output === undefined ? html`<p class="faint">Not submitted yet.</p>` : html`<${LongText} text=${prettyText(call.output)} label="Output" />`}
  </section>`;
}
