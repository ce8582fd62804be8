// Programs that do what a page shows: for a shell, Python and Node.

/** @typedef {{name: string, text: string}} Snippet */

const base = () => `${location.origin}/v1`;

/** @param {unknown} value as Python */
function python(value, indent = '') {
  /** @type {(value: any, indent: string) => string} */
  const show = (value, indent) => {
    if (value === null) return 'None';
    if (value === true) return 'True';
    if (value === false) return 'False';
    if (typeof value !== 'object') return JSON.stringify(value);
    const deeper = `${indent}    `;
    const items = Array.isArray(value)
      ? value.map((item) => show(item, deeper))
      : Object.entries(value).map(([name, item]) => `${JSON.stringify(name)}: ${show(item, deeper)}`);
    const [open, close] = Array.isArray(value) ? '[]' : '{}';
    const short = open + items.join(', ') + close;
    if (short.length < 80) return short;
    return `${open}\n${items.map((item) => `${deeper}${item},\n`).join('')}${indent}${close}`;
  };
  return show(value, indent);
}

/** @param {Record<string, any>} values as keyword arguments */
const keywords = (values) =>
  Object.entries(values)
    .map(([name, value]) => `    ${name}=${python(value, '    ')},\n`)
    .join('');

/** @param {unknown} value as an argument of a shell command */
const shell = (value) => `'${JSON.stringify(value, null, 2).replace(/'/g, `'\\''`)}'`;

/** @param {string} path @param {unknown} body */
const curl = (path, body) =>
  `curl ${base()}${path} \\
  -H "Authorization: Bearer $OPENAI_API_KEY" \\
  -H "Content-Type: application/json" \\
  -H "OpenAI-Beta: assistants=v2" \\
  -d ${shell(body)}`;

const PYTHON = () => `from openai import OpenAI

client = OpenAI(base_url="${base()}", api_key="…")
`;
const NODE = () => `import OpenAI from 'openai';

const client = new OpenAI({ baseURL: '${base()}', apiKey: '…' });
`;

/**
 * Creates a run on a thread.
 * @param {string} thread
 * @param {Record<string, any>} body
 * @returns {Snippet[]}
 */
export function runSnippets(thread, body) {
  return [
    { name: 'curl', text: curl(`/threads/${thread}/runs`, body) },
    {
      name: 'Python',
      text: `${PYTHON()}
with client.beta.threads.runs.stream(
    thread_id="${thread}",
${keywords(body)}) as stream:
    for text in stream.text_deltas:
        print(text, end="", flush=True)
`,
    },
    {
      name: 'Node',
      text: `${NODE()}
const stream = client.beta.threads.runs.stream('${thread}', ${JSON.stringify(body, null, 2)});
for await (const event of stream) {
  if (event.event === 'thread.message.delta') process.stdout.write(event.data.delta.content?.[0]?.text?.value ?? '');
}
`,
    },
  ];
}

/**
 * Creates a thread with a message, and runs it.
 * @param {Record<string, any>} body
 * @param {string} message
 * @returns {Snippet[]}
 */
export function conversationSnippets(body, message) {
  const thread = { messages: [{ role: 'user', content: message }] };
  return [
    { name: 'curl', text: curl('/threads/runs', { ...body, thread, stream: true }).replace('curl ', 'curl --no-buffer ') },
    {
      name: 'Python',
      text: `${PYTHON()}
thread = client.beta.threads.create(messages=${python(thread.messages)})
with client.beta.threads.runs.stream(
    thread_id=thread.id,
${keywords(body)}) as stream:
    for text in stream.text_deltas:
        print(text, end="", flush=True)
`,
    },
    {
      name: 'Node',
      text: `${NODE()}
const thread = await client.beta.threads.create(${JSON.stringify(thread, null, 2)});
const stream = client.beta.threads.runs.stream(thread.id, ${JSON.stringify(body, null, 2)});
stream.on('textDelta', (delta) => process.stdout.write(delta.value ?? ''));
await stream.finalRun();
`,
    },
  ];
}

/**
 * Creates an object at a path.
 * @param {string} path
 * @param {Record<string, any>} body
 * @param {string} pythonCall such as `client.beta.assistants.create`
 * @param {string} nodeCall
 * @returns {Snippet[]}
 */
export function createSnippets(path, body, pythonCall, nodeCall) {
  return [
    { name: 'curl', text: curl(path, body) },
    { name: 'Python', text: `${PYTHON()}\n${pythonCall}(\n${keywords(body)})\n` },
    { name: 'Node', text: `${NODE()}\nawait ${nodeCall}(${JSON.stringify(body, null, 2)});\n` },
  ];
}
