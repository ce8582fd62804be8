// Times, numbers and ids as people read them.

const plain = new Intl.NumberFormat('en-US');
const exact = new Intl.DateTimeFormat(undefined, { dateStyle: 'medium', timeStyle: 'long' });

/** @param {number} value */
export const number = (value) => plain.format(value);

/** @param {number} seconds since 1970 */
export const exactTime = (seconds) => exact.format(new Date(seconds * 1000));

/**
 * @param {number} seconds since 1970
 * @param {number} [now] in milliseconds
 */
export function relativeTime(seconds, now = Date.now()) {
  const passed = now / 1000 - seconds;
  const text = roughly(Math.abs(passed));
  if (text === 'now') return text;
  return passed < 0 ? `in ${text}` : `${text} ago`;
}

/** @param {number} seconds */
function roughly(seconds) {
  if (seconds < 5) return 'now';
  if (seconds < 60) return `${Math.round(seconds)} s`;
  if (seconds < 3600) return `${Math.round(seconds / 60)} min`;
  if (seconds < 86400) return `${Math.round(seconds / 3600)} h`;
  if (seconds < 86400 * 60) return `${Math.round(seconds / 86400)} d`;
  if (seconds < 86400 * 730) return `${Math.round(seconds / 86400 / 30.44)} months`;
  return `${Math.round(seconds / 86400 / 365.25)} years`;
}

/** @param {number} milliseconds */
export function duration(milliseconds) {
  if (milliseconds < 1000) return `${Math.max(0, Math.round(milliseconds))} ms`;
  const seconds = milliseconds / 1000;
  if (seconds < 10) return `${seconds.toFixed(1)} s`;
  if (seconds < 60) return `${Math.round(seconds)} s`;
  const minutes = Math.floor(seconds / 60);
  if (minutes < 60) return `${minutes} min ${Math.round(seconds % 60)} s`;
  const hours = Math.floor(minutes / 60);
  return hours < 48 ? `${hours} h ${minutes % 60} min` : `${Math.round(hours / 24)} d`;
}

/** @param {number} value */
export function bytes(value) {
  const units = ['B', 'kB', 'MB', 'GB', 'TB'];
  let unit = 0;
  let rest = value;
  while (rest >= 1000 && unit < units.length - 1) {
    rest /= 1000;
    unit += 1;
  }
  return `${rest < 10 && unit > 0 ? rest.toFixed(1) : Math.round(rest)} ${units[unit]}`;
}

/** @param {number} value */
export function compact(value) {
  if (value < 10_000) return number(value);
  if (value < 1_000_000) return `${(value / 1000).toFixed(value < 100_000 ? 1 : 0)} k`;
  return `${(value / 1_000_000).toFixed(1)} M`;
}

/** @param {string} id */
export function shortId(id) {
  const prefix = id.match(/^[a-z]+[_-]/)?.[0] ?? '';
  return id.length > prefix.length + 10 ? `${prefix}…${id.slice(-6)}` : id;
}

/** @param {string} status */
export const statusName = (status) => status.replace(/_/g, ' ');

/**
 * @param {number} count
 * @param {string} one
 * @param {string} [many]
 */
export const plural = (count, one, many = `${one}s`) => `${number(count)} ${count === 1 ? one : many}`;

/** @param {unknown} value */
export const pretty = (value) => JSON.stringify(value, null, 2);

/**
 * JSON text with indentation; any other text as it is.
 * @param {string} text
 */
export function prettyText(text) {
  try {
    return pretty(JSON.parse(text));
  } catch {
    return text;
  }
}
