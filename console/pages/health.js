// The state of the server: for everybody what it answers, for operators what it does.

import { get, keys } from '../api.js';
import { bytes, duration, number, plural } from '../format.js';
import { html, useState } from '../html.js';
import { useLoad } from '../data.js';
import { BASE } from '../router.js';
import { ActionButton, ErrorNote, Facts, Loading, PageHead, Status, Time } from '../parts/basic.js';

export default function HealthPage() {
  const ready = useLoad(async (signal) => {
    const started = performance.now();
    await get('/readyz', {}, signal);
    return { took: performance.now() - started };
  }, [], { every: 5000 });
  const isReady = ready.data && !ready.error;
  return html`
    <${PageHead} title="Health" name="Health"><span class="live">Live</span><//>
    <div class="cards">
      <${Card} title="Server" status=${ready.isLoading ? 'pending' : isReady ? 'ok' : 'bad'}>
        ${isReady && html`<p>It is ready, and answered in ${duration(ready.data?.took ?? 0)}.</p>`}
        ${ready.error && html`<${ErrorNote} error=${ready.error} onRetry=${ready.reload} />`}
      <//>
      ${keys.admin
        ? html`<${Details} />`
        : html`<${Card} title="More" status="pending"><p>Queues, upstreams and tools are shown to the <a href=${`${BASE}/admin`}>admin key</a>.</p><//>`}
    </div>
    <p class="faint spaced">Figures for a monitoring system are at <a href="/metrics">/metrics</a>.</p>
  `;
}

/** @param {{title: string, status: string, children?: import('../html.js').Children}} props */
function Card({ title, status, children }) {
  return html`<section class="card" aria-label=${title}><div class="row"><h2>${title}</h2><span class="spacer"></span><${Status} status=${status} /></div>${children}</section>`;
}

function Details() {
  const [probed, setProbed] = useState(/** @type {any[] | null} */ (null));
  const health = useLoad((signal) => get('/admin/health', {}, signal), [], { every: 3000 });
  if (!health.data) return health.error ? html`<${ErrorNote} error=${health.error} onRetry=${health.reload} />` : html`<${Loading} />`;
  const { data } = health;
  const probe = async () => setProbed((await get('/admin/health', { probe: true })).upstreams);
  return html`
    <${ErrorNote} error=${health.error} onRetry=${health.reload} />
    <${Card} title="Version" status="ok"><${Facts} items=${[['assistd', data.version], ['Up for', duration(data.uptime_seconds * 1000)], ['PostgreSQL', data.database.version]]} /><//>
    <${Database} database=${data.database} />
    <${Runs} runs=${data.runs} />
    <${Queue} title="Indexing" queue=${data.indexing} one="file" />
    <${Webhooks} webhooks=${data.webhooks} />
    <${Check} title="Code interpreter" check=${data.code_interpreter} />
    <${Check} title="Embeddings" check=${data.embeddings} />
    <${Upstreams} upstreams=${probed ?? data.upstreams} routes=${data.routes} onProbe=${probe} />
  `;
}

/** @param {{database: any}} props */
function Database({ database }) {
  return html`<${Card} title="Database" status=${database.latency_ms < 50 ? 'ok' : 'warn'}>
    <${Facts} items=${[['Round trip', duration(database.latency_ms) === '0 ms' ? '< 1 ms' : duration(database.latency_ms)], ['Size', bytes(database.bytes)]]} />
  <//>`;
}

/** @param {{runs: any}} props */
function Runs({ runs }) {
  const waited = runs.queued_since ? Date.now() / 1000 - runs.queued_since : 0;
  return html`<${Card} title="Runs" status=${waited > 60 ? 'bad' : waited > 10 ? 'warn' : 'ok'}>
    <${Facts} items=${[
      ['Queued', number(runs.queued)],
      ['Waiting since', runs.queued_since && html`<${Time} at=${runs.queued_since} />`],
      ['In progress', number(runs.in_progress)],
      ['For outputs', number(runs.requires_action)],
      ['Being cancelled', runs.cancelling > 0 && number(runs.cancelling)],
    ]} />
    ${runs.replicas.length === 0 && html`<p class="faint">No process holds a run.</p>`}
    ${runs.replicas.map((/** @type {any} */ one) => html`<p key=${one.id}><code>${one.id.slice(0, 12)}</code> <span class="faint">holds ${plural(one.runs, 'run')}</span></p>`)}
  <//>`;
}

/** @param {{title: string, queue: any, one: string}} props */
function Queue({ title, queue, one }) {
  return html`<${Card} title=${title} status=${queue.waiting > 1000 ? 'warn' : 'ok'}>
    <p>${plural(queue.waiting, one)} ${queue.waiting === 1 ? 'waits' : 'wait'}, ${number(queue.in_progress)} in progress.</p><//>`;
}

/** @param {{webhooks: any}} props */
function Webhooks({ webhooks }) {
  const status = webhooks.disabled_endpoints ? 'bad' : webhooks.failing_endpoints ? 'warn' : 'ok';
  return html`<${Card} title="Webhooks" status=${status}>
    <p>${plural(webhooks.waiting, 'delivery', 'deliveries')} ${webhooks.waiting === 1 ? 'waits' : 'wait'}, ${number(webhooks.in_progress)} in progress.</p>
    ${webhooks.failing_endpoints > 0 && html`<p>${plural(webhooks.failing_endpoints, 'endpoint')} cannot be reached. <a href=${`${BASE}/admin/webhooks`}>Deliveries</a></p>`}
    ${webhooks.disabled_endpoints > 0 && html`<p>${plural(webhooks.disabled_endpoints, 'endpoint')} disabled. <a href=${`${BASE}/admin/webhooks`}>Endpoints</a></p>`}
  <//>`;
}

/** @param {{title: string, check: any}} props */
function Check({ title, check }) {
  return html`<${Card} title=${title} status=${check.is_available ? 'ok' : 'warn'}><p dir="auto">${check.message}</p><//>`;
}

/** @param {{upstreams: any[], routes: string, onProbe: () => Promise<void>}} props */
function Upstreams({ upstreams, routes, onProbe }) {
  const isBad = upstreams.some((one) => one.is_reachable === false);
  const hasFailed = upstreams.some((one) => one.last_failure && Date.now() / 1000 - one.last_failure.at < 300);
  return html`<section class="card whole" aria-label="Models"><div class="row"><h2>Models</h2><${Status} status=${isBad ? 'bad' : hasFailed ? 'warn' : 'ok'} /><span class="spacer"></span><${ActionButton} class="small" action=${onProbe}>Ask every upstream<//></div>
    <p class="faint" dir="auto">${routes}</p>
    ${upstreams.map((one) => html`<div class="upstream" key=${one.name}>
      <div class="row"><b>${one.name}</b><code>${one.address}</code>
        ${one.is_reachable !== null && html`<${Status} status=${one.is_reachable ? 'ok' : 'bad'} /> <span dir="auto">${one.message}</span>`}</div>
      ${one.last_failure
        ? html`<p class="bad-text" dir="auto"><${Time} at=${one.last_failure.at} />: ${one.last_failure.message} <span class="faint">(${one.last_failure.kind})</span></p>`
        : html`<p class="faint">No failed call since the start.</p>`}
    </div>`)}
  </section>`;
}
