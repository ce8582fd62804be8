// The client of the API: the keys of this browser tab, requests, and errors in the API's words.

/** What a response of the API said about a failure. */
export class ApiError extends Error {
  /**
   * @param {number} status 0 if there was no response
   * @param {string} message
   * @param {{code?: string | null, requestId?: string | null}} [more]
   */
  constructor(status, message, more = {}) {
    super(message);
    this.status = status;
    this.code = more.code ?? null;
    this.requestId = more.requestId ?? null;
  }
}

// Any non-empty key is accepted by a server without keys.
const NO_KEY = 'none';
const KEY = 'assistd.key';
const ADMIN_KEY = 'assistd.admin-key';

export const keys = {
  get project() {
    return sessionStorage.getItem(KEY);
  },
  get admin() {
    return sessionStorage.getItem(ADMIN_KEY);
  },
  /**
   * @param {'project' | 'admin'} kind
   * @param {string | null} value
   */
  set(kind, value) {
    const name = kind === 'admin' ? ADMIN_KEY : KEY;
    if (value === null) sessionStorage.removeItem(name);
    else sessionStorage.setItem(name, value);
    cache.clear();
    known.clear();
  },
};

/** @type {Map<string, Promise<any>>} */
const cache = new Map();
/** @type {Map<string, any>} */
const known = new Map();

/** @type {(() => void) | undefined} */
let onUnauthorized;

/** @param {() => void} listener called when a request of a project was refused for its key */
export function whenUnauthorized(listener) {
  onUnauthorized = listener;
}

/**
 * @typedef {object} Options
 * @property {string} [method]
 * @property {any} [body] sent as JSON, or as it is if it is a form
 * @property {Record<string, any>} [query] absent and empty values are left out
 * @property {AbortSignal} [signal]
 * @property {Record<string, string>} [headers]
 * @property {string} [key] instead of this tab's
 */

/**
 * Sends a request and returns its response, which is successful.
 * @param {string} path
 * @param {Options} [options]
 * @returns {Promise<Response>}
 */
export async function send(path, { method = 'GET', body, query, signal, headers = {}, key } = {}) {
  const isAdmin = path.startsWith('/admin');
  const used = key ?? (isAdmin ? keys.admin : keys.project) ?? NO_KEY;
  const isForm = body instanceof FormData;
  /** @type {Record<string, string>} */
  const sent = { authorization: `Bearer ${used}`, 'openai-beta': 'assistants=v2', ...headers };
  if (body !== undefined && !isForm) sent['content-type'] = 'application/json';
  /** @type {Response} */
  let response;
  try {
    response = await fetch(path + queryString(query), {
      method,
      headers: sent,
      body: body === undefined || isForm ? body : JSON.stringify(body),
      signal,
      cache: 'no-store',
      credentials: 'omit',
    });
  } catch (error) {
    if (signal?.aborted) throw error;
    throw new ApiError(0, 'The server cannot be reached.');
  }
  if (response.ok) return response;
  const failure = await toError(response);
  if (failure.status === 401 && !isAdmin && key === undefined) onUnauthorized?.();
  throw failure;
}

/** @param {Response} response */
async function toError(response) {
  const requestId = response.headers.get('x-request-id');
  const body = await response.json().catch(() => null);
  const error = body?.error;
  const message = error?.message ?? `The server answered with status ${response.status}.`;
  return new ApiError(response.status, message, { code: error?.code, requestId });
}

/** @param {Record<string, any>} [query] */
export function queryString(query = {}) {
  const params = new URLSearchParams();
  for (const [name, value] of Object.entries(query)) {
    for (const one of Array.isArray(value) ? value : [value]) {
      if (one !== undefined && one !== null && one !== '') params.append(name, String(one));
    }
  }
  const text = params.toString();
  return text && `?${text}`;
}

/**
 * @param {string} path
 * @param {Record<string, any>} [query]
 * @param {AbortSignal} [signal]
 */
export async function get(path, query, signal) {
  return (await send(path, { query, signal })).json();
}

/**
 * @param {string} path
 * @param {any} [body]
 */
export async function post(path, body = {}) {
  return (await send(path, { method: 'POST', body })).json();
}

/** @param {string} path */
export async function remove(path) {
  return (await send(path, { method: 'DELETE' })).json();
}

/**
 * An object that seldom changes, requested once.
 * @param {string} path
 * @param {Record<string, any>} [query]
 */
export function cached(path, query) {
  const name = path + queryString(query);
  let promise = cache.get(name);
  if (!promise) {
    promise = get(path, query);
    cache.set(name, promise);
    promise.then((object) => cache.get(name) === promise && known.set(name, object), () => cache.delete(name));
  }
  return promise;
}

/** @param {string} path @returns {any} what {@link cached} has already received */
export const peek = (path) => known.get(path);

/** @param {string} prefix forgets the objects whose path begins with it */
export function forget(prefix) {
  for (const name of cache.keys()) {
    if (!name.startsWith(prefix)) continue;
    cache.delete(name);
    known.delete(name);
  }
}

/**
 * The content of a file.
 * @param {string} id
 * @param {AbortSignal} [signal]
 */
export async function fileContent(id, signal) {
  return (await send(`/v1/files/${encodeURIComponent(id)}/content`, { signal })).blob();
}

/**
 * Uploads a file and reports the sent fraction.
 * @param {File} file
 * @param {string} purpose
 * @param {(fraction: number) => void} onProgress
 * @param {AbortSignal} [signal]
 * @returns {Promise<any>}
 */
export function upload(file, purpose, onProgress, signal) {
  return new Promise((resolve, reject) => {
    const form = new FormData();
    form.append('purpose', purpose);
    form.append('file', file, file.name);
    // `fetch` does not report the progress of a request.
    const request = new XMLHttpRequest();
    request.open('POST', '/v1/files');
    request.setRequestHeader('authorization', `Bearer ${keys.project ?? NO_KEY}`);
    request.responseType = 'json';
    request.upload.onprogress = (event) => event.lengthComputable && onProgress(event.loaded / event.total);
    request.onload = () => {
      if (request.status === 200) return resolve(request.response);
      const error = request.response?.error;
      reject(new ApiError(request.status, error?.message ?? `The server answered with status ${request.status}.`));
    };
    request.onerror = () => reject(new ApiError(0, 'The server cannot be reached.'));
    request.onabort = () => reject(new DOMException('The upload was cancelled.', 'AbortError'));
    signal?.addEventListener('abort', () => request.abort());
    request.send(form);
  });
}
