// Light, dark, or as the system says.

import { html, useState } from '../html.js';

const NAME = 'assistd.theme';
const NEXT = /** @type {Record<string, string>} */ ({ system: 'light', light: 'dark', dark: 'system' });
const SIGNS = /** @type {Record<string, string>} */ ({ system: '◐', light: '☀', dark: '☾' });

const stored = () => localStorage.getItem(NAME) ?? 'system';

export function applyTheme() {
  const theme = stored();
  if (theme === 'system') delete document.documentElement.dataset.theme;
  else document.documentElement.dataset.theme = theme;
}

export function ThemeButton() {
  const [theme, setTheme] = useState(stored);
  const change = () => {
    const next = NEXT[theme] ?? 'system';
    localStorage.setItem(NAME, next);
    applyTheme();
    setTheme(next);
  };
  const label = `Theme: ${theme}`;
  return html`<button type="button" class="quiet" onClick=${change} aria-label=${label} title=${label}>${SIGNS[theme] ?? '◐'}</button>`;
}
