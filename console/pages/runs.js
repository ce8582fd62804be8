// All runs of the project, newest first.

import { get, post, cached } from '../api.js';
import { compact, duration, number, statusName } from '../format.js';
import { html, useEffect, useState } from '../html.js';
import { useLoad, usePages, useSettled } from '../data.js';
import { AssistantLink } from '../names.js';
import { isOver } from '../progress.js';
import { BASE, setQuery, useLocation } from '../router.js';
import { ActionButton, Duration, Empty, Metadata, PageHead, Status, Time } from '../parts/basic.js';
import { PagedTable } from '../parts/lists.js';
import { Snippets } from '../parts/code.js';
import { conversationSnippets } from '../snippets.js';

const STATUSES = ['queued', 'in_progress', 'requires_action', 'cancelling', 'completed', 'failed', 'incomplete', 'expired', 'cancelled'];
const PERIODS = /** @type {Record<string, [string, number]>} */ ({
  hour: ['Last hour', 3600],
  day: ['Last 24 hours', 86_400],
  week: ['Last 7 days', 604_800],
});

/**
 * The query of the API for the filters in the address.
 * @param {URLSearchParams} place
 */
export function toFilter(place) {
  /** @type {Record<string, any>} */
  const filter = { assistant_id: place.get('assistant'), model: place.get('model') };
  const period = PERIODS[place.get('period') ?? ''];
  // Rounded, so that the same list is asked for again and again.
  if (period) filter.created_after = Math.floor(Date.now() / 60_000) * 60 - period[1];
  const from = Date.parse(place.get('from') ?? '');
  const to = Date.parse(place.get('to') ?? '');
  if (from) filter.created_after = Math.floor(from / 1000);
  if (to) filter.created_before = Math.floor(to / 1000);
  for (const pair of (place.get('metadata') ?? '').split(',')) {
    const at = pair.indexOf('=');
    if (at > 0) filter[`metadata[${pair.slice(0, at).trim()}]`] = pair.slice(at + 1).trim();
  }
  return filter;
}

export default function Runs() {
  const { query: place } = useLocation();
  const filter = toFilter(place);
  const statuses = (place.get('status') ?? '').split(',').filter(Boolean);
  const pages = usePages('/v1/runs', { ...filter, status: statuses.join(',') }, { every: 2500 });
  const counts = useLoad((signal) => get('/v1/runs/counts', filter, signal), [JSON.stringify(filter)], { every: 5000 });
  const isFiltered = Boolean(location.search);
  return html`
    <${PageHead} title="Runs" name="Runs">
      <span class="live" title="This list is updated while the tab is visible">Live</span>
    <//>
    <${StatusFilter} counts=${counts.data} selected=${statuses} />
    <${Filters} key=${isFiltered ? 'filtered' : 'all'} place=${place} />
    <${PagedTable} class="runs-table" label="Runs" pages=${pages} columns=${COLUMNS(pages)} empty=${html`<${NoRuns} isFiltered=${isFiltered} />`} />
  `;
}

/** @param {any} pages */
const COLUMNS = (pages) => [
  { name: 'Status', cell: (/** @type {any} */ run) => html`<a class="plain" href=${`${BASE}/runs/${run.id}`}><${Status} status=${run.status} /></a>` },
  {
    name: 'Run',
    class: 'wide',
    cell: (/** @type {any} */ run) => html`<div class="run-name"><a href=${`${BASE}/runs/${run.id}`}>${run.id}</a> <${Metadata} metadata=${run.metadata} /></div><${Outcome} run=${run} />`,
  },
  { name: 'Assistant', class: 'clip', cell: (/** @type {any} */ run) => html`<${AssistantLink} id=${run.assistant_id} />` },
  { name: 'Model', class: 'clip', cell: (/** @type {any} */ run) => html`<span title=${run.model}>${run.model}</span>` },
  { name: 'Created', cell: (/** @type {any} */ run) => html`<${Time} at=${run.created_at} />` },
  { name: 'Time', class: 'right', cell: (/** @type {any} */ run) => html`<${RunTime} run=${run} />` },
  { name: 'Tokens', class: 'right', cell: (/** @type {any} */ run) => run.usage && html`<span class="number" title=${`${number(run.usage.prompt_tokens)} in, ${number(run.usage.completion_tokens)} out`}>${compact(run.usage.total_tokens)}</span>` },
  { name: 'Actions', class: 'right', cell: (/** @type {any} */ run) => html`<${Cancel} run=${run} onDone=${pages.refresh} />` },
];

/** @param {{run: any}} props */
export function RunTime({ run }) {
  const ended = run.completed_at ?? run.failed_at ?? run.cancelled_at;
  if (run.status === 'expired') return '—';
  if (ended) return html`<span class="number">${ended - run.created_at < 1 ? '< 1 s' : duration((ended - run.created_at) * 1000)}</span>`;
  return html`<${Duration} from=${run.created_at * 1000} to=${isOver(run.status) ? run.created_at * 1000 : null} />`;
}

/** @param {{run: any}} props why a run did not complete, in one line */
function Outcome({ run }) {
  const reason = run.last_error?.message ?? (run.status === 'incomplete' ? `Stopped: ${statusName(run.incomplete_details?.reason ?? 'content filter')}` : '');
  return reason && html`<div class="outcome bad-text" title=${reason}>${reason}</div>`;
}

