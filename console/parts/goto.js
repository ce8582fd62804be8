// From an id to the page that shows it.

import { get } from '../api.js';
import { html, useEffect, useRef, useState } from '../html.js';
import { navigate } from '../router.js';

/**
 * The path of the page that shows an object.
 * @param {any} object
 */
export function pathOf(object) {
  switch (object.object) {
    case 'thread.run':
      return `/runs/${object.id}`;
    case 'thread.run.step':
      return `/runs/${object.run_id}?step=${object.id}`;
    case 'thread':
      return `/threads/${object.id}`;
    case 'thread.message':
      return `/threads/${object.thread_id}?message=${object.id}`;
    case 'assistant':
      return `/assistants/${object.id}`;
    case 'vector_store':
      return `/vector-stores/${object.id}`;
    case 'file':
      return `/files/${object.id}`;
    default:
      return '/runs';
  }
}

/** A field that takes any id; the key `/` leads to it. */
export function GoTo() {
  const field = useRef(/** @type {HTMLInputElement | null} */ (null));
  const [problem, setProblem] = useState('');
  useEffect(() => {
    const listener = (/** @type {KeyboardEvent} */ event) => {
      const isTyping = event.target instanceof Element && event.target.closest('input, textarea, select, dialog');
      if (event.key !== '/' || isTyping || event.ctrlKey || event.metaKey) return;
      event.preventDefault();
      field.current?.focus();
    };
    document.addEventListener('keydown', listener);
    return () => document.removeEventListener('keydown', listener);
  }, []);
  const submit = async (/** @type {Event} */ event) => {
    event.preventDefault();
    const id = field.current?.value.trim();
    if (!id) return;
    try {
      const object = await get(`/v1/objects/${encodeURIComponent(id)}`);
      setProblem('');
      if (field.current) field.current.value = '';
      field.current?.blur();
      navigate(pathOf(object));
    } catch (error) {
      setProblem(/** @type {Error} */ (error).message);
    }
  };
  return html`<form class="goto" role="search" onSubmit=${submit}>
    <input ref=${field} type="search" placeholder="Paste an id:  run, thread, message, step, file…" aria-label="Go to an id" spellcheck="false"
      autocomplete="off" onInput=${() => setProblem('')} aria-invalid=${Boolean(problem)} aria-describedby="goto-problem" />
    <p id="goto-problem" class=${problem ? 'popup bad-text' : 'hidden-text'} role="status">${problem}</p>
  </form>`;
}
