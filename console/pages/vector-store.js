// One vector store: its files, what failed, and a search.

import { get, post, remove } from '../api.js';
import { bytes, plural } from '../format.js';
import { html, useCallback, useState } from '../html.js';
import { useLoad, usePages } from '../data.js';
import { FileLink } from '../names.js';
import { BASE, navigate, setQuery, useLocation } from '../router.js';
import { ActionButton, Dialog, Empty, ErrorNote, Facts, Id, Loading, Metadata, PageHead, Status, Tabs, Time } from '../parts/basic.js';
import { Json, LongText } from '../parts/code.js';
import { Field } from '../parts/fields.js';
import { PagedTable } from '../parts/lists.js';
import { Chunk } from '../parts/message.js';
import { MetadataEditor } from '../parts/metadata.js';
import { UploadList, useUploads } from '../parts/uploads.js';
import { FileCounts } from './vector-stores.js';

/** @param {{id: string}} props */
export default function VectorStorePage({ id }) {
  const { query } = useLocation();
  const isBusy = (/** @type {any} */ store) => (store?.status === 'in_progress' ? 1500 : 10_000);
  const store = useLoad((signal) => get(`/v1/vector_stores/${id}`, {}, signal), [id], { every: isBusy });
  if (!store.data) return store.error ? html`<${ErrorNote} error=${store.error} onRetry=${store.reload} />` : html`<${Loading} />`;
  const tab = query.get('tab') ?? 'files';
  const tabs = [{ id: 'files', name: 'Files' }, { id: 'search', name: 'Search' }, { id: 'settings', name: 'Settings' }, { id: 'json', name: 'JSON' }];
  const deleteIt = async () => {
    await remove(`/v1/vector_stores/${id}`);
    navigate('/vector-stores');
  };
  return html`
    <${PageHead} name=${store.data.name || 'Vector store'} title=${html`${store.data.name || 'Vector store without a name'} <${Status} status=${store.data.status} />`}
      above=${html`<a href=${`${BASE}/vector-stores`}>Vector stores</a>`}>
      <${ActionButton} class="danger" action=${deleteIt} confirm="This deletes the vector store and its index. The files themselves stay.">Delete<//>
    <//>
    <${ErrorNote} error=${store.error} onRetry=${store.reload} />
    <${Facts} items=${[
      ['Id', html`<${Id} id=${id} isLong />`],
      ['Files', html`<${FileCounts} counts=${store.data.file_counts} />`],
      ['Size', bytes(store.data.usage_bytes)],
      ['Last used', html`<${Time} at=${store.data.last_active_at} />`],
      ['Expires', store.data.expires_at && html`<${Time} at=${store.data.expires_at} />`],
      ['Description', store.data.description],
      ['Metadata', html`<${Metadata} metadata=${store.data.metadata} /> <${MetadataEditor} path=${`/v1/vector_stores/${id}`} metadata=${store.data.metadata} onDone=${store.set} />`],
    ]} />
    <${Tabs} tabs=${tabs} current=${tab} onSelect=${(/** @type {string} */ name) => setQuery({ tab: name === 'files' ? null : name })} label="Views of the vector store" />
    ${tab === 'files' && html`<${Files} id=${id} isBusy=${store.data.status === 'in_progress'} onChange=${store.reload} filter=${query.get('filter')} />`}
    ${tab === 'search' && html`<${Search} id=${id} />`}
    ${tab === 'settings' && html`<${Settings} store=${store.data} onDone=${store.set} />`}
    ${tab === 'json' && html`<${Json} value=${store.data} label="Vector store" />`}
  `;
}

