// Lists of the API, with more rows as they come into view.

import { html, useEffect, useRef } from '../html.js';
import { ErrorNote, Loading } from './basic.js';

/** @typedef {import('../html.js').Children} Children */

/**
 * @typedef {object} Column
 * @property {string} name
 * @property {(item: any) => any} cell
 * @property {string} [class]
 */

/**
 * A table of a list's objects. Rows that are not in view are not laid out.
 * @param {{pages: any, columns: Column[], label: string, empty: Children, class: string, isNew?: (item: any) => boolean}} props
 */
export function PagedTable({ pages, columns, label, empty, class: name }) {
  if (pages.isLoading) return html`<${Loading} />`;
  if (!pages.items) return html`<${ErrorNote} error=${pages.error} onRetry=${pages.refresh} />`;
  if (!pages.items.length) return html`<${ErrorNote} error=${pages.error} onRetry=${pages.refresh} />${empty}`;
  return html`
    <${ErrorNote} error=${pages.error} onRetry=${pages.refresh} />
    <div class=${`table ${name}`} role="table" aria-label=${label} aria-rowcount=${pages.hasMore ? -1 : pages.items.length}>
      <div role="rowgroup" class="table-head"><div role="row" class="table-row">
        ${columns.map((column) => html`<div role="columnheader" key=${column.name} class=${column.class}>${column.name}</div>`)}
      </div></div>
      <div role="rowgroup">
        ${pages.items.map(
          (/** @type {any} */ item) => html`<div role="row" class="table-row" key=${item.id}>
            ${columns.map((column) => html`<div role="cell" key=${column.name} class=${column.class} dir="auto">${column.cell(item)}</div>`)}
          </div>`,
        )}
      </div>
    </div>
    ${pages.hasMore && html`<${More} onView=${pages.loadMore} />`}
  `;
}

/** @param {{onView: () => void, label?: string}} props a button that presses itself when it comes into view */
export function More({ onView, label = 'Load more' }) {
  const button = useRef(/** @type {HTMLElement | null} */ (null));
  const latest = useRef(onView);
  latest.current = onView;
  useEffect(() => {
    const observer = new IntersectionObserver((entries) => {
      if (entries.some((entry) => entry.isIntersecting)) latest.current();
    }, { rootMargin: '600px' });
    if (button.current) observer.observe(button.current);
    return () => observer.disconnect();
  });
  return html`<p class="more"><button type="button" ref=${button} onClick=${onView}>${label}</button></p>`;
}
