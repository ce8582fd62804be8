"""Sends generated requests, valid and invalid, to every operation of the OpenAPI document.

Whatever comes, the answer must be a documented one: no 5xx, and the error envelope for every refusal. The first
pass makes the ids up too; the second names objects that exist, so that bodies get past the look-up.
"""

import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "wire"))

from raw_http import KEY, send  # noqa: E402

SERVER = os.environ["SDK_SERVER_URL"]
API = f"{SERVER}/v1"
SCHEMATHESIS = Path(sys.executable).parent / "schemathesis"
CHECKS = [
    "not_a_server_error",
    "status_code_conformance",
    "content_type_conformance",
    "response_headers_conformance",
    "response_schema_conformance",
]


def create(path, body):
    answer = send("POST", path, body, base=API)
    assert answer.status == 200, answer.body
    return answer.json


def existing_objects():
    """Ids of one object of each kind, by the name of their path parameter."""
    assistant = create("/assistants", {"model": "scripted/greeter"})["id"]
    thread = create("/threads", {"messages": [{"role": "user", "content": "Hi"}]})["id"]
    run = create(f"/threads/{thread}/runs", {"assistant_id": assistant})["id"]
    while send("GET", f"/threads/{thread}/runs/{run}", base=API).json["status"] != "completed":
        time.sleep(0.05)
    step = send("GET", f"/threads/{thread}/runs/{run}/steps", base=API).json["data"][0]
    form = (
        '--edge\r\ncontent-disposition: form-data; name="purpose"\r\n\r\nassistants\r\n'
        '--edge\r\ncontent-disposition: form-data; name="file"; filename="a.txt"\r\n\r\ntext\r\n--edge--\r\n'
    )
    kind = {"Content-Type": "multipart/form-data; boundary=edge"}
    file = send("POST", "/files", raw=form.encode(), headers=kind, base=API).json["id"]
    store = create("/vector_stores", {})["id"]
    batch = create(f"/vector_stores/{store}/file_batches", {"file_ids": [file]})["id"]
    upload = create("/uploads", {"filename": "a", "purpose": "assistants", "bytes": 1, "mime_type": "text/plain"})
    return {
        "assistant_id": assistant,
        "thread_id": thread,
        "message_id": step["step_details"]["message_creation"]["message_id"],
        "run_id": run,
        "object_id": run,
        "step_id": step["id"],
        "upload_id": upload["id"],
        "file_id": file,
        "vector_store_id": store,
        "batch_id": batch,
    }


def run_pass(name, folder, ids, excluded):
    """Runs the fuzzer once with these ids in paths and bodies; returns whether it found nothing."""
    lines = ["[parameters]", *(f'"path.{key}" = {json.dumps(value)}' for key, value in ids.items())]
    config = folder / f"{name}.toml"
    config.write_text("\n".join(lines) + "\n")
    document = send("GET", "/openapi.json", base=SERVER).json
    if "assistant_id" in ids:
        for request in ("CreateRunRequest", "CreateThreadAndRunRequest"):
            properties = document["components"]["schemas"][request]["properties"]
            properties["assistant_id"] = {"const": ids["assistant_id"]}
    described = folder / f"{name}.json"
    described.write_text(json.dumps(document))
    command = [str(SCHEMATHESIS), "--config-file", str(config), "run", str(described), "--url", SERVER]
    command += ["--header", f"Authorization: Bearer {KEY}", "--checks", ",".join(CHECKS)]
    command += ["--phases", "coverage,fuzzing", "--max-examples", "25", "--seed", "7", "--no-color"]
    command += ["--warnings", "off", "--continue-on-failure", "--request-timeout", "60"]
    command += ["--suppress-health-check", "filter_too_much"]
    command += [part for method in excluded for part in ("--exclude-method", method)]
    print(f"== {name}", flush=True)
    return subprocess.run(command, cwd=folder).returncode == 0


def main():
    with tempfile.TemporaryDirectory() as folder:
        folder = Path(folder)
        passes = [
            run_pass("made-up ids", folder, {}, []),
            run_pass("existing ids", folder, existing_objects(), ["DELETE"]),
        ]
    print(f"{passes.count(True)} passed, {passes.count(False)} failed")
    sys.exit(not all(passes))


if __name__ == "__main__":
    main()
