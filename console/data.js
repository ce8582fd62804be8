// Hooks that load and refresh data. Nothing is requested while the tab is hidden.

import { get } from './api.js';
import { useCallback, useEffect, useRef, useState } from './html.js';

/** Whether the tab is visible. */
export function useVisible() {
  const [isVisible, setVisible] = useState(!document.hidden);
  useEffect(() => {
    const listener = () => setVisible(!document.hidden);
    document.addEventListener('visibilitychange', listener);
    return () => document.removeEventListener('visibilitychange', listener);
  }, []);
  return isVisible;
}

/**
 * Calls a function again and again while the tab is visible, and at once when it becomes visible.
 * @param {() => void | Promise<void>} action
 * @param {number | null | undefined} every in milliseconds; never if there is none
 */
export function useInterval(action, every) {
  const isVisible = useVisible();
  const wasHidden = useRef(false);
  const latest = useRef(action);
  latest.current = action;
  useEffect(() => {
    if (!every) return undefined;
    if (!isVisible) {
      wasHidden.current = true;
      return undefined;
    }
    if (wasHidden.current) latest.current();
    wasHidden.current = false;
    const timer = setInterval(() => latest.current(), every);
    return () => clearInterval(timer);
  }, [every, isVisible]);
}

/**
 * @template T
 * @typedef {object} Loaded
 * @property {T | undefined} data
 * @property {any} error of the last request
 * @property {boolean} isLoading whether there is neither data nor an error yet
 * @property {() => Promise<void>} reload
 * @property {(change: T | ((data: T) => T)) => void} set
 */

/**
 * Loads data, and again when a dependency changes.
 * @template T
 * @param {(signal: AbortSignal) => Promise<T>} load
 * @param {any[]} dependencies
 * @param {{every?: number | null | ((data: T | undefined) => number | null), keep?: boolean}} [options] `keep` shows
 *   the previous data until the new data is there
 * @returns {Loaded<T>}
 */
export function useLoad(load, dependencies, { every, keep = false } = {}) {
  const [state, setState] = useState(/** @type {{data?: T, error?: any}} */ ({}));
  const controller = useRef(/** @type {AbortController | null} */ (null));
  const reload = useCallback(async () => {
    controller.current?.abort();
    const own = new AbortController();
    controller.current = own;
    try {
      const data = await load(own.signal);
      if (!own.signal.aborted) setState({ data });
    } catch (error) {
      if (!own.signal.aborted) setState((before) => ({ ...before, error }));
    }
  }, dependencies);
  useEffect(() => {
    if (!keep) setState({});
    reload();
    return () => controller.current?.abort();
  }, [reload]);
  useInterval(reload, typeof every === 'function' ? every(state.data) : every);
  const set = useCallback((/** @type {any} */ change) => {
    setState((before) => ({ data: typeof change === 'function' ? change(before.data) : change }));
  }, []);
  return { ...state, data: state.data, error: state.error, isLoading: !state.data && !state.error, reload, set };
}

/**
 * A list of the API with cursors: the first page, more on request, and fresh first pages.
 * @param {string} path
 * @param {Record<string, any>} query
 * @param {{every?: number | null, limit?: number}} [options]
 */
export function usePages(path, query, { every, limit = 50 } = {}) {
  const name = path + JSON.stringify(query);
  const empty = { items: /** @type {any[] | undefined} */ (undefined), hasMore: false, error: /** @type {any} */ (undefined) };
  const [state, setState] = useState(empty);
  const controller = useRef(/** @type {AbortController | null} */ (null));
  const isBusy = useRef(false);
  const turns = useRef({ asked: 0, shown: 0 });

  const refresh = useCallback(async () => {
    if (isBusy.current) return;
    const own = controller.current;
    const turn = (turns.current.asked += 1);
    try {
      const page = await get(path, { ...query, limit }, own?.signal);
      // An answer that a later one has overtaken is out of date.
      if (own?.signal.aborted || turn < turns.current.shown) return;
      turns.current.shown = turn;
      setState((before) => merge(before, page));
    } catch (error) {
      if (!own?.signal.aborted) setState((before) => ({ ...before, error }));
    }
  }, [name, limit]);

  const loadMore = useCallback(async () => {
    if (isBusy.current) return;
    isBusy.current = true;
    const own = controller.current;
    try {
      const after = state.items?.at(-1)?.id;
      const page = await get(path, { ...query, limit: 100, after }, own?.signal);
      if (own?.signal.aborted) return;
      setState((before) => ({
        items: [...(before.items ?? []), ...page.data],
        hasMore: page.has_more,
        error: undefined,
      }));
    } catch (error) {
      if (!own?.signal.aborted) setState((before) => ({ ...before, error }));
    } finally {
      isBusy.current = false;
    }
  }, [name, state.items]);

  useEffect(() => {
    controller.current = new AbortController();
    isBusy.current = false;
    setState(empty);
    refresh();
    return () => controller.current?.abort();
  }, [refresh]);
  useInterval(refresh, every);

  const set = useCallback((/** @type {(items: any[]) => any[]} */ change) => {
    setState((before) => ({ ...before, items: before.items && change(before.items) }));
  }, []);
  return { ...state, isLoading: !state.items && !state.error, refresh, loadMore, set };
}

/**
 * Puts a fresh first page in the place of what it covers.
 * @param {{items?: any[], hasMore: boolean}} before
 * @param {{data: any[], has_more: boolean}} page
 */
function merge(before, page) {
  const last = page.data.at(-1);
  const at = last && page.has_more ? (before.items ?? []).findIndex((item) => item.id === last.id) : -1;
  if (at < 0) return { items: page.data, hasMore: page.has_more, error: undefined };
  const rest = /** @type {any[]} */ (before.items).slice(at + 1);
  const hasMore = rest.length ? before.hasMore : page.has_more;
  return { items: [...page.data, ...rest], hasMore, error: undefined };
}

/**
 * All objects of a list, up to a bound.
 * @param {string} path
 * @param {Record<string, any>} [query]
 * @param {AbortSignal} [signal]
 * @param {number} [max]
 */
export async function listAll(path, query = {}, signal = undefined, max = 1000) {
  /** @type {any[]} */
  const items = [];
  let after;
  do {
    const page = await get(path, { limit: 100, ...query, after }, signal);
    items.push(...page.data);
    after = page.has_more ? page.data.at(-1)?.id : undefined;
  } while (after && items.length < max);
  return items;
}

/**
 * The value, after it has stayed the same for a while.
 * @template T
 * @param {T} value
 * @param {number} [delay] in milliseconds
 */
export function useSettled(value, delay = 300) {
  const [settled, setSettled] = useState(value);
  useEffect(() => {
    const timer = setTimeout(() => setSettled(value), delay);
    return () => clearTimeout(timer);
  }, [value, delay]);
  return settled;
}
