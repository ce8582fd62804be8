// One timer for all relative times of a kind, however many a page shows. It rests while the tab is hidden.

import { useEffect, useState } from './html.js';

/** @type {Map<number, Set<() => void>>} the listeners by the time between two calls */
const listeners = new Map();

document.addEventListener('visibilitychange', () => {
  for (const every of listeners.keys()) tick(every);
});

/** @param {number} every */
function tick(every) {
  if (!document.hidden) for (const listener of listeners.get(every) ?? []) listener();
}

/** @param {number} every in milliseconds @param {() => void} listener */
function subscribe(every, listener) {
  let set = listeners.get(every);
  if (!set) {
    set = new Set();
    listeners.set(every, set);
    setInterval(() => tick(every), every);
  }
  set.add(listener);
  return () => void set.delete(listener);
}

/**
 * The time, updated now and then.
 * @param {number} every in milliseconds
 */
export function useNow(every) {
  const [now, setNow] = useState(Date.now);
  useEffect(() => subscribe(every, () => setNow(Date.now())), [every]);
  return now;
}
