"""Acknowledged objects, counts and errors of a soak."""

import array
import collections
import dataclasses
import time

# After a disturbance the server may answer 5xx and close connections for this many seconds.
RECOVERY = 15


@dataclasses.dataclass(slots=True)
class Run:
    """An acknowledged run. `status` is set when its terminal status was acknowledged; `texts` and
    `steps` are the messages and steps that a stream announced as completed."""

    status: str | None = None
    texts: dict[str, str] = dataclasses.field(default_factory=dict)
    steps: set[str] = dataclasses.field(default_factory=set)


@dataclasses.dataclass(slots=True)
class Thread:
    """An acknowledged thread.

    An attempt is entered before its request is sent, and becomes an acknowledged object when the
    answer was received in full. So the ledger is right whenever the request is cut off.
    """

    id: str
    # Any of these is valid: the acknowledged metadata, and those of later attempts.
    metadata: list[dict]
    messages: dict[str, str] = dataclasses.field(default_factory=dict)
    attempted_texts: set[str] = dataclasses.field(default_factory=set)
    attempted_deletions: set[str] = dataclasses.field(default_factory=set)
    deleted_messages: set[str] = dataclasses.field(default_factory=set)
    runs: dict[str, Run] = dataclasses.field(default_factory=dict)
    # The outcome of its last request is unknown, so one more run may exist or wait for outputs.
    is_uncertain: bool = False
    # None while the outcome of the deletion is unknown.
    is_deleted: bool | None = False


@dataclasses.dataclass(slots=True)
class File:
    """An acknowledged file. `is_indexed` is set when its indexing was acknowledged."""

    id: str
    content: bytes
    is_indexed: bool = False
    is_deleted: bool | None = False


class Ledger:
    """All acknowledged objects, and every difference between them and the server."""

    def __init__(self):
        self.threads: list[Thread] = []
        self.files: list[File] = []
        # Keys of indexed files that nobody deletes, so any search for them must succeed.
        self.searchable: list[str] = []
        self.differences: list[str] = []
        self.read_back = collections.Counter()

    def expect(self, holds, text):
        if not holds:
            self.differences.append(text)


class Journal:
    """Counts, latencies, samples and errors of one soak."""

    def __init__(self):
        self.counts = collections.Counter()
        self.operations: set[str] = set()
        self.latencies = collections.defaultdict(lambda: array.array("f"))
        self.errors_in_recovery = collections.Counter()
        self.errors = collections.Counter()
        self.stuck: dict[str, str] = {}
        self.unsuccessful: dict[str, str] = {}
        self.failed_starts: list[str] = []
        self.disturbances: list[float] = []
        self.memory: list[tuple[float, float]] = []
        self.idle_in_transaction = 0
        self.notes: list[str] = []

    def is_recovery(self, moment):
        return any(start <= moment <= start + RECOVERY for start in self.disturbances)

    def overlaps_recovery(self, begun):
        """Whether a recovery window has been open at any time from `begun` until now."""
        return any(begun <= start + RECOVERY for start in self.disturbances)

    def add_error(self, text):
        in_recovery = self.is_recovery(time.monotonic())
        (self.errors_in_recovery if in_recovery else self.errors)[text] += 1
