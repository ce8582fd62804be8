// One thread: its messages, its runs, and what can be done with it.

import { get, remove } from '../api.js';
import { html, useEffect, useState } from '../html.js';
import { listAll, useLoad, usePages } from '../data.js';
import { BASE, navigate, setQuery, useLocation } from '../router.js';
import { pretty } from '../format.js';
import { FileLink } from '../names.js';
import { ActionButton, Empty, ErrorNote, Facts, Id, Loading, Metadata, PageHead, Status, Tabs, Time } from '../parts/basic.js';
import { Chat, useAssistants } from '../parts/chat.js';
import { Json, saveBlob } from '../parts/code.js';
import { More, PagedTable } from '../parts/lists.js';
import { MetadataEditor } from '../parts/metadata.js';
import { Message } from '../parts/message.js';
import { Cancel, RunTime } from './runs.js';

/** @param {{id: string}} props */
export default function ThreadPage({ id }) {
  const { query } = useLocation();
  const thread = useLoad((signal) => get(`/v1/threads/${id}`, {}, signal), [id]);
  const tab = query.get('tab') ?? 'messages';
  if (!thread.data) return thread.error ? html`<${ErrorNote} error=${thread.error} onRetry=${thread.reload} />` : html`<${Loading} />`;
  const deleteIt = async () => {
    await remove(`/v1/threads/${id}`);
    navigate('/threads');
  };
  const tabs = [
    { id: 'messages', name: 'Messages' },
    { id: 'runs', name: 'Runs' },
    { id: 'json', name: 'JSON' },
  ];
  return html`
    <${PageHead} name=${`Thread ${id}`} title="Thread" above=${html`<a href=${`${BASE}/threads`}>Threads</a>`}>
      <a class="button" href=${`${BASE}/playground?thread=${id}`}>Open in the playground</a>
      <${ActionButton} action=${() => exportThread(thread.data)}>Export<//>
      <${ActionButton} class="danger" action=${deleteIt} confirm="This deletes the thread with all its messages and runs. It cannot be undone.">Delete<//>
    <//>
    <${Summary} thread=${thread} />
    <${Tabs} tabs=${tabs} current=${tab} onSelect=${(/** @type {string} */ name) => setQuery({ tab: name === 'messages' ? null : name })} label="Views of the thread" />
    ${tab === 'messages' && html`<${Messages} id=${id} marked=${query.get('message')} order=${query.get('order')} />`}
    ${tab === 'runs' && html`<${Runs} id=${id} />`}
    ${tab === 'json' && html`<${Json} value=${thread.data} label="Thread" />`}
  `;
}

/** @param {{thread: import('../data.js').Loaded<any>}} props */
function Summary({ thread }) {
  const { data } = thread;
  const files = data.tool_resources?.code_interpreter?.file_ids ?? [];
  const stores = data.tool_resources?.file_search?.vector_store_ids ?? [];
  return html`<${Facts} items=${[
    ['Id', html`<${Id} id=${data.id} isLong />`],
    ['Created', html`<${Time} at=${data.created_at} />`],
    ['Files for code', files.length > 0 && files.map((/** @type {string} */ file) => html`<${FileLink} key=${file} id=${file} /> `)],
    ['Vector stores', stores.length > 0 && stores.map((/** @type {string} */ store) => html`<a key=${store} href=${`${BASE}/vector-stores/${store}`}>${store}</a>`)],
    ['Metadata', html`<${Metadata} metadata=${data.metadata} /> <${MetadataEditor} path=${`/v1/threads/${data.id}`} metadata=${data.metadata} onDone=${thread.set} />`],
  ]} />`;
}

/** @param {{id: string, marked: string | null, order: string | null}} props */
function Messages({ id, marked, order }) {
  const isReversed = order === 'desc';
  const pages = usePages(`/v1/threads/${id}/messages`, { order: isReversed ? 'desc' : 'asc' }, { limit: 50 });
  const assistants = useAssistants() ?? [];
  const [assistant, setAssistant] = useState('');
  const chosen = assistant || pages.items?.findLast((item) => item.assistant_id)?.assistant_id || assistants[0]?.id || '';
  const isFound = pages.items?.some((item) => item.id === marked);
  useEffect(() => {
    if (marked && isFound) document.getElementById(marked)?.scrollIntoView({ block: 'center' });
    else if (marked && pages.hasMore) pages.loadMore();
  }, [marked, isFound, pages.items?.length]);
  if (pages.isLoading) return html`<${Loading} />`;
  const messages = pages.items ?? [];
  const chat = html`<${Chat} thread=${id} body=${() => chosen && { assistant_id: chosen }} onStored=${pages.refresh}
    controls=${html`<label class="row">Assistant
      <select value=${chosen} onChange=${(/** @type {any} */ event) => setAssistant(event.target.value)}>
        ${assistants.map((one) => html`<option key=${one.id} value=${one.id}>${one.name || one.id}</option>`)}
      </select></label>`} />`;
  return html`
    <${ErrorNote} error=${pages.error} onRetry=${pages.refresh} />
    ${messages.length > 3 && html`<p class="order"><button type="button" class="link" onClick=${() => setQuery({ order: isReversed ? null : 'desc' })}>${isReversed ? 'Show the oldest first' : 'Show the newest first'}</button></p>`}
    ${isReversed && chat}
    ${messages.length === 0 && html`<${Empty} title="No messages yet"><p>Write the first one below.</p><//>`}
    <div class="messages">${messages.map((message) => html`<${Message} key=${message.id} message=${message} isMarked=${message.id === marked} />`)}</div>
    ${pages.hasMore && html`<${More} onView=${pages.loadMore} />`}
    ${!isReversed && chat}
  `;
}

/** @param {{id: string}} props */
function Runs({ id }) {
  const pages = usePages(`/v1/threads/${id}/runs`, {}, { every: 3000 });
  const columns = [
    { name: 'Status', cell: (/** @type {any} */ run) => html`<${Status} status=${run.status} />` },
    { name: 'Run', class: 'wide mono', cell: (/** @type {any} */ run) => html`<a href=${`${BASE}/runs/${run.id}`}>${run.id}</a>` },
    { name: 'Model', class: 'clip', cell: (/** @type {any} */ run) => run.model },
    { name: 'Created', cell: (/** @type {any} */ run) => html`<${Time} at=${run.created_at} />` },
    { name: 'Time', class: 'right', cell: (/** @type {any} */ run) => html`<${RunTime} run=${run} />` },
    { name: 'Actions', class: 'right', cell: (/** @type {any} */ run) => html`<${Cancel} run=${run} onDone=${pages.refresh} />` },
  ];
  return html`<${PagedTable} class="thread-runs-table" label="Runs of the thread" pages=${pages} columns=${columns} empty=${html`<${Empty} title="No runs on this thread" />`} />`;
}

/** @param {any} thread */
async function exportThread(thread) {
  const [messages, runs] = await Promise.all([
    listAll(`/v1/threads/${thread.id}/messages`, { order: 'asc' }, undefined, 100_000),
    listAll(`/v1/threads/${thread.id}/runs`, { order: 'asc' }, undefined, 100_000),
  ]);
  saveBlob(new Blob([pretty({ thread, messages, runs })]), `${thread.id}.json`);
}
