// One assistant: its settings, which can be changed.

import { forget, get, post, remove } from '../api.js';
import { html, useState } from '../html.js';
import { useLoad } from '../data.js';
import { BASE, navigate, setQuery, useLocation } from '../router.js';
import { createSnippets } from '../snippets.js';
import { FileLink } from '../names.js';
import { ActionButton, ErrorNote, Facts, Id, Loading, PageHead, Tabs, Time } from '../parts/basic.js';
import { AssistantFields, fromAssistant, problemsOf, toBody } from '../parts/assistant-form.js';
import { Json, Snippets } from '../parts/code.js';
import { UploadList, useUploads } from '../parts/uploads.js';

/** @param {{id: string}} props */
export default function AssistantPage({ id }) {
  const isNew = id === 'new';
  const loaded = useLoad(async (signal) => (isNew ? null : get(`/v1/assistants/${id}`, {}, signal)), [id]);
  if (isNew) return html`<${Editor} assistant=${null} onSaved=${() => {}} />`;
  if (!loaded.data) return loaded.error ? html`<${ErrorNote} error=${loaded.error} onRetry=${loaded.reload} />` : html`<${Loading} />`;
  return html`<${Editor} key=${loaded.data.id} assistant=${loaded.data} onSaved=${loaded.set} />`;
}

/** @param {{assistant: any, onSaved: (assistant: any) => void}} props */
function Editor({ assistant, onSaved }) {
  const { query } = useLocation();
  const [draft, setDraft] = useState(() => fromAssistant(assistant));
  const [error, setError] = useState(/** @type {any} */ (null));
  const [isSaved, setSaved] = useState(false);
  const tab = query.get('tab') ?? 'settings';
  const problems = problemsOf(draft);
  const isChanged = JSON.stringify(toBody(draft)) !== JSON.stringify(toBody(fromAssistant(assistant)));
  const save = async (/** @type {Event} */ event) => {
    event.preventDefault();
    setError(null);
    try {
      const saved = await post(assistant ? `/v1/assistants/${assistant.id}` : '/v1/assistants', toBody(draft));
      forget('/v1/assistants');
      if (!assistant) return navigate(`/assistants/${saved.id}`, { replace: true });
      onSaved(saved);
      setDraft(fromAssistant(saved));
      setSaved(true);
    } catch (failure) {
      setError(failure);
    }
    return undefined;
  };
  const change = (/** @type {any} */ value) => {
    setSaved(false);
    setDraft(value);
  };
  const tabs = [{ id: 'settings', name: 'Settings' }, { id: 'json', name: 'JSON' }, { id: 'code', name: 'Code' }];
  return html`
    <${PageHead} name=${assistant?.name || 'Assistant'} title=${assistant ? assistant.name || 'Assistant without a name' : 'New assistant'} above=${html`<a href=${`${BASE}/assistants`}>Assistants</a>`}>
      ${assistant && html`<${Actions} assistant=${assistant} />`}
    <//>
    ${assistant && html`<${Facts} items=${[['Id', html`<${Id} id=${assistant.id} isLong />`], ['Created', html`<${Time} at=${assistant.created_at} />`]]} />`}
    ${assistant && html`<${Tabs} tabs=${tabs} current=${tab} onSelect=${(/** @type {string} */ name) => setQuery({ tab: name === 'settings' ? null : name })} label="Views of the assistant" />`}
    ${(tab === 'settings' || !assistant) && html`<form class="card form" onSubmit=${save}>
      <${AssistantFields} value=${draft} onChange=${change} />
      ${draft.hasCode && html`<${CodeFiles} files=${draft.files} onChange=${(/** @type {string[]} */ files) => change({ ...draft, files })} />`}
      <${ErrorNote} error=${error} />
      <div class="row"><button class="primary" disabled=${problems.length > 0 || !isChanged}>${assistant ? 'Save' : 'Create'}</button>
        <span class="faint" role="status">${isSaved && !isChanged ? 'Saved.' : (isChanged && problems[0]) || ''}</span></div>
    </form>`}
    ${tab === 'json' && assistant && html`<${Json} value=${assistant} label="Assistant" />`}
    ${tab === 'code' && assistant && html`<${Snippets} snippets=${createSnippets('/assistants', toBody(draft), 'client.beta.assistants.create', 'client.beta.assistants.create')} />`}
  `;
}

/** @param {{assistant: any}} props */
function Actions({ assistant }) {
  const duplicate = async () => {
    const body = toBody(fromAssistant(assistant));
    const copy = await post('/v1/assistants', { ...body, name: `${assistant.name ?? 'Assistant'} (copy)`.slice(0, 256) });
    forget('/v1/assistants');
    navigate(`/assistants/${copy.id}`);
  };
  const deleteIt = async () => {
    await remove(`/v1/assistants/${assistant.id}`);
    forget('/v1/assistants');
    navigate('/assistants');
  };
  return html`<a class="button" href=${`${BASE}/playground?assistant=${assistant.id}`}>Playground</a>
    <a class="button" href=${`${BASE}/runs?assistant=${assistant.id}`}>Runs</a>
    <${ActionButton} action=${duplicate}>Duplicate<//>
    <${ActionButton} class="danger" action=${deleteIt} confirm="This deletes the assistant. Its threads and runs stay.">Delete<//>`;
}

/** @param {{files: string[], onChange: (files: string[]) => void}} props */
function CodeFiles({ files, onChange }) {
  const uploads = useUploads(async (file) => onChange([...files, file.id]));
  return html`<fieldset><legend>Files for code</legend>
    ${files.length === 0 && html`<p class="faint">None.</p>`}
    ${files.map((id) => html`<div class="row" key=${id}><${FileLink} id=${id} /><button type="button" class="quiet" aria-label=${`Remove ${id}`} onClick=${() => onChange(files.filter((one) => one !== id))}>✕</button></div>`)}
    <${UploadList} uploads=${uploads} label="Add files" />
  </fieldset>`;
}
