// Who changed projects, keys and webhook endpoints.

import { html } from '../html.js';
import { usePages } from '../data.js';
import { Empty, Id, Time } from './basic.js';
import { PagedTable } from './lists.js';

const COLUMNS = [
  { name: 'Time', cell: (/** @type {any} */ entry) => html`<${Time} at=${entry.created_at} />` },
  { name: 'Actor', class: 'clip', cell: (/** @type {any} */ entry) => html`<span title=${entry.actor}>${entry.actor}</span>` },
  { name: 'Action', cell: (/** @type {any} */ entry) => entry.action },
  { name: 'Object', cell: (/** @type {any} */ entry) => html`<${Id} id=${entry.target} />` },
  { name: 'Details', class: 'wide', cell: (/** @type {any} */ entry) => html`<code>${JSON.stringify(entry.details)}</code>` },
];

export function AuditLog() {
  const pages = usePages('/admin/audit_log', {}, { every: 10_000 });
  return html`<${PagedTable} class="audit-table" label="Audit log" pages=${pages} columns=${COLUMNS} empty=${html`<${Empty} title="Nothing was changed yet" />`} />`;
}
