// Finds mistakes in definitions of functions before they are sent.

const NAME = /^[a-zA-Z0-9_-]{1,64}$/;
const TYPES = new Set(['string', 'number', 'integer', 'boolean', 'object', 'array', 'null']);

/**
 * What is wrong with a JSON list of function definitions, in words.
 * @param {string} text
 * @returns {string[]}
 */
export function functionProblems(text) {
  if (!text.trim()) return [];
  let value;
  try {
    value = JSON.parse(text);
  } catch (error) {
    return [`This is not valid JSON: ${/** @type {Error} */ (error).message}`];
  }
  const list = Array.isArray(value) ? value : [value];
  const problems = list.flatMap((one, at) => definitionProblems(one?.function ?? one, `Function ${at + 1}`));
  const names = list.map((one) => (one?.function ?? one)?.name);
  const twice = names.find((name, at) => name && names.indexOf(name) !== at);
  return twice ? [...problems, `Two functions are called ${twice}.`] : problems;
}

/**
 * @param {any} definition
 * @param {string} where
 * @returns {string[]}
 */
function definitionProblems(definition, where) {
  if (!isObject(definition)) return [`${where}: expected an object.`];
  if (typeof definition.name !== 'string') return [`${where}: it has no name.`];
  if (!NAME.test(definition.name)) return [`${where}: a name has up to 64 letters, digits, _ and -.`];
  const { parameters } = definition;
  if (parameters === undefined) return [];
  if (!isObject(parameters)) return [`${definition.name}: parameters must be a JSON schema.`];
  if (parameters.type !== 'object') return [`${definition.name}: the type of parameters must be "object".`];
  return schemaProblems(parameters, definition.name);
}

/**
 * @param {any} schema
 * @param {string} where
 * @returns {string[]}
 */
function schemaProblems(schema, where) {
  if (typeof schema === 'boolean') return [];
  if (!isObject(schema)) return [`${where}: expected a schema.`];
  const problems = [];
  const types = schema.type === undefined ? [] : [schema.type].flat();
  const unknown = types.find((type) => !TYPES.has(type));
  if (unknown !== undefined) problems.push(`${where}: there is no type ${JSON.stringify(unknown)}.`);
  if (schema.properties !== undefined && !isObject(schema.properties)) problems.push(`${where}: properties must be an object.`);
  else {
    for (const [name, property] of Object.entries(schema.properties ?? {})) problems.push(...schemaProblems(property, `${where}.${name}`));
    const missing = [schema.required ?? []].flat().find((name) => !(name in (schema.properties ?? {})));
    if (missing !== undefined) problems.push(`${where}: ${JSON.stringify(missing)} is required, but there is no such property.`);
  }
  if (schema.required !== undefined && !Array.isArray(schema.required)) problems.push(`${where}: required must be a list.`);
  if (schema.enum !== undefined && !Array.isArray(schema.enum)) problems.push(`${where}: enum must be a list.`);
  if (schema.items !== undefined) problems.push(...schemaProblems(schema.items, `${where}[]`));
  for (const name of ['anyOf', 'oneOf', 'allOf']) for (const one of schema[name] ?? []) problems.push(...schemaProblems(one, where));
  return problems;
}

/** @param {any} value */
const isObject = (value) => typeof value === 'object' && value !== null && !Array.isArray(value);
