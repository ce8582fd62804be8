// One run: what it did, why it stands where it stands, and how to repeat it.

import { get } from '../api.js';
import { compact, duration, number } from '../format.js';
import { html, useEffect } from '../html.js';
import { useLoad } from '../data.js';
import { AssistantLink } from '../names.js';
import { isActive, isOver, useProgress } from '../progress.js';
import { BASE, setQuery, useLocation } from '../router.js';
import { runSnippets } from '../snippets.js';
import { ErrorNote, Facts, Id, Loading, Metadata, PageHead, Status, Tabs, Time } from '../parts/basic.js';
import { Json, LongText, Snippets } from '../parts/code.js';
import { OutputsForm } from '../parts/outputs.js';
import { Timeline } from '../parts/steps.js';
import { Why } from '../parts/why.js';
import { Cancel } from './runs.js';

/** @param {{id: string}} props */
export default function RunPage({ id }) {
  const { query } = useLocation();
  const started = useLoad((signal) => get(`/v1/objects/${id}`, {}, signal), [id]);
  const { progress, error, isConnected, restart } = useProgress(started.data);
  const run = progress?.run ?? started.data;
  const count = progress?.steps.length ?? 0;
  const every = run && !isOver(run.status) ? 2000 : null;
  const execution = useLoad((signal) => get(`/v1/runs/${id}/execution`, {}, signal), [id, run?.status, count], { every, keep: true });
  const marked = query.get('step');
  useEffect(() => {
    if (marked && count) document.getElementById(marked)?.scrollIntoView({ block: 'center' });
  }, [marked, count > 0]);
  if (!run) return started.error ? html`<${ErrorNote} error=${started.error} onRetry=${started.reload} />` : html`<${Loading} />`;
  const tab = query.get('tab') ?? 'steps';
  const tabs = [
    { id: 'steps', name: `Steps ${count || ''}` },
    { id: 'settings', name: 'Settings' },
    { id: 'json', name: 'JSON' },
    { id: 'code', name: 'Code' },
  ];
  return html`
    <${PageHead} name=${`Run ${id}`} above=${html`<a href=${`${BASE}/runs`}>Runs</a>`} title=${html`Run <${Status} status=${run.status} />`}>
      ${isActive(run.status) && html`<span class="live" data-off=${!isConnected}>${isConnected ? 'Live' : 'Reconnecting…'}</span>`}
      <${Cancel} run=${run} onDone=${restart} />
    <//>
    <${Summary} run=${run} execution=${execution.data} />
    <${ErrorNote} error=${error} onRetry=${restart} />
    <${Why} run=${run} execution=${execution.data} />
    ${run.status === 'requires_action' && html`<${OutputsForm} key=${run.required_action?.submit_tool_outputs.tool_calls[0]?.id} run=${run} onDone=${restart} />`}
    <${Tabs} tabs=${tabs} current=${tab} onSelect=${(/** @type {string} */ name) => setQuery({ tab: name === 'steps' ? null : name })} label="Views of the run" />
    ${tab === 'steps' && (progress ? html`<${Timeline} progress=${progress} execution=${execution.data} marked=${marked} />` : html`<${Loading} label="Loading the steps…" />`)}
    ${tab === 'settings' && html`<${Settings} run=${run} />`}
    ${tab === 'json' && html`<${Raw} run=${run} progress=${progress} execution=${execution.data} />`}
    ${tab === 'code' && html`<${Repeat} run=${run} />`}
  `;
}

/** @param {{run: any, execution: any}} props */
function Summary({ run, execution }) {
  const usage = run.usage;
  const took = execution?.ended_at_ms && duration(execution.ended_at_ms - execution.created_at_ms);
  const spent = usage && html`<span title=${`${number(usage.prompt_tokens)} in, ${number(usage.completion_tokens)} out`}>${compact(usage.prompt_tokens)} in, ${compact(usage.completion_tokens)} out</span>`;
  return html`<${Facts} items=${[
    ['Id', html`<${Id} id=${run.id} isLong />`],
    ['Assistant', html`<${AssistantLink} id=${run.assistant_id} />`],
    ['Thread', html`<a href=${`${BASE}/threads/${run.thread_id}`}>${run.thread_id}</a>`],
    ['Model', run.model],
    ['Created', html`<${Time} at=${run.created_at} />`],
    ['Took', took],
    ['Tokens', spent],
    ['Attempts', execution?.attempts > 1 && html`${execution.attempts}${execution.recoveries > 0 && html`, ${execution.recoveries} after a lost worker`}`],
    ['Metadata', Object.keys(run.metadata ?? {}).length > 0 && html`<${Metadata} metadata=${run.metadata} />`],
  ]} />`;
}

/** @param {{run: any}} props */
function Settings({ run }) {
  return html`<div class="stack">
    <${Facts} items=${[
      ['Temperature', run.temperature],
      ['Top p', run.top_p],
      ['Reasoning effort', run.reasoning_effort],
      ['Most prompt tokens', run.max_prompt_tokens],
      ['Most completion tokens', run.max_completion_tokens],
      ['Truncation', run.truncation_strategy.type === 'auto' ? 'auto' : `the last ${run.truncation_strategy.last_messages} messages`],
      ['Tool choice', typeof run.tool_choice === 'string' ? run.tool_choice : JSON.stringify(run.tool_choice)],
      ['Parallel tool calls', run.parallel_tool_calls ? 'yes' : 'no'],
    ]} />
    <h2>Instructions</h2>
    ${run.instructions ? html`<${LongText} text=${run.instructions} label="Instructions" />` : html`<p class="faint">None.</p>`}
    <h2>Tools</h2>
    ${run.tools.length ? html`<${Json} value=${run.tools} label="Tools" />` : html`<p class="faint">None.</p>`}
    <h2>Response format</h2>
    <${Json} value=${run.response_format} label="Response format" />
  </div>`;
}

/** @param {{run: any, progress: any, execution: any}} props */
function Raw({ run, progress, execution }) {
  return html`<div class="stack">
    <h2>Run</h2><${Json} value=${run} label="Run" />
    <h2>Steps</h2><${Json} value=${progress?.steps ?? []} label="Steps" />
    <h2>Messages</h2><${Json} value=${Object.values(progress?.messages ?? {})} label="Messages" />
    <h2>Execution</h2><${Json} value=${execution ?? null} label="Execution" />
  </div>`;
}

/** @param {{run: any}} props */
function Repeat({ run }) {
  /** @type {Record<string, any>} */
  const body = { assistant_id: run.assistant_id, model: run.model, instructions: run.instructions };
  if (run.tools.length) body.tools = run.tools;
  if (run.temperature !== 1) body.temperature = run.temperature;
  if (run.top_p !== 1) body.top_p = run.top_p;
  for (const name of ['reasoning_effort', 'max_prompt_tokens', 'max_completion_tokens']) if (run[name]) body[name] = run[name];
  if (run.response_format !== 'auto') body.response_format = run.response_format;
  if (run.tool_choice !== 'auto') body.tool_choice = run.tool_choice;
  return html`<p class="faint">This creates the same run once more, on the thread as it is now.</p>
    <${Snippets} snippets=${runSnippets(run.thread_id, body)} />`;
}
