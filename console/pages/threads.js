// The threads of the project, newest first.

import { post } from '../api.js';
import { html } from '../html.js';
import { usePages } from '../data.js';
import { BASE, navigate, setQuery, useLocation } from '../router.js';
import { createSnippets } from '../snippets.js';
import { ActionButton, Empty, Metadata, PageHead, Time } from '../parts/basic.js';
import { Snippets } from '../parts/code.js';
import { PagedTable } from '../parts/lists.js';
import { PeriodFields, SettledInput, toFilter } from './runs.js';

export default function Threads() {
  const { query: place } = useLocation();
  const { assistant_id: _, model: __, ...filter } = toFilter(place);
  const order = place.get('order') === 'asc' ? 'asc' : null;
  const pages = usePages('/v1/threads', { ...filter, order }, { every: 5000 });
  const isFiltered = Object.keys(filter).length > 0;
  const create = async () => navigate(`/threads/${(await post('/v1/threads')).id}`);
  return html`
    <${PageHead} title="Threads" name="Threads"><${ActionButton} action=${create}>New thread<//><//>
    <div class="filters" role="group" aria-label="Filters">
      <label>Metadata <${SettledInput} name="metadata" place=${place} placeholder="key=value, …" /></label>
      <${PeriodFields} place=${place} />
      <label>Order
        <select value=${order ?? 'desc'} onChange=${(/** @type {any} */ event) => setQuery({ order: event.target.value === 'asc' ? 'asc' : null })}>
          <option value="desc">Newest first</option><option value="asc">Oldest first</option>
        </select>
      </label>
    </div>
    <${PagedTable} class="threads-table" label="Threads" pages=${pages} columns=${COLUMNS} empty=${html`<${NoThreads} isFiltered=${isFiltered} />`} />
  `;
}

/** @param {any} thread the tools that it has files or stores for */
function resources(thread) {
  const files = thread.tool_resources?.code_interpreter?.file_ids?.length ?? 0;
  const stores = thread.tool_resources?.file_search?.vector_store_ids?.length ?? 0;
  return [files && `${files} for code`, stores && 'file search'].filter(Boolean).join(', ');
}

const COLUMNS = [
  { name: 'Thread', class: 'wide mono', cell: (/** @type {any} */ thread) => html`<a href=${`${BASE}/threads/${thread.id}`}>${thread.id}</a>` },
  { name: 'Metadata', cell: (/** @type {any} */ thread) => html`<${Metadata} metadata=${thread.metadata} />` },
  { name: 'Files', cell: resources },
  { name: 'Created', cell: (/** @type {any} */ thread) => html`<${Time} at=${thread.created_at} />` },
];

/** @param {{isFiltered: boolean}} props */
function NoThreads({ isFiltered }) {
  if (isFiltered) return html`<${Empty} title="No thread matches"><p>No thread meets all conditions.</p><//>`;
  const body = { messages: [{ role: 'user', content: 'Hello!' }], metadata: { user: 'ada' } };
  return html`<${Empty} title="No threads yet">
    <p>A thread is a conversation. Applications make one for each, and mark it by metadata to find it again:</p>
    <${Snippets} snippets=${createSnippets('/threads', body, 'client.beta.threads.create', 'client.beta.threads.create')} />
  <//>`;
}
