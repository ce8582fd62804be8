"""A reverse proxy that validates every response against the OpenAPI document.

    python proxy.py --route PREFIX=URL [--route …] --report FILE [--all-operations]

It prints its own address in one line, serves until SIGTERM, then writes the report and exits with 1 when
a response broke the contract or, with --all-operations, when an operation was never answered with success.
A client names its test in the header `x-test`; the report repeats it.
"""

import argparse
import asyncio
import json
import signal
import sys
from collections import Counter
from pathlib import Path

from aiohttp import ClientConnectionError, ClientSession, ClientTimeout, DummyCookieJar, web
from yarl import URL

from contract import Contract
from stream_rules import EventParser, StreamRules

# Headers that belong to one connection, not to the message.
HOP_BY_HOP = {"connection", "keep-alive", "transfer-encoding", "te", "upgrade", "host"}


# The console's files, and the admin API, which docs/projects.md describes.
UNDOCUMENTED = ("/console", "/admin/")


class Judge:
    """Collects violations over all requests."""

    def __init__(self, contract):
        self.contract = contract
        self.violations = {}
        self.counts = Counter()
        self.covered = set()

    def report(self, where, test, found):
        for what in found:
            tests = self.violations.setdefault((where, what), Counter())
            tests[test] += 1

    def uncovered(self):
        return sorted(
            str(operation)
            for operation in self.contract.operations
            # Some operations always fail, and the suites' servers have no upstream.
            if str(operation) not in self.covered
            and any(str(status).startswith("2") for status in operation.definition["responses"])
            and "x-assistd-upstream" not in operation.definition
        )

    def text(self, all_operations):
        lines = []
        for (where, what), tests in sorted(self.violations.items()):
            lines.append(f"{where}: {what}")
            lines += [f"    {count}x in {test}" for test, count in tests.most_common(3)]
        if all_operations:
            lines += [f"never answered with success: {operation}" for operation in self.uncovered()]
        lines.append(
            f"contract: {self.counts['bodies']} bodies, {self.counts['streams']} streams and "
            f"{self.counts['events']} events checked, {len(self.violations)} kinds of violation, "
            f"{len(self.covered)} of {len(self.contract.operations)} operations covered"
        )
        return "\n".join(lines) + "\n"


class Proxy:
    def __init__(self, routes, judge):
        self._routes = routes
        self._judge = judge
        self._session = None

    async def start(self):
        # Requests are forwarded without decompression, decoding or cookies.
        self._session = ClientSession(
            auto_decompress=False, cookie_jar=DummyCookieJar(), timeout=ClientTimeout(total=None)
        )

    async def stop(self):
        await self._session.close()

    async def handle(self, request):
        prefix, target = next((p, t) for p, t in self._routes if request.raw_path.startswith(p))
        url = target + request.raw_path[len(prefix) :]
        headers = [(k, v) for k, v in request.headers.items() if k.lower() not in HOP_BY_HOP]
        body = request.content if request.can_read_body else None
        path = request.path[len(prefix) :]
        exchange = Exchange(self._judge, request.method, path, request.headers)
        async with self._session.request(
            request.method, URL(url, encoded=True), headers=headers, data=body, allow_redirects=False
        ) as upstream:
            response = web.StreamResponse(status=upstream.status, reason=upstream.reason)
            for name, value in upstream.headers.items():
                if name.lower() not in HOP_BY_HOP:
                    response.headers.add(name, value)
            await response.prepare(request)
            exchange.begin(upstream.status, upstream.headers)
            cut_off = False
            try:
                async for chunk in upstream.content.iter_any():
                    exchange.chunk(chunk)
                    await response.write(chunk)
                await response.write_eof()
            except (ClientConnectionError, ConnectionResetError):
                cut_off = True
            except asyncio.CancelledError:
                exchange.end(cut_off=True)
                raise
            exchange.end(cut_off)
        return response


