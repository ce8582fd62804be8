// In plain words: why a run failed, stopped early or waits.

import { duration, plural, statusName } from '../format.js';
import { html } from '../html.js';
import { useNow } from '../clock.js';

const FAILURES = /** @type {Record<string, string>} */ ({
  server_error: 'The model server or this server failed.',
  rate_limit_exceeded: 'The model server limits the rate of requests. It was asked again a few times before the run was given up.',
  invalid_prompt: 'The model server rejected the prompt.',
});
const STOPS = /** @type {Record<string, string>} */ ({
  max_prompt_tokens: 'The run used up its budget of prompt tokens (max_prompt_tokens), which is shared by all its model calls.',
  max_completion_tokens: 'The run used up its budget of completion tokens (max_completion_tokens), so the answer ends early.',
  content_filter: "The model server's content filter cut the answer off.",
});

/** @param {{run: any, execution: any}} props */
export function Why({ run, execution }) {
  const now = useNow(1000);
  const since = (/** @type {number} */ from) => duration(Math.max(0, now - from));
  switch (run.status) {
    case 'failed':
      return html`<${Note} kind="bad" title="Why it failed">
        <p>${FAILURES[run.last_error?.code] ?? 'The run failed.'}</p>
        <p class="quoted" dir="auto">${run.last_error?.message}</p><${Recoveries} execution=${execution} />
      <//>`;
    case 'incomplete':
      return html`<${Note} kind="warn" title="Why it is incomplete"><p>${STOPS[run.incomplete_details?.reason ?? 'content_filter'] ?? statusName(run.incomplete_details.reason)}</p><//>`;
    case 'expired':
      return html`<${Note} kind="warn" title="Why it expired">
        <p>It did not end in time. ${execution?.attempts === 0 ? 'No worker took it up: look at the queue on the page Health.' : 'Either the application did not submit the tool outputs, or the model took too long.'}</p>
        <p class="faint">The setting ASSISTD_RUN_EXPIRY is the time that a run has.</p><${Recoveries} execution=${execution} />
      <//>`;
    case 'cancelled':
      return html`<${Note} kind="plain" title="Cancelled"><p>A client asked to cancel it.</p><//>`;
    case 'queued':
      return html`<${Note} kind="plain" title="Why it waits">
        <p>It waits for a worker, for ${since(run.created_at * 1000)} so far. ${execution && queued(execution)}</p><${Recoveries} execution=${execution} />
      <//>`;
    case 'requires_action':
      return html`<${Note} kind="warn" title="Why it waits">
        <p>It waits for the application to submit the outputs of ${plural(run.required_action?.submit_tool_outputs.tool_calls.length ?? 0, 'function call')}.
          ${run.expires_at && ` Without them it expires in ${duration(Math.max(0, run.expires_at * 1000 - now))}.`}</p>
      <//>`;
    case 'cancelling':
      return html`<${Note} kind="plain" title="Being cancelled"><p>Its worker was told to stop.</p><//>`;
    case 'in_progress':
      return execution && !execution.is_leased
        ? html`<${Note} kind="warn" title="Without a worker"><p>Its worker was lost. Another one takes it up at once.</p><${Recoveries} execution=${execution} /><//>`
        : html`<${Recoveries} execution=${execution} isAlone />`;
    default:
      return html`<${Recoveries} execution=${execution} isAlone />`;
  }
}

/** @param {any} execution */
function queued(execution) {
  if (execution.queued_before === null) return '';
  if (execution.queued_before === 0) return 'No other run is before it.';
  const before = execution.queued_before >= 1000 ? 'At least 1,000 runs' : plural(execution.queued_before, 'run');
  return `${before} of this server ${execution.queued_before === 1 ? 'is' : 'are'} before it.`;
}

/** @param {{execution: any, isAlone?: boolean}} props */
function Recoveries({ execution, isAlone = false }) {
  if (!execution?.recoveries) return null;
  const text = html`<p>Its worker was lost ${plural(execution.recoveries, 'time')}; another one continued from the last committed step. After five times a run fails.</p>`;
  return isAlone ? html`<${Note} kind="plain" title="Recovered">${text}<//>` : text;
}

/** @param {{kind: string, title: string, children?: import('../html.js').Children}} props */
function Note({ kind, title, children }) {
  return html`<section class=${`note ${kind}`} aria-label=${title}><h2>${title}</h2>${children}</section>`;
}
