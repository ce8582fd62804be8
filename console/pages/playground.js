// A conversation with an assistant, or with a draft of one.

import { get, post } from '../api.js';
import { html, useMemo, useRef, useState } from '../html.js';
import { listAll } from '../data.js';
import { navigate, setQuery, useLocation } from '../router.js';
import { conversationSnippets } from '../snippets.js';
import { BASE } from '../router.js';
import { Dialog, Empty, ErrorNote, Loading, PageHead } from '../parts/basic.js';
import { Chat, useAssistants, useMessages } from '../parts/chat.js';
import { Snippets } from '../parts/code.js';
import { AssistantFields, fromAssistant, problemsOf, toBody } from '../parts/assistant-form.js';
import { Message } from '../parts/message.js';

/** The assistant on which drafts run; runs override all its settings. */
const MARK = { console: 'playground' };

export default function Playground() {
  const { query } = useLocation();
  const thread = query.get('thread');
  const chosen = query.get('assistant') ?? '';
  const assistants = useAssistants();
  const assistant = assistants?.find((one) => one.id === chosen);
  const original = useMemo(() => fromAssistant(assistant), [assistant]);
  const [drafts, setDrafts] = useState(/** @type {Record<string, any>} */ ({}));
  const draft = drafts[chosen] ?? original;
  const isChanged = Boolean(assistant) && JSON.stringify(toBody(draft)) !== JSON.stringify(toBody(original));
  const [isCode, setCode] = useState(false);
  const problems = problemsOf(draft);
  const messages = useMessages(thread);
  const playgroundId = useRef('');

  const runBody = async () => {
    if (problems.length) throw new Error(problems[0]);
    const { name: _, description: __, tool_resources: resources, metadata: ___, ...overrides } = toBody(draft);
    if (assistant && !isChanged) return { assistant_id: assistant.id };
    if (assistant) return { assistant_id: assistant.id, ...overrides };
    playgroundId.current ||= await findPlayground(overrides.model);
    if (resources?.file_search) await attachStores(query.get('thread') ?? new URLSearchParams(location.search).get('thread'), resources);
    return { assistant_id: playgroundId.current, ...overrides };
  };
  const save = async () => {
    const { metadata: _, ...body } = toBody(draft);
    const saved = assistant ? await post(`/v1/assistants/${assistant.id}`, body) : await post('/v1/assistants', body);
    navigate(`/assistants/${saved.id}`);
  };
  const { name: _n, description: _d, tool_resources: _r, metadata: _m, ...shown } = toBody(draft);
  const snippetBody = assistant ? { assistant_id: assistant.id, ...(isChanged ? unusual(shown) : {}) } : { assistant_id: 'asst_…', ...unusual(shown) };
  if (!assistants) return html`<${PageHead} title="Playground" name="Playground" /><${Loading} />`;
  return html`
    <${PageHead} title="Playground" name="Playground">
      <button type="button" onClick=${() => setCode(true)}>Get the code</button>
      ${thread && html`<a class="button" href=${`${BASE}/threads/${thread}`}>Open the thread</a>`}
      ${thread && html`<button type="button" onClick=${() => setQuery({ thread: null }, { replace: false })}>New conversation</button>`}
    <//>
    <div class="playground">
      <section class="card settings" aria-label="Settings">
        <label class="field"><span>Assistant</span>
          <select value=${chosen} onChange=${(/** @type {any} */ event) => setQuery({ assistant: event.target.value })}>
            <option value="">A draft</option>
            ${assistants.map((one) => html`<option key=${one.id} value=${one.id}>${one.name || one.id}</option>`)}
          </select>
        </label>
        ${!assistant && html`<p class="hint">A draft runs on an assistant named Playground, which is made when it is first needed.</p>`}
        <${AssistantFields} value=${draft} onChange=${(/** @type {any} */ value) => setDrafts({ ...drafts, [chosen]: value })} isShort />
        ${(isChanged || !assistant) && html`<button type="button" disabled=${problems.length > 0} onClick=${save}>${assistant ? 'Save the changes' : 'Save as an assistant'}</button>`}
      </section>
      <div class="stack">
        <${ErrorNote} error=${messages.error} onRetry=${messages.reload} />
        ${!messages.data?.length && html`<${Empty} title="Say something"><p>The answer appears as it is written, with the calls of tools. Attach files for code or search.</p><//>`}
        <div class="messages">${messages.data?.map((/** @type {any} */ message) => html`<${Message} key=${message.id} message=${message} />`)}</div>
        <${Chat} thread=${thread} body=${runBody} onStored=${messages.reload} onThread=${(/** @type {string} */ made) => setQuery({ thread: made })} />
      </div>
    </div>
    ${isCode && html`<${Dialog} title="The same by a program" isWide onClose=${() => setCode(false)}>
      <${Snippets} snippets=${conversationSnippets(snippetBody, lastQuestion(messages.data))} />
    <//>`}
  `;
}

/** @param {Record<string, any>} body without the settings that have their defaults */
function unusual(body) {
  const defaults = /** @type {Record<string, any>} */ ({ instructions: '', temperature: 1, top_p: 1, response_format: 'auto', tools: [] });
  return Object.fromEntries(Object.entries(body).filter(([name, value]) => JSON.stringify(defaults[name]) !== JSON.stringify(value)));
}

/** @param {any[] | undefined} messages */
function lastQuestion(messages) {
  const asked = messages?.findLast((message) => message.role === 'user');
  return asked?.content.find((/** @type {any} */ part) => part.type === 'text')?.text.value ?? 'Hello!';
}

/** @param {string} model */
async function findPlayground(model) {
  const all = await listAll('/v1/assistants', {}, undefined, 500);
  const found = all.find((one) => one.metadata?.console === MARK.console);
  return (found ?? (await post('/v1/assistants', { model, name: 'Playground', metadata: MARK }))).id;
}

/**
 * Runs have no stores of their own; their thread has.
 * @param {string | null} thread
 * @param {any} resources
 */
async function attachStores(thread, resources) {
  if (!thread) return;
  const current = await get(`/v1/threads/${thread}`);
  const ids = resources.file_search.vector_store_ids;
  if (JSON.stringify(current.tool_resources?.file_search?.vector_store_ids) === JSON.stringify(ids)) return;
  await post(`/v1/threads/${thread}`, { tool_resources: { file_search: { vector_store_ids: ids } } });
}

