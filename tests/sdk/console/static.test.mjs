// What can be said of the console's files without a browser.

import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { cpSync, mkdtempSync, readFileSync, readdirSync, rmSync, symlinkSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { test } from 'node:test';

const CONSOLE = path.join(import.meta.dirname, '..', '..', '..', 'console');
const PACKAGES = path.join(process.env.SDK_PACKAGE, 'node_modules');
// The vendored files and the files of the packages that they are copies of.
const VENDORED = {
  'preact.js': 'preact/dist/preact.mjs',
  'preact-hooks.js': 'preact/hooks/dist/hooks.mjs',
  'htm.js': 'htm/dist/htm.module.js',
  'marked.js': 'marked/lib/marked.esm.js',
};
const TYPES = { 'preact.js': 'preact', 'preact-hooks.js': 'preact/hooks', 'marked.js': 'marked' };

const sources = readdirSync(CONSOLE, { recursive: true })
  .filter((name) => name.endsWith('.js') && !name.startsWith('vendor'))
  .map((name) => ({ name, text: readFileSync(path.join(CONSOLE, name), 'utf8') }));

test('the types of the console are right', { timeout: 120_000 }, () => {
  const folder = mkdtempSync(path.join(tmpdir(), 'assistd-console-types-'));
  try {
    cpSync(CONSOLE, folder, { recursive: true, filter: (file) => !/vendor\/.*\.js$/.test(file) });
    symlinkSync(PACKAGES, path.join(folder, 'node_modules'));
    for (const [file, name] of Object.entries(TYPES)) {
      writeFileSync(path.join(folder, 'vendor', file.replace('.js', '.d.ts')), `export * from '${name}';\n`);
    }
    writeFileSync(
      path.join(folder, 'vendor', 'htm.d.ts'),
      'declare const htm: { bind(h: any): (strings: TemplateStringsArray, ...values: any[]) => any };\nexport default htm;\n',
    );
    const options = {
      allowJs: true,
      checkJs: true,
      noEmit: true,
      strict: true,
      noUnusedLocals: true,
      noImplicitReturns: true,
      target: 'es2024',
      module: 'esnext',
      moduleResolution: 'bundler',
      lib: ['es2024', 'dom', 'dom.iterable', 'dom.asynciterable'],
      types: [],
      skipLibCheck: true,
    };
    const config = { compilerOptions: options, include: ['*.js', 'parts/*.js', 'pages/*.js'] };
    writeFileSync(path.join(folder, 'tsconfig.json'), JSON.stringify(config));
    execFileSync(path.join(PACKAGES, '.bin', 'tsc'), ['--project', folder], { encoding: 'utf8', cwd: folder });
  } catch (error) {
    assert.fail(error.stdout || error.message);
  } finally {
    rmSync(folder, { recursive: true, force: true });
  }
});

test('vendored files are those of the packages', () => {
  for (const [name, original] of Object.entries(VENDORED)) {
    const expected = readFileSync(path.join(PACKAGES, original), 'utf8')
      .replace(/\n?\/\/# sourceMappingURL=.*\n?/, '\n')
      .replace('from"preact"', 'from"./preact.js"')
      .trimEnd();
    assert.equal(readFileSync(path.join(CONSOLE, 'vendor', name), 'utf8'), `${expected}\n`, name);
  }
});

test('no source turns text into markup or code', () => {
  const forbidden =
    /innerHTML|outerHTML|insertAdjacentHTML|dangerouslySetInnerHTML|document\.write|parseFromString|createContextualFragment|\beval\b|new Function|setHTMLUnsafe|srcdoc/;
  for (const { name, text } of sources) assert.doesNotMatch(text, forbidden, name);
});

test('every module is short and every import exists', () => {
  const names = new Set([...sources.map(({ name }) => name), ...Object.keys(VENDORED).map((name) => `vendor/${name}`)]);
  for (const { name, text } of sources) {
    assert.ok(text.split('\n').length <= 260, `${name} is too long`);
    for (const [, target] of text.matchAll(/(?:from|import\()\s*'(\.[^']+)'/g)) {
      const file = path.join(path.dirname(name), target);
      assert.ok(names.has(file), `${name} imports ${target}`);
    }
  }
});
