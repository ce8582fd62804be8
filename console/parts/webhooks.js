// Webhook endpoints and their deliveries.

import { get, post } from '../api.js';
import { html, useState } from '../html.js';
import { useLoad, usePages } from '../data.js';
import { ActionButton, Dialog, Empty, Id, Status, Time } from './basic.js';
import { Code } from './code.js';
import { PagedTable } from './lists.js';

export function Webhooks() {
  const list = useLoad((signal) => get('/admin/webhooks', {}, signal), [], { every: 5000 });
  const [open, setOpen] = useState(/** @type {any} */ (null));
  const pages = { items: list.data?.data, hasMore: false, isLoading: list.isLoading, error: list.error, refresh: list.reload };
  const enable = async (/** @type {any} */ one) => {
    await post(`/admin/webhooks/${one.id}/enable`);
    await list.reload();
  };
  const columns = [
    { name: 'Status', cell: (/** @type {any} */ one) => html`<${Status} status=${one.status} />` },
    {
      name: 'Endpoint',
      class: 'wide',
      cell: (/** @type {any} */ one) => html`<div class="clip" title=${one.url}>${one.url}</div><${Id} id=${one.id} />
        ${one.disabled_reason && html`<div class="outcome bad-text" title=${one.disabled_reason}>${one.disabled_reason}</div>`}
        ${one.failing_since && html`<div class="outcome bad-text">Failing since <${Time} at=${one.failing_since} /></div>`}`,
    },
    { name: 'Project', class: 'clip', cell: (/** @type {any} */ one) => one.project_name },
    { name: 'Events', cell: (/** @type {any} */ one) => (one.events ? one.events.join(', ') : 'all') },
    {
      name: 'Actions',
      class: 'right',
      cell: (/** @type {any} */ one) => html`<span class="actions"><button type="button" class="small" onClick=${() => setOpen(one)}>Deliveries</button>
        ${one.status === 'disabled' && html`<${ActionButton} class="small" action=${() => enable(one)}>Enable<//>`}</span>`,
    },
  ];
  const empty = html`<${Empty} title="No webhook endpoints">
    <p>The server posts an event to an endpoint when a run has ended or a file is indexed. Add one on the server's machine:</p>
    <${Code} text="assistd webhooks add --project shop --url https://app.example.com/hooks/assistd" label="Command" />
  <//>`;
  return html`<${PagedTable} class="webhooks-table" label="Webhook endpoints" pages=${pages} columns=${columns} empty=${empty} />
    ${open && html`<${Deliveries} endpoint=${open} onClose=${() => setOpen(null)} />`}`;
}

/** @param {{endpoint: any, onClose: () => void}} props */
function Deliveries({ endpoint, onClose }) {
  const path = `/admin/webhooks/${endpoint.id}`;
  const pages = usePages(`${path}/deliveries`, {}, { every: 2000 });
  const again = async (/** @type {any} */ one) => {
    await post(`${path}/redeliver/${one.id}`);
    await pages.refresh();
  };
  const columns = [
    { name: 'Status', cell: (/** @type {any} */ one) => html`<${Status} status=${one.status} />` },
    {
      name: 'Event',
      class: 'wide',
      cell: (/** @type {any} */ one) => html`${one.event_type} <${Id} id=${one.event_id} />${one.last_error && html`<div class="outcome bad-text" title=${one.last_error}>${one.last_error}</div>`}`,
    },
    { name: 'About', cell: (/** @type {any} */ one) => html`<${Id} id=${one.subject} />` },
    { name: 'Attempts', class: 'right', cell: (/** @type {any} */ one) => html`<span class="number">${one.attempts}</span>` },
    { name: 'Time', cell: (/** @type {any} */ one) => html`<${Time} at=${one.delivered_at ?? one.created_at} />${one.status === 'pending' && html`<div class="faint">next <${Time} at=${one.next_attempt_at} /></div>`}` },
    { name: 'Actions', class: 'right', cell: (/** @type {any} */ one) => html`<${ActionButton} class="small" action=${() => again(one)}>Redeliver<//>` },
  ];
  return html`<${Dialog} title="Deliveries" isWide onClose=${onClose}>
    <p class="faint">To ${endpoint.url}. Delivered events are deleted after a day.</p>
    <${PagedTable} class="deliveries-table" label="Deliveries" pages=${pages} columns=${columns} empty=${html`<${Empty} title="No deliveries yet" />`} />
  <//>`;
}
