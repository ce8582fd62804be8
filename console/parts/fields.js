// Form fields.

import { html, useId } from '../html.js';

/** @typedef {import('../html.js').Children} Children */

/**
 * A field with its label.
 * @param {{label: string, hint?: Children, error?: string, children: (id: string) => any}} props
 */
export function Field({ label, hint, error, children }) {
  const id = useId();
  return html`<div class="field">
    <label for=${id}>${label}</label>
    ${children(id)}
    ${hint && html`<p class="hint">${hint}</p>`}
    ${error && html`<p class="bad-text" role="alert">${error}</p>`}
  </div>`;
}
