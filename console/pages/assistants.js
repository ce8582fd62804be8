// The assistants of the project.

import { html } from '../html.js';
import { usePages } from '../data.js';
import { BASE } from '../router.js';
import { createSnippets } from '../snippets.js';
import { Empty, PageHead, Time } from '../parts/basic.js';
import { Snippets } from '../parts/code.js';
import { PagedTable } from '../parts/lists.js';

const TOOLS = /** @type {Record<string, string>} */ ({ code_interpreter: 'code', file_search: 'search' });

/** @param {any} assistant */
function tools(assistant) {
  const names = assistant.tools.map((/** @type {any} */ tool) => TOOLS[tool.type] ?? tool.function?.name);
  return html`<span class="tags">${names.slice(0, 4).map((/** @type {string} */ name) => html`<span class="tag" key=${name}>${name}</span>`)}
    ${names.length > 4 && html`<span class="faint">and ${names.length - 4} more</span>`}</span>`;
}

const COLUMNS = [
  {
    name: 'Assistant',
    class: 'wide',
    cell: (/** @type {any} */ one) => html`<a href=${`${BASE}/assistants/${one.id}`}>${one.name || one.id}</a>${one.description && html`<div class="outcome faint">${one.description}</div>`}`,
  },
  { name: 'Model', class: 'clip', cell: (/** @type {any} */ one) => html`<span title=${one.model}>${one.model}</span>` },
  { name: 'Tools', cell: tools },
  { name: 'Created', cell: (/** @type {any} */ one) => html`<${Time} at=${one.created_at} />` },
  { name: 'Try', class: 'right', cell: (/** @type {any} */ one) => html`<a href=${`${BASE}/playground?assistant=${one.id}`}>Playground</a>` },
];

export default function Assistants() {
  const pages = usePages('/v1/assistants', {});
  const example = { model: 'gpt-4o', name: 'Helper', instructions: 'Answer in one sentence.' };
  const empty = html`<${Empty} title="No assistants yet">
    <p>An assistant is a model with instructions and tools. <a href=${`${BASE}/assistants/new`}>Create one here</a>, or by a program:</p>
    <${Snippets} snippets=${createSnippets('/assistants', example, 'client.beta.assistants.create', 'client.beta.assistants.create')} />
  <//>`;
  return html`
    <${PageHead} title="Assistants" name="Assistants"><a class="button primary" href=${`${BASE}/assistants/new`}>New assistant</a><//>
    <${PagedTable} class="assistants-table" label="Assistants" pages=${pages} columns=${COLUMNS} empty=${empty} />
  `;
}
