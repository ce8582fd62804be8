// The settings of an assistant as a form.

import { cached } from '../api.js';
import { html } from '../html.js';
import { listAll, useLoad } from '../data.js';
import { pretty } from '../format.js';
import { functionProblems } from '../schema.js';
import { Field } from './fields.js';
import { fromText, toText } from './metadata.js';

/** @typedef {ReturnType<typeof fromAssistant>} Draft */

/** @param {any} assistant the values of the fields; defaults without an assistant */
export function fromAssistant(assistant) {
  const tools = assistant?.tools ?? [];
  const functions = tools.filter((/** @type {any} */ tool) => tool.type === 'function').map((/** @type {any} */ tool) => withoutNulls(tool.function));
  const format = assistant?.response_format ?? 'auto';
  const search = tools.find((/** @type {any} */ tool) => tool.type === 'file_search');
  return {
    name: assistant?.name ?? '',
    description: assistant?.description ?? '',
    model: assistant?.model ?? '',
    instructions: assistant?.instructions ?? '',
    hasCode: tools.some((/** @type {any} */ tool) => tool.type === 'code_interpreter'),
    search: search ?? null,
    files: assistant?.tool_resources?.code_interpreter?.file_ids ?? [],
    store: assistant?.tool_resources?.file_search?.vector_store_ids?.[0] ?? '',
    functions: functions.length ? pretty(functions) : '',
    temperature: assistant?.temperature ?? 1,
    topP: assistant?.top_p ?? 1,
    effort: assistant?.reasoning_effort ?? '',
    format: typeof format === 'string' ? format : format.type,
    schema: format.json_schema ? pretty(format.json_schema) : '',
    metadata: toText(assistant?.metadata),
  };
}

/** @param {Record<string, any>} object */
const withoutNulls = (object) => Object.fromEntries(Object.entries(object).filter(([, value]) => value !== null));

/** @param {Draft} draft what cannot be sent, in words */
export function problemsOf(draft) {
  const problems = [];
  if (!draft.model.trim()) problems.push('Choose a model.');
  problems.push(...functionProblems(draft.functions));
  if (draft.format === 'json_schema' && !parses(draft.schema)) problems.push('The response format is not valid JSON.');
  try {
    fromText(draft.metadata);
  } catch (error) {
    problems.push(/** @type {Error} */ (error).message);
  }
  return problems;
}

/** @param {string} text */
function parses(text) {
  try {
    return typeof JSON.parse(text) === 'object';
  } catch {
    return false;
  }
}

/** @param {Draft} draft the body of the API's request */
export function toBody(draft) {
  /** @type {any[]} */
  const tools = [];
  if (draft.hasCode) tools.push({ type: 'code_interpreter' });
  if (draft.search) tools.push(draft.search);
  if (draft.functions.trim() && parses(draft.functions)) {
    const list = JSON.parse(draft.functions);
    for (const one of Array.isArray(list) ? list : [list]) tools.push({ type: 'function', function: one.function ?? one });
  }
  const format = draft.format === 'json_schema' && parses(draft.schema) ? { type: 'json_schema', json_schema: JSON.parse(draft.schema) } : draft.format === 'auto' ? 'auto' : { type: draft.format };
  /** @type {Record<string, any>} */
  const body = {
    name: draft.name || null,
    description: draft.description || null,
    model: draft.model.trim(),
    instructions: draft.instructions,
    tools,
    temperature: draft.temperature,
    top_p: draft.topP,
    response_format: format,
  };
  if (draft.effort) body.reasoning_effort = draft.effort;
  /** @type {Record<string, any>} */
  const resources = {};
  if (draft.hasCode) resources.code_interpreter = { file_ids: draft.files };
  if (draft.search) resources.file_search = { vector_store_ids: draft.store ? [draft.store] : [] };
  if (Object.keys(resources).length) body.tool_resources = resources;
  try {
    body.metadata = fromText(draft.metadata);
  } catch {
    // `problemsOf` says so.
  }
  return body;
}

