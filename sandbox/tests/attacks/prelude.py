# Precedes each file of attacks. `TESTBED`, defined above it, is what the attacker knows. An attack
# returns what it gained, or nothing; it may also raise. The same code runs inside a session and
# unconfined beside the worker. `control` says who must succeed there, so that a failure inside is
# significant: "any", "root", or "none" if no unconfined process can be made to succeed.
import ctypes
import errno
import json
import os
import platform
import re
import signal
import socket
import subprocess
import sys

libc = ctypes.CDLL(None, use_errno=True)
libc.syscall.restype = ctypes.c_long
ATTACKS = []

# A secret of the testbed. The code never contains the marker in one piece.
SECRET = re.compile(bytes(reversed(b"-lertsek")) + rb"[0-9a-f]{32}")


def attack(control="any"):
    def keep(function):
        ATTACKS.append((function, control))
        return function

    return keep


def secrets_in(content):
    if isinstance(content, str):
        content = content.encode(errors="surrogateescape")
    return len(SECRET.findall(content))


def call(number, *arguments):
    """A direct system call. Returns its result, and errno if it failed."""
    ctypes.set_errno(0)
    result = libc.syscall(ctypes.c_long(number), *[ctypes.c_long(a) for a in arguments])
    return result, ctypes.get_errno() if result < 0 else 0


def first_success(attempts):
    """Results of the attempts that gained something. Raises the last error if all attempts failed."""
    gained, last = [], None
    for name, attempt in attempts:
        try:
            gain = attempt()
        except Exception as error:
            last = error
        else:
            if gain:
                gained.append((name, gain))
    if not gained and last:
        raise last
    return gained


def report():
    for function, control in ATTACKS:
        try:
            gain = function()
            detail = repr(gain)
        except BaseException as error:
            gain, detail = None, f"{type(error).__name__}: {error}"
        line = [function.__name__, control, bool(gain), detail[:600]]
        os.write(1, ("\n@@" + json.dumps(line) + "\n").encode())
