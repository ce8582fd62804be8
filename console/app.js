// The frame around the pages: navigation, the key of this tab, and the way to any id.

import { ApiError, whenUnauthorized } from './api.js';
import { html, render, useEffect, useState } from './html.js';
import { BASE, start, useLocation } from './router.js';
import { ErrorNote, Loading } from './parts/basic.js';
import { KeyForm, KeyMenu } from './parts/key.js';
import { GoTo } from './parts/goto.js';
import { ThemeButton, applyTheme } from './parts/theme.js';

/** @type {[RegExp, () => Promise<any>][]} the pages by path; each is loaded when it is first opened */
const PAGES = [
  [/^\/(runs)?$/, () => import('./pages/runs.js')],
  [/^\/runs\/(?<id>[\w-]+)$/, () => import('./pages/run.js')],
  [/^\/threads$/, () => import('./pages/threads.js')],
  [/^\/threads\/(?<id>[\w-]+)$/, () => import('./pages/thread.js')],
  [/^\/playground$/, () => import('./pages/playground.js')],
  [/^\/assistants$/, () => import('./pages/assistants.js')],
  [/^\/assistants\/(?<id>[\w-]+)$/, () => import('./pages/assistant.js')],
  [/^\/vector-stores$/, () => import('./pages/vector-stores.js')],
  [/^\/vector-stores\/(?<id>[\w-]+)$/, () => import('./pages/vector-store.js')],
  [/^\/files$/, () => import('./pages/files.js')],
  [/^\/files\/(?<id>[\w-]+)$/, () => import('./pages/file.js')],
  [/^\/admin(\/(?<section>[\w-]+))?$/, () => import('./pages/admin.js')],
  [/^\/health$/, () => import('./pages/health.js')],
];

const SECTIONS = [
  ['Runs', '/runs'],
  ['Threads', '/threads'],
  ['Playground', '/playground'],
  ['Assistants', '/assistants'],
  ['Vector stores', '/vector-stores'],
  ['Files', '/files'],
  ['Administration', '/admin'],
  ['Health', '/health'],
];

// These need the admin key or none, so they open without a project's key.
const OPEN = /^\/(admin|health)/;

function App() {
  const { path } = useLocation();
  const [isLocked, setLocked] = useState(false);
  // Pages load again with another key.
  const [round, setRound] = useState(0);
  const unlock = () => {
    setLocked(false);
    setRound((before) => before + 1);
  };
  useEffect(() => whenUnauthorized(() => setLocked(true)), []);
  const isOpen = !isLocked || OPEN.test(path);
  return html`
    <a class="skip" href="#main">Skip to the content</a>
    <header class="top">
      <a class="brand" href=${`${BASE}/runs`}><img src="/console/icon.svg" alt="" width="24" height="24" />assistd</a>
      ${!isLocked && html`<${GoTo} />`}
      <span class="spacer"></span>
      <${ThemeButton} />
      <${KeyMenu} onChange=${unlock} />
    </header>
    <nav class="side" aria-label="Sections">
      ${SECTIONS.map(([name, to]) => {
        const isCurrent = path === to || path.startsWith(`${to}/`) || (to === '/runs' && path === '/');
        return html`<a key=${to} href=${BASE + to} aria-current=${isCurrent ? 'page' : undefined}>${name}</a>`;
      })}
    </nav>
    <main id="main" tabindex="-1">
      ${isOpen ? html`<${Page} key=${`${path.replace(/^(\/admin).*/, '$1')} ${round}`} path=${path} />` : html`<${KeyForm} onDone=${unlock} />`}
    </main>`;
}

/** @param {{path: string}} props */
function Page({ path }) {
  const [module, setModule] = useState(/** @type {any} */ (null));
  const [error, setError] = useState(/** @type {any} */ (null));
  const found = PAGES.map(([pattern, load]) => ({ match: path.match(pattern), load })).find((page) => page.match);
  useEffect(() => {
    scrollTo(0, 0);
    found?.load().then(setModule, () => setError(new ApiError(0, 'This page could not be loaded. Is the server running?')));
  }, []);
  if (!found) {
    return html`<h1>There is no such page</h1><p><a href=${`${BASE}/runs`}>All runs</a></p>`;
  }
  if (error) return html`<${ErrorNote} error=${error} onRetry=${() => location.reload()} />`;
  return module ? html`<${module.default} ...${found.match?.groups ?? {}} />` : html`<${Loading} />`;
}

applyTheme();
start();
render(html`<${App} />`, /** @type {HTMLElement} */ (document.getElementById('app')));
