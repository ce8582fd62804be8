"""Validates response bodies and stream events against the OpenAPI document."""

import json
import re
from pathlib import Path

import yaml
from jsonschema import Draft202012Validator
from referencing import Registry, Resource
from referencing.jsonschema import DRAFT202012

DOCUMENT = Path(__file__).resolve().parents[3] / "src" / "http" / "openapi.yaml"
METHODS = ("get", "post", "delete", "put", "patch")


class Operation:
    """A method of a path in the document."""

    def __init__(self, method, path, definition, pattern):
        self.method = method
        self.path = path
        self.definition = definition
        self.pattern = pattern

    def __str__(self):
        return f"{self.method.upper()} {self.path}"


class Contract:
    """The document, prepared for validation."""

    def __init__(self, document=DOCUMENT):
        self.document = yaml.safe_load(document.read_text(encoding="utf-8"))
        resource = Resource.from_contents(self.document, default_specification=DRAFT202012)
        self._registry = Registry().with_resource("urn:contract", resource)
        self._validators = {}
        self.operations = [
            Operation(method, path, item[method], _pattern(path))
            for path, item in self.document["paths"].items()
            for method in METHODS
            if method in item
        ]
        # A fixed path such as /threads/runs wins over a templated one.
        self.operations.sort(key=lambda operation: operation.path.count("{"))

    def operation(self, method, path):
        """The operation that serves a request, or None where the document has none."""
        path = _canonical(path)
        for operation in self.operations:
            if operation.method == method.lower() and operation.pattern.fullmatch(path):
                return operation
        return None

    def body_violations(self, operation, status, content_type, body):
        """The violations in a parsed JSON body."""
        if status >= 400:
            return self.violations("ErrorResponse", body)
        response = self._response(operation, status)
        if response is None:
            return [f"status {status} is not documented"]
        content = response.get("content", {})
        if content_type not in content:
            return [f"content type {content_type!r} is not documented"]
        found = self._violations_of(content[content_type]["schema"], body)
        return found + _page_violations(body)

    def event_violations(self, name, data):
        """The violations in an event of a run's stream."""
        return self.violations("AssistantStreamEvents", {name: data})

    def header_violations(self, operation, status, headers):
        """The required headers that are missing or malformed."""
        response = self._response(operation, status) or self._resolve(
            {"$ref": "#/components/responses/Error"}
        )
        found = []
        for name, reference in response.get("headers", {}).items():
            header = self._resolve(reference)
            value = headers.get(name)
            if value is None:
                if header.get("required"):
                    found.append(f"header {name} is missing")
            else:
                found += [f"header {name}: {e}" for e in self._violations_of(header["schema"], value)]
        return found

    def violations(self, schema_name, value):
        """The violations of a named schema in a value."""
        return self._violations_of({"$ref": f"#/components/schemas/{schema_name}"}, value)

    def _violations_of(self, schema, value):
        key = json.dumps(schema, sort_keys=True)
        validator = self._validators.get(key)
        if validator is None:
            absolute = json.loads(key.replace('"#/components/', '"urn:contract#/components/'))
            validator = Draft202012Validator(absolute, registry=self._registry)
            self._validators[key] = validator
        return [_describe(error) for error in validator.iter_errors(value)]

    def _response(self, operation, status):
        responses = operation.definition["responses"]
        response = responses.get(str(status)) or (responses.get("default") if status >= 400 else None)
        return self._resolve(response) if response else None

    def _resolve(self, node):
        while "$ref" in node:
            target = self.document
            for part in node["$ref"].removeprefix("#/").split("/"):
                target = target[part]
            node = target
        return node


def _pattern(path):
    # A model's name may contain slashes; every other parameter is one segment.
    body = re.sub(r"\{(\w+)\}", lambda m: ".+" if m[1] == "model" else "[^/]+", path)
    return re.compile(body)


def _canonical(path):
    """The path under /v1 of a request with an Azure prefix."""
    path = re.sub(r"^/openai/deployments/[^/]+/", "/v1/", path)
    return re.sub(r"^/openai/(v1/)?", "/v1/", path)


def _describe(error):
    while error.context:
        # The best-matching alternative of a oneOf explains most.
        error = max(error.context, key=lambda nested: len(nested.absolute_path))
    where = "/".join(str(part) for part in error.absolute_path) or "(whole)"
    return f"{where}: {error.message[:300]}"


def _page_violations(body):
    if not isinstance(body, dict) or body.get("object") != "list" or "first_id" not in body:
        return []
    ids = [item["id"] for item in body["data"]]
    found = []
    if ids and (body["first_id"], body["last_id"]) != (ids[0], ids[-1]):
        found.append("first_id and last_id are not those of the first and last element")
    if len(set(ids)) != len(ids):
        found.append("an id appears twice on one page")
    return found
