"""Examines the Python that runs it; `scripts/setup` calls it with each candidate.

Prints the real path, the version, and what is missing:
    venv    modules to make a virtual environment
    link    a shared libpython under the name that a linker looks for
    shared  a shared libpython at all
    kind    a regular CPython on Linux
Exits with 1 if it is older than 3.11.
"""

import importlib.util
import os
import sys
import sysconfig

if sys.version_info < (3, 11):
    sys.exit(1)

missing = []
if not all(importlib.util.find_spec(module) for module in ("ensurepip", "venv")):
    missing.append("venv")
if sys.platform != "linux" or sys.implementation.name != "cpython" or sysconfig.get_config_var("Py_GIL_DISABLED"):
    missing.append("kind")
elif not sysconfig.get_config_var("Py_ENABLE_SHARED"):
    missing.append("shared")
elif not os.path.exists(os.path.join(sysconfig.get_config_var("LIBDIR"), sysconfig.get_config_var("LDLIBRARY"))):
    missing.append("link")
print(os.path.realpath(sys.executable), "%d.%d.%d" % sys.version_info[:3], *missing)
