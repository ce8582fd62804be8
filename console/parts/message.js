// Messages of a thread.

import { classes, html, useState } from '../html.js';
import { statusName } from '../format.js';
import { Markdown, plainLink } from '../markdown.js';
import { AssistantLink, FileLink, useFile } from '../names.js';
import { BASE } from '../router.js';
import { Id, Metadata, Time } from './basic.js';
import { Download, LongText, Picture } from './code.js';

/**
 * A message with its pictures, citations and files.
 * @param {{message: any, chunks?: any[], isMarked?: boolean, isLive?: boolean, isOfRun?: boolean}} props `chunks` are
 *   search results that it may cite; `isOfRun` leaves out the link to the run
 */
export function Message({ message, chunks = [], isMarked = false, isLive = false, isOfRun = false }) {
  return html`<article class=${classes('message', message.role, isMarked && 'marked')} id=${message.id} aria-label=${`Message of the ${message.role}`}>
    <header class="row">
      <span class="who">${message.role === 'assistant' ? html`<${AssistantLink} id=${message.assistant_id} />` : 'User'}</span>
      <${Time} at=${message.created_at} />
      <${Id} id=${message.id} />
      ${message.run_id && !isOfRun && html`<a href=${`${BASE}/runs/${message.run_id}`}>run</a>`}
      ${message.status === 'incomplete' && html`<span class="bad-text">incomplete: ${statusName(message.incomplete_details?.reason ?? '')}</span>`}
      <${Metadata} metadata=${message.metadata} />
    </header>
    ${message.content.map((/** @type {any} */ part, /** @type {number} */ at) => html`<${Part} key=${at} part=${part} chunks=${chunks} />`)}
    ${isLive && message.status === 'in_progress' && html`<span class="cursor" role="status" aria-label="being written"></span>`}
    ${message.attachments?.length > 0 && html`<p class="attachments">Attached: ${message.attachments.map((/** @type {any} */ one) => html`<${FileLink} key=${one.file_id} id=${one.file_id} /> `)}</p>`}
  </article>`;
}

/** @param {{part: any, chunks: any[]}} props */
function Part({ part, chunks }) {
  switch (part?.type) {
    case 'text':
      return html`<${Text} text=${part.text} chunks=${chunks} />`;
    case 'image_file':
      return html`<${Picture} file=${part.image_file.file_id} label="Picture of the message" />`;
    case 'image_url':
      // Not loaded, since the policy of the page forbids other sites.
      return html`<p>Picture at ${plainLink(part.image_url.url, part.image_url.url)}</p>`;
    case 'refusal':
      return html`<p class="note" dir="auto">Refused: ${part.refusal}</p>`;
    default:
      return null;
  }
}

// Stands for an annotation while the text is read as Markdown. Private characters are in no real text.
const MARK = /\uE000(\d+)\uE001/;

/** @param {{text: {value: string, annotations: any[]}, chunks: any[]}} props */
function Text({ text, chunks }) {
  const { value, cited } = withMarks(text);
  const [open, setOpen] = useState(/** @type {number | null} */ (null));
  const annotations = cited.map((index) => text.annotations[index]);
  const link = (/** @type {string} */ href, /** @type {any} */ children) => {
    const match = href.match(MARK);
    if (match) return html`<${AnnotationMark} annotation=${annotations[Number(match[1])]} number=${Number(match[1]) + 1} label=${children} onOpen=${() => setOpen(Number(match[1]))} />`;
    return plainLink(href, children);
  };
  const shown = open === null ? null : annotations[open];
  return html`<${Markdown} text=${value} link=${link} />
    ${shown && html`<${Citation} annotation=${shown} chunks=${chunks} onClose=${() => setOpen(null)} />`}`;
}

/**
 * Puts a link in the place of each annotation.
 * @param {{value: string, annotations: any[]}} text
 */
function withMarks({ value, annotations }) {
  const cited = annotations.map((_, index) => index).filter((index) => annotations[index]?.text);
  let rest = value;
  let shown = '';
  cited.forEach((index, number) => {
    const { text } = annotations[index];
    const at = rest.indexOf(text);
    if (at < 0) return;
    // A link's address stays one; anything else becomes a link.
    const isAddress = rest.slice(0, at).endsWith('](');
    shown += rest.slice(0, at) + (isAddress ? `\uE000${number}\uE001` : `[${number + 1}](\uE000${number}\uE001)`);
    rest = rest.slice(at + text.length);
  });
  return { value: shown + rest, cited };
}

/** @param {{annotation: any, number: number, label: any, onOpen: () => void}} props */
function AnnotationMark({ annotation, number, label, onOpen }) {
  if (annotation?.file_path) return html`<${MadeFile} id=${annotation.file_path.file_id} text=${annotation.text}>${label}<//>`;
  return html`<button type="button" class="citation" onClick=${onOpen} aria-label=${`Citation ${number}`}>${number}</button>`;
}

/** @param {{id: string, text: string, children?: any}} props a file that code has made */
function MadeFile({ id, text, children }) {
  return html`<${Download} file=${id} name=${text.split('/').at(-1) || id}>${children}<//>`;
}

/** @param {{annotation: any, chunks: any[], onClose: () => void}} props */
function Citation({ annotation, chunks, onClose }) {
  const id = annotation.file_citation?.file_id ?? '';
  const file = useFile(id);
  const found = chunks.filter((chunk) => chunk.file_id === id);
  return html`<aside class="card cited" aria-label="Citation">
    <div class="row"><strong dir="auto">${file?.filename ?? id}</strong><a href=${`${BASE}/files/${id}`}>file</a>
      <span class="spacer"></span><button type="button" class="quiet" onClick=${onClose} aria-label="Close the citation">✕</button></div>
    ${found.length === 0 && html`<p class="faint">The text of the search results is with the run that wrote this message.</p>`}
    ${found.map((chunk, at) => html`<${Chunk} key=${at} chunk=${chunk} />`)}
  </aside>`;
}

/** @param {{chunk: any}} props a search result: score and text */
export function Chunk({ chunk }) {
  const text = (chunk.content ?? []).map((/** @type {any} */ part) => part.text).join('\n');
  return html`<div class="chunk">
    <div class="row"><meter min="0" max="1" value=${chunk.score} aria-label=${`Score ${chunk.score}`}></meter><span class="number">${chunk.score.toFixed(3)}</span>
      <a href=${`${BASE}/files/${chunk.file_id}`} dir="auto">${chunk.file_name ?? chunk.filename}</a></div>
    ${text && html`<${LongText} text=${text} label="Text of the chunk" />`}
  </div>`;
}