/** @param {{id: string, isBusy: boolean, onChange: () => void, filter: string | null}} props */
function Files({ id, isBusy, onChange, filter }) {
  const path = `/v1/vector_stores/${id}/files`;
  const pages = usePages(path, { filter }, { every: isBusy ? 1500 : 10_000 });
  const [shown, setShown] = useState('');
  const refresh = () => Promise.all([pages.refresh(), onChange()]);
  const add = useCallback(async (/** @type {any} */ file) => {
    await post(path, { file_id: file.id });
    await refresh();
  }, [path, pages.refresh]);
  const uploads = useUploads(add);
  const retry = async (/** @type {any} */ file) => {
    await remove(`${path}/${file.id}`);
    await post(path, { file_id: file.id, attributes: file.attributes, chunking_strategy: file.chunking_strategy });
    await refresh();
  };
  const takeOut = async (/** @type {any} */ file) => {
    await remove(`${path}/${file.id}`);
    await refresh();
  };
  const columns = [
    { name: 'Status', cell: (/** @type {any} */ file) => html`<${Status} status=${file.status} />` },
    {
      name: 'File',
      class: 'wide',
      cell: (/** @type {any} */ file) => html`<${FileLink} id=${file.id} />
        ${file.last_error && html`<div class="bad-text outcome" title=${file.last_error.message}>${file.last_error.message}</div>`}`,
    },
    { name: 'Attributes', cell: (/** @type {any} */ file) => html`<${Metadata} metadata=${Object.fromEntries(Object.entries(file.attributes ?? {}).map(([name, value]) => [name, String(value)]))} />` },
    { name: 'Size', class: 'right', cell: (/** @type {any} */ file) => html`<span class="number">${bytes(file.usage_bytes)}</span>` },
    { name: 'Added', cell: (/** @type {any} */ file) => html`<${Time} at=${file.created_at} />` },
    {
      name: 'Actions',
      class: 'right',
      cell: (/** @type {any} */ file) => html`<span class="actions">
        ${file.status === 'completed' && html`<button type="button" class="small" onClick=${() => setShown(file.id)}>Text</button>`}
        ${(file.status === 'failed' || file.status === 'cancelled') && html`<${ActionButton} class="small" action=${() => retry(file)}>Retry<//>`}
        <${ActionButton} class="small" action=${() => takeOut(file)} confirm="This takes the file out of the vector store. The file itself stays.">Remove<//></span>`,
    },
  ];
  return html`
    <div class="row spaced"><${UploadList} uploads=${uploads} label="Upload and add files" /><${AddExisting} onAdd=${add} />
      <span class="spacer"></span>
      <label class="row">Show <select value=${filter ?? ''} onChange=${(/** @type {any} */ event) => setQuery({ filter: event.target.value })}>
        <option value="">all files</option>${['in_progress', 'completed', 'failed', 'cancelled'].map((name) => html`<option key=${name} value=${name}>${name.replace('_', ' ')}</option>`)}</select></label></div>
    <${PagedTable} class="store-files-table" label="Files of the vector store" pages=${pages} columns=${columns}
      empty=${html`<${Empty} title=${filter ? 'No such files' : 'No files yet'}><p>Upload files with the button above, or drop them on it. They are indexed at once.</p><//>`} />
    ${shown && html`<${IndexedText} path=${`${path}/${shown}/content`} onClose=${() => setShown('')} />`}
  `;
}

/** @param {{onAdd: (file: any) => Promise<void>}} props */
function AddExisting({ onAdd }) {
  const [id, setId] = useState('');
  const add = async () => {
    await onAdd({ id: id.trim() });
    setId('');
  };
  return html`<span class="row"><input aria-label="Id of a file to add" placeholder="file-…" value=${id} onInput=${(/** @type {any} */ event) => setId(event.target.value)} />
    <${ActionButton} action=${add} disabled=${!id.trim()}>Add<//></span>`;
}

/** @param {{path: string, onClose: () => void}} props */
function IndexedText({ path, onClose }) {
  const text = useLoad((signal) => get(path, {}, signal), [path]);
  return html`<${Dialog} title="Indexed text" isWide onClose=${onClose}>
    ${text.isLoading && html`<${Loading} />`}<${ErrorNote} error=${text.error} />
    ${text.data && html`<${LongText} text=${text.data.data.map((/** @type {any} */ part) => part.text).join('\n')} label="Indexed text" />`}
  <//>`;
}

/** @param {{id: string}} props */
function Search({ id }) {
  const [text, setText] = useState('');
  const [count, setCount] = useState(10);
  const [asked, setAsked] = useState(/** @type {{query: string, max_num_results: number} | null} */ (null));
  const found = useLoad(async () => {
    if (!asked) return null;
    const started = performance.now();
    const page = await post(`/v1/vector_stores/${id}/search`, asked);
    return { ...page, took: Math.round(performance.now() - started) };
  }, [asked]);
  const submit = (/** @type {Event} */ event) => {
    event.preventDefault();
    if (text.trim()) setAsked({ query: text.trim(), max_num_results: count });
  };
  return html`<form class="row search-form" onSubmit=${submit}>
      <input type="search" aria-label="Question or words" placeholder="What would an assistant find for…" value=${text} onInput=${(/** @type {any} */ event) => setText(event.target.value)} />
      <label class="row">Results <input type="number" min="1" max="50" value=${count} onInput=${(/** @type {any} */ event) => setCount(Number(event.target.value) || 10)} /></label>
      <button class="primary">Search</button></form>
    ${asked && found.isLoading && html`<${Loading} label="Searching…" />`}
    <${ErrorNote} error=${found.error} />
    ${found.data && html`<p class="faint">${plural(found.data.data.length, 'result')} in ${found.data.took} ms</p>
      <div class="card results">${found.data.data.map((/** @type {any} */ chunk, /** @type {number} */ at) => html`<${Chunk} key=${at} chunk=${chunk} />`)}
        ${found.data.data.length === 0 && html`<p class="faint">Nothing was found.</p>`}</div>`}`;
}

/** @param {{store: any, onDone: (store: any) => void}} props */
function Settings({ store, onDone }) {
  const [name, setName] = useState(store.name ?? '');
  const [days, setDays] = useState(String(store.expires_after?.days ?? ''));
  const save = async () => {
    const expires = days ? { anchor: 'last_active_at', days: Number(days) } : null;
    onDone(await post(`/v1/vector_stores/${store.id}`, { name, expires_after: expires }));
  };
  return html`<div class="card form">
    <${Field} label="Name">${(/** @type {string} */ id) => html`<input id=${id} value=${name} maxlength="256" onInput=${(/** @type {any} */ event) => setName(event.target.value)} />`}<//>
    <${Field} label="Expires after days without use" hint="Empty means never. An expired store is neither searched nor added to.">
      ${(/** @type {string} */ id) => html`<input id=${id} type="number" min="1" max="365" value=${days} onInput=${(/** @type {any} */ event) => setDays(event.target.value)} />`}<//>
    <${ActionButton} class="primary" action=${save}>Save<//>
  </div>`;
}