/** @param {{value: Draft, onChange: (value: Draft) => void, isShort?: boolean}} props `isShort` leaves out what runs do not have */
export function AssistantFields({ value, onChange, isShort = false }) {
  const models = useLoad(() => cached('/v1/models'), []);
  const stores = useLoad((signal) => listAll('/v1/vector_stores', {}, signal, 300), []);
  const set = (/** @type {Partial<Draft>} */ change) => onChange({ ...value, ...change });
  const input = (/** @type {keyof Draft} */ name, more = {}) => (/** @type {string} */ id) =>
    html`<input id=${id} ...${more} value=${value[name]} onInput=${(/** @type {any} */ event) => set({ [name]: event.target.value })} />`;
  const area = (/** @type {keyof Draft} */ name, /** @type {number} */ rows, style = '') => (/** @type {string} */ id) =>
    html`<textarea id=${id} class=${style} rows=${rows} dir="auto" spellcheck=${style !== 'mono'} value=${value[name]} onInput=${(/** @type {any} */ event) => set({ [name]: event.target.value })}></textarea>`;
  const functionErrors = functionProblems(value.functions);
  return html`
    ${!isShort && html`<${Field} label="Name">${input('name', { maxlength: 256 })}<//>`}
    ${!isShort && html`<${Field} label="Description">${input('description', { maxlength: 512 })}<//>`}
    <${Field} label="Model">${input('model', { list: 'known-models', required: true, spellcheck: false, placeholder: 'Choose or type a name' })}<//>
    <datalist id="known-models">${models.data?.data.map((/** @type {any} */ model) => html`<option key=${model.id} value=${model.id} />`)}</datalist>
    <${Field} label="Instructions">${area('instructions', isShort ? 5 : 8)}<//>
    <fieldset><legend>Tools</legend>
      <label class="row check"><input type="checkbox" checked=${value.hasCode} onChange=${(/** @type {any} */ event) => set({ hasCode: event.target.checked })} /> Code interpreter</label>
      <label class="row check"><input type="checkbox" checked=${Boolean(value.search)} onChange=${(/** @type {any} */ event) => set({ search: event.target.checked ? { type: 'file_search' } : null })} /> File search</label>
      ${value.search && html`<${Field} label="Vector store">${(/** @type {string} */ id) => html`<select id=${id} value=${value.store} onChange=${(/** @type {any} */ event) => set({ store: event.target.value })}>
        <option value="">None</option>${stores.data?.map((store) => html`<option key=${store.id} value=${store.id}>${store.name || store.id}</option>`)}</select>`}<//>`}
      <${Field} label="Functions" hint="A JSON list of definitions with name, description and parameters." error=${functionErrors[0]}>${area('functions', value.functions ? 8 : 2, 'mono')}<//>
    </fieldset>
    <div class="pair">
      <${Field} label="Temperature">${(/** @type {string} */ id) => html`<input id=${id} type="number" min="0" max="2" step="0.1" value=${value.temperature} onInput=${(/** @type {any} */ event) => set({ temperature: Number(event.target.value) })} />`}<//>
      <${Field} label="Top p">${(/** @type {string} */ id) => html`<input id=${id} type="number" min="0" max="1" step="0.05" value=${value.topP} onInput=${(/** @type {any} */ event) => set({ topP: Number(event.target.value) })} />`}<//>
    </div>
    <${Field} label="Reasoning effort">${input('effort', { placeholder: "The model's default", spellcheck: false })}<//>
    <${Field} label="Response format">${(/** @type {string} */ id) => html`<select id=${id} value=${value.format} onChange=${(/** @type {any} */ event) => set({ format: event.target.value })}>
      ${['auto', 'text', 'json_object', 'json_schema'].map((name) => html`<option key=${name} value=${name}>${name}</option>`)}</select>`}<//>
    ${value.format === 'json_schema' && html`<${Field} label="JSON schema" hint="With name, schema and strict." error=${parses(value.schema) ? undefined : 'This is not valid JSON.'}>${area('schema', 8, 'mono')}<//>`}
    ${!isShort && html`<${Field} label="Metadata" hint="One pair a line, as key=value.">${area('metadata', 2, 'mono')}<//>`}
  `;
}
