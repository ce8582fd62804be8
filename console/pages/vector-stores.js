// The vector stores of the project.

import { post } from '../api.js';
import { bytes, number } from '../format.js';
import { html } from '../html.js';
import { usePages } from '../data.js';
import { BASE, navigate } from '../router.js';
import { createSnippets } from '../snippets.js';
import { ActionButton, Empty, PageHead, Status, Time } from '../parts/basic.js';
import { Snippets } from '../parts/code.js';
import { PagedTable } from '../parts/lists.js';

/** @param {{counts: any}} props how many files a store has, and which need attention */
export function FileCounts({ counts }) {
  return html`<span class="number">${number(counts.total)}</span>
    ${counts.in_progress > 0 && html` <span class="faint">${number(counts.in_progress)} being indexed</span>`}
    ${counts.failed > 0 && html` <span class="bad-text">${number(counts.failed)} failed</span>`}`;
}

const COLUMNS = [
  { name: 'Status', cell: (/** @type {any} */ store) => html`<${Status} status=${store.status} />` },
  { name: 'Vector store', class: 'wide', cell: (/** @type {any} */ store) => html`<a href=${`${BASE}/vector-stores/${store.id}`}>${store.name || store.id}</a>` },
  { name: 'Files', cell: (/** @type {any} */ store) => html`<${FileCounts} counts=${store.file_counts} />` },
  { name: 'Size', class: 'right', cell: (/** @type {any} */ store) => html`<span class="number">${bytes(store.usage_bytes)}</span>` },
  { name: 'Last used', cell: (/** @type {any} */ store) => html`<${Time} at=${store.last_active_at} />` },
  { name: 'Expires', cell: (/** @type {any} */ store) => (store.expires_at ? html`<${Time} at=${store.expires_at} />` : html`<span class="faint">never</span>`) },
];

export default function VectorStores() {
  const pages = usePages('/v1/vector_stores', {}, { every: 5000 });
  const create = async () => navigate(`/vector-stores/${(await post('/v1/vector_stores')).id}`);
  const snippets = createSnippets('/vector_stores', { name: 'Handbook', file_ids: ['file-…'] }, 'client.vector_stores.create', 'client.vectorStores.create');
  const empty = html`<${Empty} title="No vector stores yet">
    <p>A vector store holds files that assistants search. Create one with the button above and drop files on it, or by a program:</p>
    <${Snippets} snippets=${snippets} />
  <//>`;
  return html`
    <${PageHead} title="Vector stores" name="Vector stores"><${ActionButton} class="primary" action=${create}>New vector store<//><//>
    <${PagedTable} class="stores-table" label="Vector stores" pages=${pages} columns=${COLUMNS} empty=${empty} />
  `;
}
