// Names of what runs refer to by ids.

import { cached, peek } from './api.js';
import { html, useEffect, useState } from './html.js';
import { shortId } from './format.js';
import { BASE } from './router.js';

/**
 * @param {string | null | undefined} id
 * @param {string} path of the object
 * @returns {any} the object, once it is loaded; null if there is none
 */
function useObject(id, path) {
  const [object, setObject] = useState(() => (id ? peek(path) : undefined));
  useEffect(() => {
    if (!id || (object && object.id === id)) return undefined;
    let isCurrent = true;
    cached(path).then(
      (found) => isCurrent && setObject(found),
      () => isCurrent && setObject(null),
    );
    return () => void (isCurrent = false);
  }, [path]);
  return object;
}

/** @param {{id: string | null | undefined}} props */
export function AssistantLink({ id }) {
  const assistant = useObject(id, `/v1/assistants/${id}`);
  if (!id) return '—';
  const name = assistant?.name || shortId(id);
  if (assistant === null) return html`<span title="This assistant was deleted">${name}</span>`;
  return html`<a href=${`${BASE}/assistants/${id}`} title=${id}>${name}</a>`;
}

/** @param {{id: string}} props */
export function FileLink({ id }) {
  const file = useObject(id, `/v1/files/${id}`);
  const name = file?.filename ?? shortId(id);
  if (file === null) return html`<span title="This file was deleted">${name}</span>`;
  return html`<a href=${`${BASE}/files/${id}`} title=${id}>${name}</a>`;
}

/** @param {string} id */
export const useFile = (id) => useObject(id, `/v1/files/${id}`);
