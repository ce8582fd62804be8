// Markdown as elements. The lexer makes tokens; no token becomes markup, so HTML in a text is shown as
// text.

import { Fragment, h, html } from './html.js';
import { lexer } from './vendor/marked.js';

/** Longer texts are shown as they are: nobody reads them, and the lexer would take long. */
const MAX_CHARACTERS = 200_000;

/** @typedef {(href: string, children: any) => any} LinkTo */

/**
 * @param {{text: string, link?: LinkTo}} props `link` shows the links that need more than an address
 */
export function Markdown({ text, link = plainLink }) {
  if (text.length > MAX_CHARACTERS) return html`<pre class="plain-text">${text}</pre>`;
  let tokens;
  try {
    tokens = lexer(text);
  } catch {
    return html`<pre class="plain-text">${text}</pre>`;
  }
  return html`<div class="markdown" dir="auto">${blocks(tokens, link)}</div>`;
}

/**
 * Shows a link to another site; anything but a web address is shown as text.
 * @type {LinkTo}
 */
export function plainLink(href, children) {
  if (!/^https?:\/\//i.test(href)) return html`<span>${children}</span>`;
  return html`<a href=${href} target="_blank" rel="noreferrer noopener">${children}</a>`;
}

/**
 * @param {any[]} tokens
 * @param {LinkTo} link
 */
function blocks(tokens, link) {
  return tokens.map((token) => block(token, link));
}

/**
 * @param {any} token
 * @param {LinkTo} link
 * @returns {any}
 */
function block(token, link) {
  switch (token.type) {
    case 'space':
    case 'def':
      return null;
    case 'heading':
      // The page's own headings come first.
      return h(`h${Math.min(6, token.depth + 2)}`, {}, inlines(token.tokens, link));
    case 'paragraph':
      return html`<p>${inlines(token.tokens, link)}</p>`;
    case 'text':
      return token.tokens ? inlines(token.tokens, link) : unescape(token);
    case 'code':
      return html`<pre tabindex="0"><code>${token.text}</code></pre>`;
    case 'blockquote':
      return html`<blockquote>${blocks(token.tokens, link)}</blockquote>`;
    case 'hr':
      return html`<hr />`;
    case 'list':
      return list(token, link);
    case 'table':
      return table(token, link);
    default:
      return html`<p>${token.raw}</p>`;
  }
}

/**
 * @param {any} token
 * @param {LinkTo} link
 */
function list(token, link) {
  const items = token.items.map(
    (/** @type {any} */ item) =>
      html`<li>${item.task && html`<input type="checkbox" disabled checked=${item.checked} aria-label="Task" />`}
        ${blocks(item.tokens, link)}</li>`,
  );
  return token.ordered ? html`<ol start=${token.start || 1}>${items}</ol>` : html`<ul>${items}</ul>`;
}

/**
 * @param {any} token
 * @param {LinkTo} link
 */
function table(token, link) {
  const cells = (/** @type {any[]} */ row, /** @type {string} */ tag) =>
    row.map((cell, index) => h(tag, { class: `align-${token.align[index] ?? 'left'}` }, inlines(cell.tokens, link)));
  const rows = token.rows.map((/** @type {any[]} */ row) => html`<tr>${cells(row, 'td')}</tr>`);
  return html`<div class="scroll" tabindex="0"><table><thead><tr>${cells(token.header, 'th')}</tr></thead><tbody>${rows}</tbody></table></div>`;
}

/**
 * @param {any[]} tokens
 * @param {LinkTo} link
 */
function inlines(tokens, link) {
  return (tokens ?? []).map((token) => inline(token, link));
}

/**
 * @param {any} token
 * @param {LinkTo} link
 * @returns {any}
 */
function inline(token, link) {
  switch (token.type) {
    case 'strong':
      return html`<strong>${inlines(token.tokens, link)}</strong>`;
    case 'em':
      return html`<em>${inlines(token.tokens, link)}</em>`;
    case 'del':
      return html`<del>${inlines(token.tokens, link)}</del>`;
    case 'codespan':
      return html`<code>${token.text}</code>`;
    case 'br':
      return html`<br />`;
    case 'link':
      return link(token.href, inlines(token.tokens, link));
    case 'image':
      // Pictures of other sites are not loaded: they would tell who reads the text.
      return link(token.href, token.text || token.href);
    case 'escape':
    case 'text':
      return token.tokens ? h(Fragment, {}, inlines(token.tokens, link)) : unescape(token);
    default:
      return token.raw;
  }
}

/** @param {any} token */
function unescape(token) {
  const names = /** @type {Record<string, string>} */ ({ amp: '&', lt: '<', gt: '>', quot: '"', '#39': "'", nbsp: '\u00a0' });
  const text = String(token.text ?? token.raw);
  return text.replace(/&(amp|lt|gt|quot|#39|nbsp);/g, (whole, name) => names[name] ?? whole);
}
