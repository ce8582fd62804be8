// The administration: projects with their keys and limits, usage, audit log, webhooks.

import { keys } from '../api.js';
import { html, useState } from '../html.js';
import { navigate } from '../router.js';
import { PageHead, Tabs } from '../parts/basic.js';
import { KeyForm } from '../parts/key.js';
import { AuditLog } from '../parts/audit.js';
import { Projects } from '../parts/projects.js';
import { Usage } from '../parts/usage.js';
import { Webhooks } from '../parts/webhooks.js';

/** @param {{section?: string}} props */
export default function Admin({ section = 'projects' }) {
  const [, setChanged] = useState(0);
  if (!keys.admin) {
    return html`<${PageHead} title="Administration" name="Administration" />
      <${KeyForm} isAdmin onDone=${() => setChanged((count) => count + 1)} />`;
  }
  const tabs = [
    { id: 'projects', name: 'Projects' },
    { id: 'usage', name: 'Usage' },
    { id: 'webhooks', name: 'Webhooks' },
    { id: 'audit', name: 'Audit log' },
  ];
  return html`
    <${PageHead} title="Administration" name="Administration" />
    <${Tabs} tabs=${tabs} current=${section} onSelect=${(/** @type {string} */ name) => navigate(`/admin/${name}`)} label="Sections of the administration" />
    ${section === 'projects' && html`<${Projects} />`}
    ${section === 'usage' && html`<${Usage} />`}
    ${section === 'webhooks' && html`<${Webhooks} />`}
    ${section === 'audit' && html`<${AuditLog} />`}
  `;
}