/** @param {{run: any, onDone: () => void}} props */
export function Cancel({ run, onDone }) {
  if (isOver(run.status) || run.status === 'cancelling') return null;
  const cancel = async () => {
    await post(`/v1/threads/${run.thread_id}/runs/${run.id}/cancel`);
    onDone();
  };
  return html`<${ActionButton} class="small" action=${cancel}>Cancel<//>`;
}

/** @param {{counts: any, selected: string[]}} props */
function StatusFilter({ counts, selected }) {
  const toggle = (/** @type {string} */ status) => {
    const next = selected.includes(status) ? selected.filter((one) => one !== status) : [...selected, status];
    setQuery({ status: next.join(',') });
  };
  const more = counts?.has_more ? '+' : '';
  return html`<div class="chips" role="group" aria-label="Filter by status">
    <button type="button" class="chip" aria-pressed=${!selected.length} onClick=${() => setQuery({ status: null })}>
      All <span class="count" title=${more ? 'The newest 10,000 are counted' : ''}>${counts ? compact(counts.total) + more : ''}</span>
    </button>
    ${STATUSES.map((status) => {
      const count = counts?.counts[status] ?? 0;
      return html`<button type="button" class="chip" key=${status} data-status=${status} data-empty=${!count} aria-pressed=${selected.includes(status)} onClick=${() => toggle(status)}>
        <span class="dot" aria-hidden="true"></span>${statusName(status)} <span class="count">${counts ? compact(count) : ''}</span>
      </button>`;
    })}
  </div>`;
}

/** @param {{place: URLSearchParams}} props */
function Filters({ place }) {
  const assistants = useLoad(() => cached('/v1/assistants', { limit: 100 }), []);
  const models = useLoad(() => cached('/v1/models'), []);
  const known = assistants.data?.data ?? [];
  const chosen = place.get('assistant') ?? '';
  return html`<div class="filters" role="group" aria-label="More filters">
    <label>Assistant
      <select value=${chosen} onChange=${(/** @type {any} */ event) => setQuery({ assistant: event.target.value })}>
        <option value="">Any</option>
        ${chosen && !known.some((/** @type {any} */ one) => one.id === chosen) && html`<option value=${chosen}>${chosen}</option>`}
        ${known.map((/** @type {any} */ one) => html`<option key=${one.id} value=${one.id}>${one.name || one.id}</option>`)}
      </select>
    </label>
    <label>Model <${SettledInput} name="model" place=${place} placeholder="Any" list="model-names" /></label>
    <datalist id="model-names">${models.data?.data.map((/** @type {any} */ model) => html`<option key=${model.id} value=${model.id} />`)}</datalist>
    <${PeriodFields} place=${place} />
    <label>Metadata <${SettledInput} name="metadata" place=${place} placeholder="key=value, …" /></label>
    ${location.search && html`<button type="button" class="link" onClick=${() => setQuery(NOTHING)}>Clear</button>`}
  </div>`;
}

/** @param {{place: URLSearchParams}} props the time of creation */
export function PeriodFields({ place }) {
  const period = place.get('period') ?? (place.get('from') || place.get('to') ? 'range' : '');
  const [isRange, setRange] = useState(period === 'range');
  const choosePeriod = (/** @type {string} */ value) => {
    setRange(value === 'range');
    setQuery({ period: value === 'range' ? null : value, from: null, to: null });
  };
  return html`
    <label>Created
      <select value=${isRange ? 'range' : period} onChange=${(/** @type {any} */ event) => choosePeriod(event.target.value)}>
        <option value="">At any time</option>
        ${Object.entries(PERIODS).map(([name, [label]]) => html`<option key=${name} value=${name}>${label}</option>`)}
        <option value="range">Between…</option>
      </select>
    </label>
    ${isRange && html`
      <label>From <input type="datetime-local" value=${place.get('from') ?? ''} onChange=${(/** @type {any} */ event) => setQuery({ from: event.target.value })} /></label>
      <label>To <input type="datetime-local" value=${place.get('to') ?? ''} onChange=${(/** @type {any} */ event) => setQuery({ to: event.target.value })} /></label>`}
  `;
}

const NOTHING = { status: null, assistant: null, model: null, period: null, from: null, to: null, metadata: null };

/**
 * A text of the query, which changes once nothing more is typed.
 * @param {{name: string, place: URLSearchParams, placeholder: string, list?: string}} props
 */
export function SettledInput({ name, place, placeholder, list }) {
  const shown = place.get(name) ?? '';
  const [text, setText] = useState(shown);
  const settled = useSettled(text);
  useEffect(() => {
    if (settled !== shown) setQuery({ [name]: settled });
  }, [settled]);
  return html`<input value=${text} placeholder=${placeholder} list=${list} spellcheck="false" onInput=${(/** @type {any} */ event) => setText(event.target.value)} />`;
}

/** @param {{isFiltered: boolean}} props */
function NoRuns({ isFiltered }) {
  if (isFiltered) return html`<${Empty} title="No run matches"><p>No run of this project meets all conditions.</p><//>`;
  const snippets = conversationSnippets({ assistant_id: 'asst_…' }, 'Hello!');
  return html`<${Empty} title="No runs yet">
    <p>Runs appear here as soon as an application makes them. To make the first one, <a href=${`${BASE}/assistants`}>create an assistant</a>${' '}
      and talk to it in the <a href=${`${BASE}/playground`}>playground</a>, or point an application at this server:</p>
    <${Snippets} snippets=${snippets} />
  <//>`;
}
