// Small things that every page shows.

import { classes, html, useEffect, useRef, useState } from '../html.js';
import { duration, exactTime, relativeTime, shortId, statusName } from '../format.js';
import { useNow } from '../clock.js';

/** @typedef {import('../html.js').Children} Children */

/** @param {{status: string}} props */
export function Status({ status }) {
  return html`<span class="status" data-status=${status}><span class="dot" aria-hidden="true"></span>${statusName(status)}</span>`;
}

/**
 * Copies a text and says so.
 * @param {{text: string, label: string, children?: Children, class?: string}} props
 */
export function CopyButton({ text, label, children, class: name = 'quiet' }) {
  const [isCopied, setCopied] = useState(false);
  useEffect(() => {
    if (!isCopied) return undefined;
    const timer = setTimeout(() => setCopied(false), 1500);
    return () => clearTimeout(timer);
  }, [isCopied]);
  const copy = async () => {
    try {
      await navigator.clipboard.writeText(text);
    } catch {
      copyBySelection(text);
    }
    setCopied(true);
  };
  return html`<button type="button" class=${classes(name, isCopied && 'copied')} onClick=${copy} aria-label=${label} title=${label}>
    ${children ?? (isCopied ? 'Copied' : 'Copy')}
    ${children && html`<span class="copy-mark" aria-hidden="true">${isCopied ? '✓' : '⧉'}</span>`}
    <span class="hidden-text" role="status">${isCopied ? 'Copied' : ''}</span>
  </button>`;
}

/** @param {string} text copied where the browser has no clipboard for pages, as without HTTPS */
function copyBySelection(text) {
  const area = document.createElement('textarea');
  area.value = text;
  area.className = 'hidden-text';
  document.body.append(area);
  area.select();
  document.execCommand('copy');
  area.remove();
}

/**
 * An id that is copied with one click.
 * @param {{id: string, isLong?: boolean}} props
 */
export function Id({ id, isLong = false }) {
  const shown = isLong ? id : shortId(id);
  return html`<${CopyButton} text=${id} label=${shown === id ? `Copy ${id}` : `${shown}: copy ${id}`} class="id">${shown}<//>`;
}

/** @param {{at: number | null | undefined}} props in seconds */
export function Time({ at }) {
  const age = Date.now() / 1000 - (at ?? 0);
  const now = useNow(age < 60 ? 5000 : age < 3600 ? 30_000 : 300_000);
  if (at === null || at === undefined) return '—';
  const exact = exactTime(at);
  return html`<time datetime=${new Date(at * 1000).toISOString()} title=${exact} tabindex="-1">${relativeTime(at, now)}</time>`;
}

/** @param {{from: number | null | undefined, to?: number | null}} props in milliseconds; without an end it goes on */
export function Duration({ from, to }) {
  const isRunning = from !== null && from !== undefined && (to === null || to === undefined);
  const now = useNow(isRunning ? 500 : 3_600_000);
  if (from === null || from === undefined) return '—';
  return html`<span class="number">${duration((to ?? now) - from)}</span>`;
}

/** @param {{error: any, onRetry?: () => void}} props */
export function ErrorNote({ error, onRetry }) {
  if (!error) return null;
  const details = [error.status ? `status ${error.status}` : '', error.code, error.requestId].filter(Boolean);
  return html`<div class="note bad" role="alert">
    <p dir="auto">${error.message ?? String(error)}</p>
    ${details.length > 0 && html`<p class="faint">${details.join(' · ')}</p>`}
    ${onRetry && html`<button type="button" onClick=${onRetry}>Try again</button>`}
  </div>`;
}

/** @param {{label?: string}} props */
export function Loading({ label = 'Loading…' }) {
  return html`<p class="loading" role="status">${label}</p>`;
}

/** @param {{title: string, children?: Children}} props */
export function Empty({ title, children }) {
  return html`<div class="empty"><h2>${title}</h2>${children}</div>`;
}

/**
 * The head of a page. Its heading gets the focus when the page opens, so that keyboard and screen reader
 * continue there.
 * @param {{title: Children, name: string, children?: Children, above?: Children}} props `name` is the window's title
 */
export function PageHead({ title, name, children, above }) {
  const heading = useRef(/** @type {HTMLElement | null} */ (null));
  useEffect(() => {
    document.title = `${name} · assistd`;
  }, [name]);
  useEffect(() => {
    if (document.activeElement === document.body) heading.current?.focus({ preventScroll: true });
  }, []);
  return html`<header class="page-head">
    ${above && html`<nav class="above" aria-label="Breadcrumb">${above}</nav>`}
    <div class="row"><h1 ref=${heading} tabindex="-1">${title}</h1><div class="actions">${children}</div></div>
  </header>`;
}

