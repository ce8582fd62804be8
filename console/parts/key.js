// The keys of this tab.

import { ApiError, keys, send } from '../api.js';
import { html, useState } from '../html.js';
import { Dialog, ErrorNote } from './basic.js';
import { Field } from './fields.js';

/**
 * Finds out what a key opens, and keeps it for this tab.
 * @param {string} key
 */
async function accept(key) {
  try {
    await send('/v1/assistants', { query: { limit: 1 }, key });
    keys.set('project', key);
  } catch (error) {
    if (!(error instanceof ApiError) || error.status !== 401) throw error;
    try {
      await send('/admin/projects', { query: { limit: 1 }, key });
    } catch {
      throw error;
    }
    keys.set('admin', key);
  }
}

/** @param {{onDone: () => void, isAdmin?: boolean}} props */
export function KeyForm({ onDone, isAdmin = false }) {
  const [text, setText] = useState('');
  const [error, setError] = useState(/** @type {any} */ (null));
  const submit = async (/** @type {Event} */ event) => {
    event.preventDefault();
    setError(null);
    try {
      await accept(text.trim());
      setText('');
      onDone();
    } catch (failure) {
      setError(failure);
    }
  };
  return html`<form class="card key-form" onSubmit=${submit}>
    <h2>${isAdmin ? 'The admin key, please' : 'Which project?'}</h2>
    <p>${isAdmin ? 'Projects, keys, usage and webhooks of the whole server open to its admin key.' : "A project's key shows that project; the admin key opens the administration."}</p>
    <${Field} label=${isAdmin ? 'Admin key' : 'API key'} hint="It stays in this browser tab and is forgotten when the tab is closed.">
      ${(/** @type {string} */ id) => html`<input id=${id} type="password" required autocomplete="off" spellcheck="false" value=${text}
        onInput=${(/** @type {any} */ event) => setText(event.target.value)} />`}
    <//>
    <${ErrorNote} error=${error} />
    <button class="primary">Open</button>
    <p class="faint">${isAdmin ? html`The operator sets it in <code>ASSISTD_ADMIN_KEY</code>.` : html`An operator makes keys with <code>assistd keys create --project NAME</code>.`}</p>
  </form>`;
}

/** @param {{onChange: () => void}} props */
export function KeyMenu({ onChange }) {
  const [isOpen, setOpen] = useState(false);
  const change = () => {
    setOpen(false);
    onChange();
  };
  const forget = (/** @type {'project' | 'admin'} */ kind) => () => {
    keys.set(kind, null);
    change();
  };
  const label = keys.project ? `Key ${masked(keys.project)}` : keys.admin ? 'Admin key' : 'No key';
  return html`<button type="button" class="quiet" onClick=${() => setOpen(true)}>${label}</button>
    ${isOpen && html`<${Dialog} title="Keys of this tab" onClose=${() => setOpen(false)}>
      <p>${keys.project ? html`Project: <code>${masked(keys.project)}</code> <button type="button" onClick=${forget('project')}>Forget</button>` : 'No key of a project.'}</p>
      <p>${keys.admin ? html`Administration: <code>${masked(keys.admin)}</code> <button type="button" onClick=${forget('admin')}>Forget</button>` : 'No admin key.'}</p>
      <${KeyForm} onDone=${change} />
    <//>`}`;
}

/** @param {string} key */
const masked = (key) => (key.length < 12 ? '••••' : `${key.slice(0, 6)}…${key.slice(-4)}`);
