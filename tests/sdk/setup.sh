#!/usr/bin/env bash
# Installs the SDKs under test and the suites' tools into tests/sdk/.cache, unless they are installed.
set -euo pipefail
cd "$(dirname "$0")"
mkdir -p .cache

# done_for FOLDER FILES…: whether FOLDER was installed from exactly these FILES.
stamp() { cat "$@" | sha256sum | cut -d' ' -f1; }
done_for() { [ "$(cat "$1/.stamp" 2>/dev/null)" = "$(stamp "${@:2}")" ]; }

for list in requirements/*.txt; do
  folder=".cache/$(basename "$list" .txt)"
  done_for "$folder" "$list" && continue
  echo "installing $list"
  rm -rf "$folder"
  "${PYTHON:-python3}" -m venv "$folder"
  "$folder/bin/pip" install --quiet --disable-pip-version-check --requirement "$list"
  stamp "$list" > "$folder/.stamp"
done

for package in node/packages/* browser console; do
  case $package in
    browser | console) folder=.cache/$package ;;
    *) folder=".cache/node-$(basename "$package")" ;;
  esac
  done_for "$folder" "$package"/*.json && continue
  echo "installing $package"
  rm -rf "$folder"
  mkdir "$folder"
  cp "$package"/*.json "$folder"
  # The newest SDK requires a newer Node than the suites need, so its `engines` field is ignored.
  (cd "$folder" && npm ci --silent --no-audit --no-fund --engine-strict=false)
  stamp "$package"/*.json > "$folder/.stamp"
done

# Without a browser, the suites in browser/ and console/ fail with a message.
if [ -z "${CHROMIUM:-}" ] && [ ! -x /usr/bin/chromium ] && [ ! -x /usr/bin/chromium-browser ]; then
  if [ "$(id -u)" = 0 ] && command -v apt-get > /dev/null; then
    echo "installing chromium"
    { apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends chromium; } \
      > .cache/chromium.log 2>&1 || tail -n 5 .cache/chromium.log >&2
  else
    echo "the browser tests need Chromium: install it, or set CHROMIUM to a browser" >&2
  fi
fi
