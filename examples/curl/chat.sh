#!/usr/bin/env bash
# Asks an assistant a question and prints the events of the run as they stream.
set -euo pipefail

post() {
  curl --silent --show-error --fail-with-body --no-buffer "$OPENAI_BASE_URL/$1" --data "$2" \
    --header "Authorization: Bearer $OPENAI_API_KEY" --header "Content-Type: application/json"
}

assistant="$(post assistants '{"model": "gpt-4o", "instructions": "Be brief."}' |
  sed 's/.*"id": *"\(asst_[^"]*\)".*/\1/')"
post threads/runs '{"assistant_id": "'"$assistant"'", "stream": true,
  "thread": {"messages": [{"role": "user", "content": "Hello! Who are you?"}]}}'