/**
 * Names and values.
 * @param {{items: [string, any][]}} props those without a value are left out
 */
export function Facts({ items }) {
  const shown = items.filter(([, value]) => value !== null && value !== undefined && value !== '' && value !== false);
  return html`<dl class="facts">${shown.map(([name, value]) => html`<div key=${name}><dt>${name}</dt><dd dir="auto">${value}</dd></div>`)}</dl>`;
}

/** @param {{metadata: Record<string, string> | null | undefined}} props */
export function Metadata({ metadata }) {
  const pairs = Object.entries(metadata ?? {});
  if (!pairs.length) return null;
  return html`<span class="tags">${pairs.map(([name, value]) => html`<span class="tag" key=${name} title=${`${name}: ${value}`} dir="auto"><b>${name}</b> ${value}</span>`)}</span>`;
}

/**
 * @param {{tabs: {id: string, name: Children, hidden?: boolean}[], current: string, onSelect: (id: string) => void, label: string}} props
 */
export function Tabs({ tabs, current, onSelect, label }) {
  const shown = tabs.filter((tab) => !tab.hidden);
  const move = (/** @type {KeyboardEvent} */ event) => {
    const step = event.key === 'ArrowRight' ? 1 : event.key === 'ArrowLeft' ? -1 : 0;
    if (!step) return;
    const at = shown.findIndex((tab) => tab.id === current);
    const next = shown[(at + step + shown.length) % shown.length];
    onSelect(next.id);
    document.getElementById(`tab-${next.id}`)?.focus();
  };
  return html`<div class="tabs" role="tablist" aria-label=${label} onKeyDown=${move}>
    ${shown.map(
      (tab) => html`<button type="button" role="tab" id=${`tab-${tab.id}`} key=${tab.id} aria-selected=${tab.id === current}
        tabindex=${tab.id === current ? 0 : -1} onClick=${() => onSelect(tab.id)}>${tab.name}</button>`,
    )}
  </div>`;
}

/**
 * Asks for a decision in a modal dialog.
 * @param {{title: string, onClose: () => void, children?: Children, isWide?: boolean}} props
 */
export function Dialog({ title, onClose, children, isWide = false }) {
  const dialog = useRef(/** @type {HTMLDialogElement | null} */ (null));
  useEffect(() => {
    const element = dialog.current;
    element?.showModal();
    return () => element?.close();
  }, []);
  const cancel = (/** @type {Event} */ event) => {
    event.preventDefault();
    onClose();
  };
  return html`<dialog ref=${dialog} class=${classes(isWide && 'wide')} onCancel=${cancel} aria-label=${title}>
    <div class="row"><h2>${title}</h2><button type="button" class="quiet" onClick=${onClose} aria-label="Close">✕</button></div>
    ${children}
  </dialog>`;
}

/**
 * A button whose action may fail, and which may need a confirmation.
 * @param {{action: () => Promise<any>, children?: Children, confirm?: string, class?: string, disabled?: boolean}} props
 */
export function ActionButton({ action, children, confirm, class: name = '', disabled = false }) {
  const [state, setState] = useState(/** @type {'idle' | 'asking' | 'busy'} */ ('idle'));
  const [error, setError] = useState(/** @type {any} */ (null));
  const isMounted = useRef(true);
  useEffect(() => () => void (isMounted.current = false), []);
  const act = async () => {
    setState('busy');
    setError(null);
    try {
      await action();
      if (isMounted.current) setState('idle');
    } catch (failure) {
      if (!isMounted.current) return;
      setError(failure);
      setState(confirm ? 'asking' : 'idle');
    }
  };
  return html`<span class="action">
    <button type="button" class=${name} disabled=${disabled || state === 'busy'} onClick=${confirm ? () => setState('asking') : act}>${children}</button>
    ${!confirm && error && html`<${ErrorNote} error=${error} />`}
    ${confirm && state !== 'idle' &&
    html`<${Dialog} title="Please confirm" onClose=${() => setState('idle')}>
      <p>${confirm}</p>
      <${ErrorNote} error=${error} />
      <div class="buttons">
        <button type="button" onClick=${() => setState('idle')}>Keep</button>
        <button type="button" class="danger" disabled=${state === 'busy'} onClick=${act}>${children}</button>
      </div>
    <//>`}
  </span>`;
}
