// Projects with their keys and limits.

import { get, post, remove } from '../api.js';
import { bytes, number } from '../format.js';
import { html, useState } from '../html.js';
import { useLoad, usePages } from '../data.js';
import { ActionButton, CopyButton, Dialog, Empty, ErrorNote, Id, Loading, Time } from './basic.js';
import { Field } from './fields.js';
import { PagedTable } from './lists.js';

/** @type {[string, string][]} */
const LIMITS = [
  ['max_concurrent_runs', 'Runs at a time'],
  ['requests_per_minute', 'Requests per minute'],
  ['tokens_per_minute', 'Tokens per minute'],
  ['storage_bytes', 'Bytes of files'],
];

/** @param {any} limits in a few words */
function summary(limits) {
  const shown = [
    limits.max_concurrent_runs && `${number(limits.max_concurrent_runs)} runs`,
    limits.requests_per_minute && `${number(limits.requests_per_minute)} requests/min`,
    limits.tokens_per_minute && `${number(limits.tokens_per_minute)} tokens/min`,
    limits.storage_bytes && bytes(limits.storage_bytes),
  ].filter(Boolean);
  return shown.length ? shown.join(', ') : html`<span class="faint">none</span>`;
}

export function Projects() {
  const pages = usePages('/admin/projects', {});
  const [open, setOpen] = useState(/** @type {{kind: 'keys' | 'edit', project: any} | null} */ (null));
  const columns = [
    { name: 'Project', class: 'wide', cell: (/** @type {any} */ one) => one.name },
    { name: 'Id', cell: (/** @type {any} */ one) => html`<${Id} id=${one.id} />` },
    { name: 'Limits', cell: (/** @type {any} */ one) => summary(one.limits) },
    { name: 'Created', cell: (/** @type {any} */ one) => html`<${Time} at=${one.created_at} />` },
    {
      name: 'Actions',
      class: 'right',
      cell: (/** @type {any} */ one) => html`<span class="actions"><button type="button" class="small" onClick=${() => setOpen({ kind: 'keys', project: one })}>Keys</button>
        <button type="button" class="small" onClick=${() => setOpen({ kind: 'edit', project: one })}>Edit</button></span>`,
    },
  ];
  return html`
    <div class="row spaced"><${NewProject} onDone=${pages.refresh} /></div>
    <${PagedTable} class="projects-table" label="Projects" pages=${pages} columns=${columns} empty=${html`<${Empty} title="No projects yet"><p>Objects belong to a project, and an API key opens one.</p><//>`} />
    ${open?.kind === 'keys' && html`<${Keys} project=${open.project} onClose=${() => setOpen(null)} />`}
    ${open?.kind === 'edit' && html`<${Edit} project=${open.project} onClose=${() => setOpen(null)} onDone=${pages.refresh} />`}
  `;
}

/** @param {{onDone: () => void}} props */
function NewProject({ onDone }) {
  const [name, setName] = useState('');
  const create = async () => {
    await post('/admin/projects', { name: name.trim() });
    setName('');
    onDone();
  };
  return html`<input aria-label="Name of the new project" placeholder="Name" value=${name} maxlength="200" onInput=${(/** @type {any} */ event) => setName(event.target.value)} />
    <${ActionButton} action=${create} disabled=${!name.trim()}>New project<//>`;
}

/** @param {{project: any, onClose: () => void, onDone: () => void}} props */
function Edit({ project, onClose, onDone }) {
  const [name, setName] = useState(project.name);
  const [limits, setLimits] = useState(/** @type {Record<string, string>} */ (Object.fromEntries(LIMITS.map(([id]) => [id, String(project.limits[id] ?? '')]))));
  const save = async () => {
    const values = Object.fromEntries(LIMITS.map(([id]) => [id, limits[id] ? Number(limits[id]) : null]));
    await post(`/admin/projects/${project.id}`, { name, limits: values });
    onDone();
    onClose();
  };
  return html`<${Dialog} title=${`Project ${project.name}`} onClose=${onClose}><div class="stack">
    <${Field} label="Name">${(/** @type {string} */ id) => html`<input id=${id} value=${name} maxlength="200" onInput=${(/** @type {any} */ event) => setName(event.target.value)} />`}<//>
    ${LIMITS.map(([limit, label]) => html`<${Field} key=${limit} label=${label}>${(/** @type {string} */ id) => html`<input id=${id} type="number" min="1" placeholder="No limit" value=${limits[limit]}
      onInput=${(/** @type {any} */ event) => setLimits({ ...limits, [limit]: event.target.value })} />`}<//>`)}
    <div class="buttons"><button type="button" onClick=${onClose}>Keep</button><${ActionButton} class="primary" action=${save}>Save<//></div>
  </div><//>`;
}

/** @param {{project: any, onClose: () => void}} props */
function Keys({ project, onClose }) {
  const path = `/admin/projects/${project.id}/keys`;
  const list = useLoad((signal) => get(path, { limit: 100 }, signal), [path]);
  const [name, setName] = useState('');
  const [made, setMade] = useState(/** @type {any} */ (null));
  const create = async () => {
    setMade(await post(path, name.trim() ? { name: name.trim() } : {}));
    setName('');
    await list.reload();
  };
  const revoke = async (/** @type {any} */ one) => {
    await remove(`${path}/${one.id}`);
    await list.reload();
  };
  return html`<${Dialog} title=${`Keys of ${project.name}`} isWide onClose=${onClose}><div class="stack">
    <div class="row"><input aria-label="Name of the new key" placeholder="Name" value=${name} maxlength="200" onInput=${(/** @type {any} */ event) => setName(event.target.value)} />
      <${ActionButton} action=${create}>New key<//></div>
    ${made && html`<div class="note warn"><p>This is the key. It is shown only now:</p><p class="row"><code>${made.value}</code><${CopyButton} text=${made.value} label="Copy the key" class="small" /></p></div>`}
    <${ErrorNote} error=${list.error} />
    ${list.isLoading && html`<${Loading} />`}
    ${list.data?.data.length === 0 && html`<p class="faint">No keys yet.</p>`}
    <ul class="plain-list">${list.data?.data.map((/** @type {any} */ one) => html`<li class="row" key=${one.id}>
      <span dir="auto"><b>${one.name}</b></span><code>${one.redacted_value}</code><span class="faint">created <${Time} at=${one.created_at} /></span><span class="spacer"></span>
      ${one.revoked_at ? html`<span class="faint">revoked <${Time} at=${one.revoked_at} /></span>` : html`<${ActionButton} class="small danger" action=${() => revoke(one)} confirm=${`Applications with the key ${one.name} are refused within five seconds.`}>Revoke<//>`}
    </li>`)}</ul>
  </div><//>`;
}
