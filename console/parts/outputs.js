// Submits the outputs of function calls for which a run waits.

import { post } from '../api.js';
import { html, useState } from '../html.js';
import { prettyText } from '../format.js';
import { ErrorNote } from './basic.js';
import { Code } from './code.js';
import { Field } from './fields.js';

/** @param {{run: any, onDone: () => void}} props */
export function OutputsForm({ run, onDone }) {
  const calls = run.required_action?.submit_tool_outputs.tool_calls ?? [];
  const [outputs, setOutputs] = useState(/** @type {Record<string, string>} */ ({}));
  const [error, setError] = useState(/** @type {any} */ (null));
  const [isBusy, setBusy] = useState(false);
  const submit = async (/** @type {Event} */ event) => {
    event.preventDefault();
    setBusy(true);
    setError(null);
    try {
      const given = calls.map((/** @type {any} */ call) => ({ tool_call_id: call.id, output: outputs[call.id] ?? '' }));
      await post(`/v1/threads/${run.thread_id}/runs/${run.id}/submit_tool_outputs`, { tool_outputs: given });
      onDone();
    } catch (failure) {
      setError(failure);
      setBusy(false);
    }
  };
  return html`<form class="card outputs" onSubmit=${submit} aria-label="Tool outputs">
    ${calls.map(
      (/** @type {any} */ call) => html`<fieldset key=${call.id}>
        <legend dir="auto">${call.function.name}</legend>
        <${Code} text=${prettyText(call.function.arguments)} label=${`Arguments of ${call.function.name}`} />
        <${Field} label=${`Output of ${call.function.name}`}>
          ${(/** @type {string} */ id) => html`<textarea id=${id} rows="3" spellcheck="false" value=${outputs[call.id] ?? ''}
            onInput=${(/** @type {any} */ event) => setOutputs({ ...outputs, [call.id]: event.target.value })}></textarea>`}
        <//>
      </fieldset>`,
    )}
    <${ErrorNote} error=${error} />
    <button class="primary" disabled=${isBusy}>Submit ${calls.length > 1 ? `${calls.length} outputs` : 'the output'}</button>
  </form>`;
}
