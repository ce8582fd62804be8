// The files of the project.

import { remove } from '../api.js';
import { bytes } from '../format.js';
import { html, useCallback } from '../html.js';
import { usePages } from '../data.js';
import { BASE, setQuery, useLocation } from '../router.js';
import { ActionButton, Empty, PageHead, Time } from '../parts/basic.js';
import { Download } from '../parts/code.js';
import { PagedTable } from '../parts/lists.js';
import { UploadList, useUploads } from '../parts/uploads.js';

const PURPOSES = ['assistants', 'assistants_output', 'vision', 'user_data'];

export default function Files() {
  const { query } = useLocation();
  const purpose = query.get('purpose');
  const pages = usePages('/v1/files', { purpose }, { every: 10_000, limit: 100 });
  const refresh = useCallback(async () => pages.refresh(), [pages.refresh]);
  const uploads = useUploads(refresh);
  const deleteIt = async (/** @type {any} */ file) => {
    await remove(`/v1/files/${file.id}`);
    await pages.refresh();
  };
  const columns = [
    { name: 'File', class: 'wide', cell: (/** @type {any} */ file) => html`<a href=${`${BASE}/files/${file.id}`}>${file.filename}</a>` },
    { name: 'Id', class: 'clip mono', cell: (/** @type {any} */ file) => html`<span title=${file.id}>${file.id}</span>` },
    { name: 'Purpose', cell: (/** @type {any} */ file) => file.purpose },
    { name: 'Size', class: 'right', cell: (/** @type {any} */ file) => html`<span class="number">${bytes(file.bytes)}</span>` },
    { name: 'Created', cell: (/** @type {any} */ file) => html`<${Time} at=${file.created_at} />` },
    {
      name: 'Actions',
      class: 'right',
      cell: (/** @type {any} */ file) => html`<span class="actions"><${Download} file=${file.id} name=${file.filename}>Download<//>
        <${ActionButton} class="small" action=${() => deleteIt(file)} confirm=${`This deletes ${file.filename} also from all assistants, threads and vector stores.`}>Delete<//></span>`,
    },
  ];
  const empty = html`<${Empty} title=${purpose ? 'No files for this purpose' : 'No files yet'}><p>Upload files for code and search here. What code writes appears with the purpose assistants_output.</p><//>`;
  return html`
    <${PageHead} title="Files" name="Files" />
    <div class="row spaced"><${UploadList} uploads=${uploads} label="Upload files" purpose="assistants" /><span class="spacer"></span>
      <label class="row">Purpose <select value=${purpose ?? ''} onChange=${(/** @type {any} */ event) => setQuery({ purpose: event.target.value })}>
        <option value="">any</option>${PURPOSES.map((name) => html`<option key=${name} value=${name}>${name}</option>`)}</select></label></div>
    <${PagedTable} class="files-table" label="Files" pages=${pages} columns=${columns} empty=${empty} />
  `;
}
