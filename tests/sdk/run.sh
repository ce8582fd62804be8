#!/usr/bin/env bash
# Runs the SDK suites against a real server; see `run.sh --help`. Run setup.sh first.
set -euo pipefail
here="$(cd "$(dirname "$0")" && pwd)"
exec "$here/.cache/proxy/bin/python" "$here/run.py" "$@"
