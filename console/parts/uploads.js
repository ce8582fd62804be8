// Uploads files one after the other, with progress.

import { upload } from '../api.js';
import { bytes } from '../format.js';
import { html, useCallback, useId, useRef, useState } from '../html.js';

/** @typedef {{key: number, name: string, size: number, fraction: number, id?: string, error?: string, tool: string, cancel: () => void}} Upload */

let next = 0;

/** @param {(file: any) => Promise<void>} [onDone] called with each stored file before the next one */
export function useUploads(onDone) {
  const [items, setItems] = useState(/** @type {Upload[]} */ ([]));
  const queue = useRef(Promise.resolve());
  const change = (/** @type {number} */ key, /** @type {Partial<Upload>} */ values) =>
    setItems((before) => before.map((item) => (item.key === key ? { ...item, ...values } : item)));
  const add = useCallback((/** @type {Iterable<File>} */ files, purpose = 'assistants') => {
    for (const file of files) {
      const key = (next += 1);
      const controller = new AbortController();
      const tool = /\.(csv|tsv|xlsx?|png|jpe?g|gif|webp|json|xml|zip|sqlite|parquet)$/i.test(file.name) ? 'code_interpreter' : 'file_search';
      const cancel = () => {
        controller.abort();
        setItems((before) => before.filter((item) => item.key !== key));
      };
      setItems((before) => [...before, { key, name: file.name, size: file.size, fraction: 0, tool, cancel }]);
      queue.current = queue.current.then(async () => {
        if (controller.signal.aborted) return;
        try {
          const stored = await upload(file, purpose, (fraction) => change(key, { fraction }), controller.signal);
          await onDone?.(stored);
          change(key, { fraction: 1, id: stored.id });
        } catch (error) {
          if (!controller.signal.aborted) change(key, { error: /** @type {Error} */ (error).message });
        }
      });
    }
  }, [onDone]);
  const done = items.filter((item) => item.id);
  return {
    items,
    add,
    done,
    isBusy: items.some((item) => !item.id && !item.error),
    attachments: done.map((item) => ({ file_id: item.id, tools: [{ type: item.tool }] })),
    setTool: (/** @type {number} */ key, /** @type {string} */ tool) => change(key, { tool }),
    clear: () => setItems([]),
  };
}

/** @param {{uploads: ReturnType<typeof useUploads>, hasTools?: boolean, label?: string, purpose?: string}} props */
export function UploadList({ uploads, hasTools = false, label = 'Attach files', purpose }) {
  const id = useId();
  const drop = (/** @type {any} */ event) => {
    event.preventDefault();
    uploads.add(event.dataTransfer.files, purpose);
  };
  const choose = (/** @type {any} */ event) => {
    uploads.add([...event.target.files], purpose);
    event.target.value = '';
  };
  return html`<div class="uploads" onDragOver=${(/** @type {Event} */ event) => event.preventDefault()} onDrop=${drop}>
    ${uploads.items.map(
      (item) => html`<div class="row upload" key=${item.key}>
        <span class="clip" dir="auto">${item.name}</span><span class="faint">${bytes(item.size)}</span>
        ${item.error && html`<span class="bad-text" role="alert">${item.error}</span>`}
        ${!item.error && !item.id && html`<progress max="1" value=${item.fraction} aria-label=${`Upload of ${item.name}`}></progress>`}
        ${item.id && hasTools && html`<select aria-label=${`Tool for ${item.name}`} value=${item.tool} onChange=${(/** @type {any} */ event) => uploads.setTool(item.key, event.target.value)}>
          <option value="file_search">for file search</option><option value="code_interpreter">for code</option></select>`}
        ${item.id && !hasTools && html`<span class="faint">stored</span>`}
        <button type="button" class="quiet" onClick=${item.cancel} aria-label=${`Remove ${item.name}`}>✕</button>
      </div>`,
    )}
    <label class="button small" for=${id}>${label}<input id=${id} class="hidden-text" type="file" multiple onChange=${choose} /></label>
  </div>`;
}
