// Code, JSON, logs and pictures.

import { fileContent } from '../api.js';
import { html, useEffect, useMemo, useRef, useState } from '../html.js';
import { bytes, plural, pretty } from '../format.js';
import { CopyButton, Tabs } from './basic.js';

/** @typedef {import('../html.js').Children} Children */

/**
 * A short text in a fixed-width font, with a button that copies it.
 * @param {{text: string, label: string}} props
 */
export function Code({ text, label }) {
  return html`<div class="code"><pre tabindex="0" aria-label=${label}>${text}</pre><${CopyButton} text=${text} label=${`Copy: ${label}`} /></div>`;
}

const LINE = 18;
const WINDOW = 420;
const MAX_LINE = 4000;

/** Splits a text into lines, and lines that no browser lays out quickly into pieces. */
function toLines(/** @type {string} */ text) {
  const lines = text.split('\n');
  if (lines.at(-1) === '') lines.pop();
  if (lines.every((line) => line.length <= MAX_LINE)) return lines;
  return lines.flatMap((line) => {
    const pieces = [];
    for (let at = 0; at === 0 || at < line.length; at += MAX_LINE) pieces.push(line.slice(at, at + MAX_LINE));
    return pieces;
  });
}

/**
 * A text of any length: of a long one only the lines in view are elements.
 * @param {{text: string, label: string}} props
 */
export function LongText({ text, label }) {
  const lines = useMemo(() => toLines(text), [text]);
  if (lines.length <= 400 && text.length < 50_000) return html`<${Code} text=${text} label=${label} />`;
  return html`<${Lines} lines=${lines} text=${text} label=${label} />`;
}

/** @param {{lines: string[], text: string, label: string}} props */
function Lines({ lines, text, label }) {
  const frame = useRef(/** @type {HTMLElement | null} */ (null));
  const spacer = useRef(/** @type {HTMLElement | null} */ (null));
  const [first, setFirst] = useState(0);
  const height = lines.length * LINE;
  const shown = lines.slice(first, first + WINDOW / LINE + 40);
  useEffect(() => {
    if (spacer.current) spacer.current.style.height = `${height}px`;
  }, [height]);
  const scrolled = () => {
    const top = frame.current?.scrollTop ?? 0;
    setFirst(Math.max(0, Math.floor(top / LINE / 20) * 20 - 20));
  };
  return html`<div class="code">
    <p class="faint">${plural(lines.length, 'line')}, ${bytes(text.length)}</p>
    <div class="lines" ref=${frame} onScroll=${scrolled} tabindex="0" role="region" aria-label=${label}>
      <div ref=${spacer}><pre style=${{ transform: `translateY(${first * LINE}px)` }}>${shown.join('\n')}</pre></div>
    </div>
    <${CopyButton} text=${text} label=${`Copy: ${label}`} />
  </div>`;
}

/** @param {{value: any, label: string}} props */
export function Json({ value, label }) {
  const text = useMemo(() => pretty(value), [value]);
  return html`<${LongText} text=${text} label=${label} />`;
}

/** @param {{snippets: import('../snippets.js').Snippet[]}} props */
export function Snippets({ snippets }) {
  const [name, setName] = useState(snippets[0].name);
  const current = snippets.find((snippet) => snippet.name === name) ?? snippets[0];
  const tabs = snippets.map((snippet) => ({ id: snippet.name, name: snippet.name }));
  return html`<div class="snippets">
    <${Tabs} tabs=${tabs} current=${current.name} onSelect=${setName} label="Language" />
    <${Code} text=${current.text} label=${current.name} />
  </div>`;
}

// What can be shown as a picture without being a document of this origin.
const PICTURES = /^image\/(png|jpeg|gif|webp)$/;
const MAX_PICTURE = 30_000_000;

/**
 * The content of a file as a picture, loaded when it comes into view.
 * @param {{file: string, label: string}} props
 */
export function Picture({ file, label }) {
  const frame = useRef(/** @type {HTMLElement | null} */ (null));
  const [url, setUrl] = useState('');
  const [problem, setProblem] = useState('');
  useEffect(() => {
    const controller = new AbortController();
    /** @type {string | undefined} */
    let made;
    const load = async () => {
      const blob = await fileContent(file, controller.signal);
      const type = await pictureType(blob);
      if (!PICTURES.test(type) || blob.size > MAX_PICTURE) return setProblem('This file is not a picture that can be shown.');
      made = URL.createObjectURL(new Blob([blob], { type }));
      setUrl(made);
    };
    const observer = new IntersectionObserver((entries) => {
      if (!entries.some((entry) => entry.isIntersecting)) return;
      observer.disconnect();
      load().catch((error) => !controller.signal.aborted && setProblem(error.message));
    }, { rootMargin: '200px' });
    if (frame.current) observer.observe(frame.current);
    return () => {
      observer.disconnect();
      controller.abort();
      if (made) URL.revokeObjectURL(made);
    };
  }, [file]);
  return html`<figure class="picture" ref=${frame}>
    ${url ? html`<img src=${url} alt=${label} />` : html`<p class="faint">${problem || 'Loading the picture…'}</p>`}
    ${url && html`<figcaption><${Download} file=${file} name=${`${file}.${'png'}`}>Download<//></figcaption>`}
  </figure>`;
}

/** @param {Blob} blob the type by the first bytes, since the server does not know it */
async function pictureType(blob) {
  const head = new Uint8Array(await blob.slice(0, 12).arrayBuffer());
  const starts = (/** @type {number[]} */ ...bytes) => bytes.every((byte, at) => head[at] === byte);
  if (starts(0x89, 0x50, 0x4e, 0x47)) return 'image/png';
  if (starts(0xff, 0xd8, 0xff)) return 'image/jpeg';
  if (starts(0x47, 0x49, 0x46, 0x38)) return 'image/gif';
  if (starts(0x52, 0x49, 0x46, 0x46) && head[8] === 0x57) return 'image/webp';
  return '';
}

/**
 * Saves the content of a file; it is never opened as a document.
 * @param {{file: string, name: string, children?: Children}} props
 */
export function Download({ file, name, children }) {
  const [problem, setProblem] = useState('');
  const save = async () => {
    setProblem('');
    try {
      saveBlob(await fileContent(file), name);
    } catch (error) {
      setProblem(/** @type {Error} */ (error).message);
    }
  };
  return html`<button type="button" class="link" onClick=${save}>${children ?? name}</button>${problem && html`<span class="bad-text" role="alert"> ${problem}</span>`}`;
}

/**
 * @param {Blob} blob
 * @param {string} name
 */
export function saveBlob(blob, name) {
  const link = document.createElement('a');
  // The type of a program's bytes, so that no browser opens them.
  link.href = URL.createObjectURL(new Blob([blob], { type: 'application/octet-stream' }));
  link.download = name.replace(/[\\/]/g, '_');
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 10_000);
}
