// Changes the metadata of an object.

import { post } from '../api.js';
import { html, useState } from '../html.js';
import { Dialog, ErrorNote } from './basic.js';
import { Field } from './fields.js';

/** @param {Record<string, string> | null | undefined} metadata one pair a line */
export const toText = (metadata) =>
  Object.entries(metadata ?? {})
    .map(([name, value]) => `${name}=${value.replace(/\n/g, '\\n')}`)
    .join('\n');

/** @param {string} text */
export function fromText(text) {
  const lines = text.split('\n').filter((line) => line.trim());
  return Object.fromEntries(
    lines.map((line) => {
      const at = line.indexOf('=');
      if (at < 1) throw new Error(`Expected key=value, not “${line.slice(0, 80)}”.`);
      return [line.slice(0, at).trim(), line.slice(at + 1).replace(/\\n/g, '\n')];
    }),
  );
}

/** @param {{path: string, metadata: Record<string, string>, onDone: (object: any) => void}} props */
export function MetadataEditor({ path, metadata, onDone }) {
  const [isOpen, setOpen] = useState(false);
  return html`<button type="button" class="link" onClick=${() => setOpen(true)}>Edit</button>
    ${isOpen && html`<${MetadataDialog} path=${path} metadata=${metadata} onClose=${() => setOpen(false)} onDone=${onDone} />`}`;
}

/** @param {any} props */
function MetadataDialog({ path, metadata, onClose, onDone }) {
  const [text, setText] = useState(toText(metadata));
  const [error, setError] = useState(/** @type {any} */ (null));
  const save = async (/** @type {Event} */ event) => {
    event.preventDefault();
    try {
      onDone(await post(path, { metadata: fromText(text) }));
      onClose();
    } catch (failure) {
      setError(failure);
    }
  };
  return html`<${Dialog} title="Metadata" onClose=${onClose}>
    <form class="stack" onSubmit=${save}>
      <${Field} label="Pairs" hint="One a line, as key=value.">
        ${(/** @type {string} */ id) => html`<textarea id=${id} class="mono" rows="6" spellcheck="false" value=${text} onInput=${(/** @type {any} */ event) => setText(event.target.value)}></textarea>`}
      <//>
      <${ErrorNote} error=${error} />
      <div class="buttons"><button type="button" onClick=${onClose}>Keep</button><button class="primary">Save</button></div>
    </form>
  <//>`;
}
