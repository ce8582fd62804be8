// Preact with templates instead of JSX. Templates make elements and text nodes; nothing here can
// turn a string into markup.

import { h, render, Fragment } from './vendor/preact.js';
import htm from './vendor/htm.js';

export { h, render, Fragment };
export { useCallback, useEffect, useId, useLayoutEffect, useMemo, useRef, useState } from './vendor/preact-hooks.js';

/** @typedef {import('preact').ComponentChildren} Children */

/** @type {(strings: TemplateStringsArray, ...values: any[]) => any} */
export const html = htm.bind(h);

/**
 * Joins the class names that are set.
 * @param {...(string | false | undefined | null)} names
 */
export function classes(...names) {
  return names.filter(Boolean).join(' ');
}
