// Addresses of views: a path under /console, and what the view shows in the query.

import { useEffect, useState } from './html.js';

export const BASE = '/console';

/** @type {Set<() => void>} */
const listeners = new Set();
const changed = () => listeners.forEach((listener) => listener());

/**
 * Opens the address of a view.
 * @param {string} to a path without the base
 * @param {{replace?: boolean}} [options]
 */
export function navigate(to, { replace = false } = {}) {
  const address = BASE + to;
  if (replace) history.replaceState(null, '', address);
  else history.pushState(null, '', address);
  changed();
}

/** The current path without the base, and the query. */
function current() {
  const path = location.pathname.slice(BASE.length).replace(/\/+$/, '') || '/';
  return { path, query: new URLSearchParams(location.search), key: location.pathname + location.search };
}

export function useLocation() {
  const [place, setPlace] = useState(current);
  useEffect(() => {
    const listener = () => setPlace(current());
    listeners.add(listener);
    return () => void listeners.delete(listener);
  }, []);
  return place;
}

/**
 * Sets values of the query and removes those that are empty.
 * @param {Record<string, string | null | undefined>} values
 * @param {{replace?: boolean}} [options]
 */
export function setQuery(values, { replace = true } = {}) {
  const { path, query } = current();
  for (const [name, value] of Object.entries(values)) {
    if (value) query.set(name, value);
    else query.delete(name);
  }
  const text = query.toString();
  navigate(path + (text && `?${text}`), { replace });
}

/** Follows links to views without loading the page again. */
export function start() {
  addEventListener('popstate', changed);
  document.addEventListener('click', (event) => {
    const isPlain = event.button === 0 && !event.metaKey && !event.ctrlKey && !event.shiftKey && !event.altKey;
    const target = event.target instanceof Element ? event.target.closest('a') : null;
    const isOwn = target && !target.target && !target.download && target.origin === location.origin;
    if (event.defaultPrevented || !isPlain || !isOwn || !target.pathname.startsWith(BASE)) return;
    event.preventDefault();
    navigate(target.pathname.slice(BASE.length) + target.search);
  });
}
