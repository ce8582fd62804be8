// Lists of the API, with more rows as they come into view.

import { html, useEffect, useMemo, useRef, useState } from '../html.js';
import { ErrorNote, Loading } from './basic.js';

/** @typedef {import('../html.js').Children} Children */

/**
 * @typedef {object} Column
 * @property {string} name
 * @property {(item: any) => any} cell
 * @property {string} [class]
 */

/**
 * A table of a list's objects, of which only the rows near the view are elements.
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
      ${blocksOf(pages.items).map((items, at) => html`<${Block} key=${at} items=${items} columns=${columns} />`)}
    </div>
    ${pages.hasMore && html`<${More} onView=${pages.loadMore} />`}
  `;
}

const BLOCK = 50;

/** @param {any[]} items */
const blocksOf = (items) => Array.from({ length: Math.ceil(items.length / BLOCK) }, (_, at) => items.slice(at * BLOCK, (at + 1) * BLOCK));

/** @param {{items: any[], columns: Column[]}} props rows that become an empty space while they are far out of view */
function Block({ items, columns }) {
  const frame = useRef(/** @type {HTMLElement | null} */ (null));
  const height = useRef(0);
  const [isNear, setNear] = useState(true);
  useEffect(() => {
    const observer = new IntersectionObserver((entries) => {
      const isVisible = entries.at(-1)?.isIntersecting ?? true;
      if (!isVisible && frame.current?.firstChild) height.current = frame.current.offsetHeight;
      setNear(isVisible);
    }, { rootMargin: '2000px 0px' });
    if (frame.current) observer.observe(frame.current);
    return () => observer.disconnect();
  }, []);
  const style = { height: isNear ? '' : `${height.current}px` };
  return html`<div role="rowgroup" ref=${frame} style=${style}>
    ${isNear && items.map((item) => html`<${Row} key=${item.id} item=${item} columns=${columns} />`)}
  </div>`;
}

/** @param {{item: any, columns: Column[]}} props rendered again when the object has changed */
function Row({ item, columns }) {
  return useMemo(
    () => html`<div role="row" class="table-row">
      ${columns.map((column) => html`<div role="cell" key=${column.name} class=${column.class} dir="auto">${column.cell(item)}</div>`)}
    </div>`,
    [item],
  );
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
