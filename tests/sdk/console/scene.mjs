// Objects that the tests look at: runs of every kind, and texts that must show as text.

export const HOSTILE = '<script>alert(1)</script><img src=x onerror="alert(2)"> **[x](javascript:alert(3))** مرحبا بالعالم';
const CODE = { type: 'code_interpreter' };
const FUNCTION = {
  type: 'function',
  function: { name: 'get_weather', parameters: { type: 'object', properties: { city: { type: 'string' } } } },
};

export async function seed(client) {
  const assistant = (model, more = {}) =>
    client.post('/v1/assistants', { model: `scripted/${model}`, name: model, ...more });
  const scene = {
    echo: await assistant('echo'),
    weather: await assistant('weather', { tools: [FUNCTION] }),
    coder: await assistant('coder', { tools: [CODE] }),
    broken: await assistant('quitter'),
    slow: await assistant('slow'),
    store: await client.post('/v1/vector_stores', { name: 'People' }),
    file: await client.upload('people.md', '# People\n\nAna likes cake. Bert likes coffee.'),
  };
  await client.post(`/v1/vector_stores/${scene.store.id}/files`, { file_id: scene.file.id });
  await client.until(`/v1/vector_stores/${scene.store.id}`, (store) => store.status === 'completed');
  scene.librarian = await assistant('librarian', {
    tools: [{ type: 'file_search' }],
    tool_resources: { file_search: { vector_store_ids: [scene.store.id] } },
  });
  scene.done = await client.run(scene.echo, 'Hello', { metadata: { order: '4711' } });
  scene.coded = await client.run(scene.coder, 'A chart, please');
  scene.searched = await client.run(scene.librarian, 'Who likes cake?');
  scene.failed = await client.run(scene.broken, 'Hello');
  return scene;
}
