// One file, with a preview that is never opened as a document.

import { fileContent, get, remove } from '../api.js';
import { bytes } from '../format.js';
import { html } from '../html.js';
import { useLoad } from '../data.js';
import { BASE, navigate } from '../router.js';
import { ActionButton, ErrorNote, Facts, Id, Loading, PageHead, Time } from '../parts/basic.js';
import { Download, LongText, Picture } from '../parts/code.js';

const MAX_PREVIEW = 5_000_000;

/** @param {{id: string}} props */
export default function FilePage({ id }) {
  const file = useLoad((signal) => get(`/v1/files/${id}`, {}, signal), [id]);
  if (!file.data) return file.error ? html`<${ErrorNote} error=${file.error} onRetry=${file.reload} />` : html`<${Loading} />`;
  const { data } = file;
  const deleteIt = async () => {
    await remove(`/v1/files/${id}`);
    navigate('/files');
  };
  return html`
    <${PageHead} name=${data.filename} title=${html`<span dir="auto">${data.filename}</span>`} above=${html`<a href=${`${BASE}/files`}>Files</a>`}>
      <span class="button"><${Download} file=${id} name=${data.filename}>Download<//></span>
      <${ActionButton} class="danger" action=${deleteIt} confirm="This deletes the file also from all assistants, threads and vector stores.">Delete<//>
    <//>
    <${Facts} items=${[
      ['Id', html`<${Id} id=${id} isLong />`],
      ['Size', bytes(data.bytes)],
      ['Purpose', data.purpose],
      ['Created', html`<${Time} at=${data.created_at} />`],
      ['Expires', data.expires_at && html`<${Time} at=${data.expires_at} />`],
    ]} />
    <${Preview} file=${data} />
  `;
}

/** @param {{file: any}} props */
function Preview({ file }) {
  const isPicture = /\.(png|jpe?g|gif|webp)$/i.test(file.filename);
  const isShown = !isPicture && file.bytes <= MAX_PREVIEW;
  const text = useLoad(async (signal) => (isShown ? readText(await fileContent(file.id, signal)) : { text: null }), [file.id]);
  if (isPicture) return html`<${Picture} file=${file.id} label=${file.filename} />`;
  if (!isShown) return html`<p class="faint">It is too large for a preview.</p>`;
  if (text.error) return html`<p class="faint">There is no preview: ${text.error.message}</p>`;
  if (!text.data) return html`<${Loading} />`;
  return text.data.text === null ? html`<p class="faint">There is no preview of this kind of file.</p>` : html`<${LongText} text=${text.data.text} label="Content" />`;
}

/** @param {Blob} blob text, or nothing if it is none */
async function readText(blob) {
  try {
    const text = new TextDecoder('utf-8', { fatal: true }).decode(await blob.arrayBuffer());
    return { text: text.includes('\0') ? null : text };
  } catch {
    return { text: null };
  }
}
