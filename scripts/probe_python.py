"""Says what a Python is good for: run by each one that set-up could take.

Prints its real path, its version and what it lacks, in words for `scripts/setup`:
    venv    modules to make a virtual environment
    link    a shared libpython under the name that a linker looks for
    shared  a shared libpython at all
    kind    being an ordinary CPython on Linux
Exits with 1 when it is older than 3.11.
"""

import importlib.util
import os
import sys
import sysconfig

if sys.version_info < (3, 11):
    sys.exit(1)

lacks = []
if not all(importlib.util.find_spec(module) for module in ("ensurepip", "venv")):
    lacks.append("venv")
if sys.platform != "linux" or sys.implementation.name != "cpython" or sysconfig.get_config_var("Py_GIL_DISABLED"):
    lacks.append("kind")
elif not sysconfig.get_config_var("Py_ENABLE_SHARED"):
    lacks.append("shared")
elif not os.path.exists(os.path.join(sysconfig.get_config_var("LIBDIR"), sysconfig.get_config_var("LDLIBRARY"))):
    lacks.append("link")
print(os.path.realpath(sys.executable), "%d.%d.%d" % sys.version_info[:3], *lacks)