class Exchange:
    """One request and its response."""

    def __init__(self, judge, method, path, headers):
        self._judge = judge
        self._test = headers.get("x-test", "?")
        self._resumed = "Last-Event-ID" in headers
        self._operation = judge.contract.operation(method, path)
        self._where = str(self._operation) if self._operation else f"{method} {path}"
        self._status = 0
        self._type = ""
        self._body = b""
        self._rules = None
        self._parser = None

    def begin(self, status, headers):
        self._status = status
        self._type = headers.get("Content-Type", "").split(";")[0].strip()
        if self._operation is None:
            if status < 400 and not self._where.split()[1].startswith(UNDOCUMENTED):
                self._report(["an undocumented operation succeeded"])
            return
        if status < 400:
            self._judge.covered.add(str(self._operation))
        self._report(self._judge.contract.header_violations(self._operation, status, headers))
        operation_id = self._operation.definition["operationId"]
        if self._type == "text/event-stream" and operation_id != "createChatCompletion":
            if headers["Content-Type"] != "text/event-stream; charset=utf-8":
                self._report([f"content type {headers['Content-Type']!r}"])
            # A resumed stream cannot be validated as a whole.
            self._rules = None if self._resumed else StreamRules(operation_id)
            self._parser = EventParser(numbered=operation_id == "streamRun")

    def chunk(self, chunk):
        if self._parser:
            for name, data, problem in self._parser.feed(chunk):
                self._event(name, data, problem)
        else:
            self._body += chunk

    def end(self, cut_off):
        if self._parser:
            self._judge.counts["streams"] += 1
            if not cut_off and self._parser.leftover():
                self._report(["bytes after the last event"])
            if self._rules:
                self._rules.finish(cut_off)
                self._report(self._rules.violations)
        elif not cut_off and self._operation:
            self._judge_body()

    def _event(self, name, data, problem):
        self._judge.counts["events"] += 1
        if problem:
            self._report([f"event {name}: {problem}"])
        if data is None:
            return
        found = self._judge.contract.event_violations(name, data)
        self._report([f"event {name}: {what}" for what in found])
        if self._rules and not found:
            self._rules.event(name, data)

    def _judge_body(self):
        if self._type == "text/event-stream":
            for block in self._body.split(b"\n\n"):
                if block.startswith(b"data: {"):
                    self._count_and_report("CreateChatCompletionStreamResponse", json.loads(block[6:]))
        elif self._type == "application/json" or self._status >= 400:
            self._judge.counts["bodies"] += 1
            self._report(
                self._judge.contract.body_violations(self._operation, self._status, self._type, self._parsed())
            )

    def _count_and_report(self, schema, value):
        self._judge.counts["events"] += 1
        self._report(self._judge.contract.violations(schema, value))

    def _parsed(self):
        try:
            return json.loads(self._body)
        except ValueError:
            return None

    def _report(self, found):
        self._judge.report(f"{self._where} {self._status}", self._test, found)


async def serve(options):
    judge = Judge(Contract())
    routes = [tuple(route.split("=", 1)) for route in options.route]
    # The longest matching prefix wins.
    routes.sort(key=lambda route: -len(route[0]))
    proxy = Proxy(routes, judge)
    await proxy.start()
    # A client that hangs up must end the request to the server.
    server = web.Server(proxy.handle, handler_cancellation=True)
    runner = web.ServerRunner(server)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", options.port)
    await site.start()
    port = site._server.sockets[0].getsockname()[1]
    print(f"http://127.0.0.1:{port}", flush=True)
    stopped = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stopped.set)
    await stopped.wait()
    await runner.cleanup()
    await proxy.stop()
    Path(options.report).write_text(judge.text(options.all_operations), encoding="utf-8")
    return bool(judge.violations or (options.all_operations and judge.uncovered()))


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--route", action="append", required=True, metavar="PREFIX=URL")
    parser.add_argument("--report", required=True)
    parser.add_argument("--port", type=int, default=0)
    parser.add_argument("--all-operations", action="store_true")
    sys.exit(asyncio.run(serve(parser.parse_args())))


if __name__ == "__main__":
    main()
