// Usage by day, project and model.

import { get } from '../api.js';
import { compact, number } from '../format.js';
import { html, useState } from '../html.js';
import { useLoad } from '../data.js';
import { setQuery, useLocation } from '../router.js';
import { Empty, ErrorNote, Loading } from './basic.js';

const MEASURES = /** @type {Record<string, [string, (row: any) => number]>} */ ({
  tokens: ['Tokens', (row) => row.total_tokens],
  runs: ['Runs', (row) => row.runs],
  model_calls: ['Model calls', (row) => row.model_calls],
  sandbox: ['Seconds of code', (row) => row.sandbox_seconds],
});
const COLOURS = 8;

/** @param {number} days */
function daysBack(days) {
  const today = new Date();
  return Array.from({ length: days }, (_, at) => new Date(Date.UTC(today.getUTCFullYear(), today.getUTCMonth(), today.getUTCDate() - (days - 1 - at))).toISOString().slice(0, 10));
}

export function Usage() {
  const { query } = useLocation();
  const count = Number(query.get('days')) || 30;
  const project = query.get('project') ?? '';
  const [measure, setMeasure] = useState('tokens');
  const days = daysBack(count);
  const rows = useLoad((signal) => get('/admin/usage', { from: days[0], to: days.at(-1), group_by: 'day,model', project }, signal), [count, project, days[0]], { every: 60_000 });
  const projects = useLoad((signal) => get('/admin/projects', { limit: 100 }, signal), []);
  const value = MEASURES[measure][1];
  return html`
    <div class="filters">
      <label>Project <select value=${project} onChange=${(/** @type {any} */ event) => setQuery({ project: event.target.value })}>
        <option value="">All projects</option>${projects.data?.data.map((/** @type {any} */ one) => html`<option key=${one.id} value=${one.id}>${one.name}</option>`)}</select></label>
      <label>Period <select value=${String(count)} onChange=${(/** @type {any} */ event) => setQuery({ days: event.target.value })}>
        ${[7, 30, 90].map((one) => html`<option key=${one} value=${String(one)}>${one} days</option>`)}</select></label>
      <label>Measure <select value=${measure} onChange=${(/** @type {any} */ event) => setMeasure(event.target.value)}>
        ${Object.entries(MEASURES).map(([name, [label]]) => html`<option key=${name} value=${name}>${label}</option>`)}</select></label>
    </div>
    <${ErrorNote} error=${rows.error} onRetry=${rows.reload} />
    ${rows.isLoading && html`<${Loading} />`}
    ${rows.data && !rows.data.data.length && html`<${Empty} title="No usage in this period"><p>Runs count here when they have ended.</p><//>`}
    ${rows.data?.data.length > 0 && html`<${Chart} rows=${rows.data.data} days=${days} value=${value} label=${MEASURES[measure][0]} /><${Table} rows=${rows.data.data} />`}
  `;
}

/** @param {any[]} rows @param {(row: any) => number} value @param {(row: any) => string} key */
function sums(rows, value, key) {
  /** @type {Map<string, number>} */
  const found = new Map();
  for (const row of rows) found.set(key(row), (found.get(key(row)) ?? 0) + value(row));
  return [...found].sort((one, other) => other[1] - one[1]);
}

/** @param {{rows: any[], days: string[], value: (row: any) => number, label: string}} props a column for each day, a colour for each model */
function Chart({ rows, days, value, label }) {
  const models = sums(rows, value, (row) => row.model).map(([model]) => model);
  const byDay = days.map((day) => {
    const parts = sums(rows.filter((row) => row.day === day), value, (row) => row.model);
    return { day, parts, total: parts.reduce((sum, [, part]) => sum + part, 0) };
  });
  const highest = Math.max(1, ...byDay.map(({ total }) => total));
  const width = 100 / days.length;
  const colour = (/** @type {string} */ model) => `colour-${models.indexOf(model) % COLOURS}`;
  return html`<figure class="card chart">
    <figcaption class="row"><b>${label} by day</b><span class="spacer"></span><span class="faint">at most ${compact(highest)}</span></figcaption>
    <svg viewBox="0 0 100 30" preserveAspectRatio="none" role="img" aria-label=${`${label} by day, at most ${number(highest)}`}>
      ${byDay.map(({ day, parts, total }, at) => {
        let top = 30;
        return html`<g key=${day}><title>${`${day}: ${number(Math.round(total))}`}</title><rect x=${at * width} y="0" width=${width} height="30" class="day" />
          ${parts.map(([model, part]) => {
            const height = (part / highest) * 29;
            top -= height;
            return html`<rect key=${model} x=${at * width + width * 0.1} y=${top} width=${width * 0.8} height=${height} class=${colour(model)} />`;
          })}</g>`;
      })}
    </svg>
    <div class="row faint"><span>${days[0]}</span><span class="spacer"></span><span>${days.at(-1)}</span></div>
    <ul class="legend">${models.map((model) => html`<li key=${model} class=${colour(model)}><span dir="auto">${model}</span></li>`)}</ul>
  </figure>`;
}

/** @param {{rows: any[]}} props the sums of the period */
function Table({ rows }) {
  /** @type {Map<string, any>} */
  const found = new Map();
  for (const row of rows) {
    const name = `${row.project_id} ${row.model}`;
    const sum = found.get(name) ?? { ...row, runs: 0, model_calls: 0, prompt_tokens: 0, completion_tokens: 0, sandbox_seconds: 0, tools: 0 };
    for (const one of ['runs', 'model_calls', 'prompt_tokens', 'completion_tokens', 'sandbox_seconds']) sum[one] += row[one];
    sum.tools += row.tool_calls.code_interpreter + row.tool_calls.file_search + row.tool_calls.function;
    found.set(name, sum);
  }
  const sorted = [...found.values()].sort((one, other) => other.prompt_tokens + other.completion_tokens - one.prompt_tokens - one.completion_tokens);
  const heads = ['Project', 'Model', 'Runs', 'Model calls', 'Tokens in', 'Tokens out', 'Tool calls', 'Code'];
  return html`<div class="scroll card figures" tabindex="0"><table aria-label="Usage by project and model"><thead><tr>${heads.map((head, at) => html`<th key=${head} class=${at > 1 ? 'right' : ''}>${head}</th>`)}</tr></thead>
    <tbody>${sorted.map((row) => html`<tr key=${`${row.project_id} ${row.model}`}><td dir="auto">${row.project_name}</td><td dir="auto">${row.model}</td>
      ${['runs', 'model_calls', 'prompt_tokens', 'completion_tokens', 'tools'].map((name) => html`<td key=${name} class="right number">${number(row[name])}</td>`)}
      <td class="right number">${number(Math.round(row.sandbox_seconds * 10) / 10)} s</td></tr>`)}</tbody></table></div>`;
}
