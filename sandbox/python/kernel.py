"""What runs cells inside a sandbox session: a notebook kernel on one socket.

The worker embeds this file. `warm` is called once in the zygote, before any fork; `serve` in every
session that is forked from it, when it is already confined.

Frames are a 4-byte big-endian length and a JSON object of that many bytes.

    supervisor → kernel   {"type": "run", "id": N, "code": "…"}
                          {"type": "warm"}     run a trivial cell unseen, so that the next one is quick
    kernel → supervisor   {"type": "ready"}    once
                          {"type": "warm"}     the trivial cell is done
                          {"type": "text", "id": N, "source": SOURCE, "text": "…"}
                          {"type": "image", "id": N, "mime": "image/png", "data": BASE64}
                          {"type": "done", "id": N, "status": "ok" | "error"}

SOURCE is stdout, stderr, result or traceback. Text that a thread prints between two cells carries the
id of the cell before. What child processes and C libraries write to the descriptors 1 and 2 does not
pass through here. SIGINT becomes KeyboardInterrupt in the cell that runs, and is ignored between cells.

Nothing here guards against the code in the cells: it may replace every object of this file, and then
harms its own session only. The walls are around the process.
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
import warnings

WORKSPACE = "/mnt/data"
COALESCE_SECONDS = 0.025
COALESCE_CHARS = 32 * 1024
# No text frame is longer, so that the supervisor may cap frames. An image larger than its cap is told, not sent.
CHUNK_CHARS = 64 * 1024
IMAGE_BYTES_MAX = 10 * 1024 * 1024
IMAGES = ("image/png", "image/jpeg")
# What is shown of a bundle without a picture: the first that is there.
TEXTS = ("text/plain", "text/markdown", "text/latex", "application/json", "text/html", "application/javascript")
# How long a child process has between ^C and SIGKILL.
CHILD_GRACE_SECONDS = 1.0


class Interrupts:
    """Decides when SIGINT becomes KeyboardInterrupt: while a cell runs, but never inside `with` this
    object, where it waits for the end of the block. So neither the loop nor a frame is torn apart."""

    # A second SIGINT this soon after an exception was raised is the same ^C.
    REPEAT_SECONDS = 0.05

    def __init__(self):
        self.main = threading.get_ident()
        self.armed = False
        self.depth = 0
        self.pending = False
        self.raised_at = 0.0

    def install(self):
        """Makes SIGINT arrive here, whatever was inherited or done to it before."""
        self.main = threading.get_ident()
        signal.signal(signal.SIGINT, self.arrived)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})

    def arm(self):
        self.pending = False
        self.raised_at = 0.0
        self.armed = True

    def disarm(self):
        self.armed = False

    def arrived(self, _signal, _frame):
        __tracebackhide__ = True
        if not self.armed or time.monotonic() - self.raised_at < self.REPEAT_SECONDS:
            return
        if self.depth:
            self.pending = True
        else:
            self.raised_at = time.monotonic()
            raise KeyboardInterrupt

    # Signals are handled in the main thread only, so only its blocks count.
    def __enter__(self):
        if threading.get_ident() == self.main:
            self.depth += 1

    def __exit__(self, *_):
        __tracebackhide__ = True
        if threading.get_ident() == self.main:
            self.depth -= 1
            if self.pending and not self.depth:
                self.pending = False
                if self.armed:
                    self.raised_at = time.monotonic()
                    raise KeyboardInterrupt


class Output:
    """Everything a session says. Text is held back a moment, so that many small writes make one frame.

    Any thread may write, and so may a destructor or a signal handler in the middle of a write: it only
    adds to what is to be sent. In a forked child the text goes to the descriptors 1 and 2 instead.
    """

    encode = staticmethod(json.JSONEncoder(ensure_ascii=False, separators=(",", ":")).encode)

    def __init__(self, interrupts):
        self.interrupts = interrupts
        self.lock = threading.RLock()
        self.fd = None
        self.cell = 0
        self.muted = True
        self.forked = False
        self.sending = False
        self.parts = []
        self.held = 0
        self.bell = queue.SimpleQueue()
        self.bell_rung = False

    def attach(self, fd):
        """Begins to send. Before that, and while `muted`, everything is thrown away."""
        self.fd = fd
        self.muted = False
        os.register_at_fork(after_in_child=self.leave)
        # What was printed before a child starts comes before what the child prints.
        sys.addaudithook(self.before_child)
        threading.Thread(target=self.send_in_time, name="output", daemon=True).start()

    def leave(self):
        """In a forked child: lets go of the session's socket."""
        self.lock = threading.RLock()
        self.parts, self.held, self.sending, self.forked = [], 0, False, True
        with contextlib.suppress(OSError):
            os.close(self.fd)

    def before_child(self, event, _arguments, events=frozenset(("subprocess.Popen", "os.system", "os.posix_spawn"))):
        if event in events:
            self.flush()

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
        __tracebackhide__ = True
        if not text:
            return
        with self.interrupts, self.lock:
            self.parts.append((source, text))
            self.held += len(text)
            if self.held >= COALESCE_CHARS or (self.forked and "\n" in text):
                self._flush()
            elif not self.bell_rung and not self.forked:
                self.bell_rung = True
                self.bell.put(None)

    def image(self, mime, data):
        """Shows a picture; `data` is base64."""
        self.frame({"type": "image", "id": self.cell, "mime": mime, "data": data})

    def flush(self):
        """Sends the text that is held back."""
        __tracebackhide__ = True
        with self.interrupts, self.lock:
            self._flush()

    def frame(self, frame):
        """Sends a frame, after the text that was written before it."""
        __tracebackhide__ = True
        with self.interrupts, self.lock:
            self._flush()
            self._send(frame)

    def discard(self):
        """Forgets the text that is held back."""
        with self.interrupts, self.lock:
            self.parts, self.held = [], 0

    def _flush(self):
        if self.sending:
            return
        self.sending = True
        try:
            while self.parts:
                parts, self.parts, self.held = self.parts, [], 0
                for source, group in itertools.groupby(parts, key=lambda part: part[0]):
                    text = "".join(part[1] for part in group)
                    if self.forked:
                        self._write(2 if source in ("stderr", "traceback") else 1, text.encode("utf-8", "replace"))
                        continue
                    for start in range(0, len(text), CHUNK_CHARS):
                        piece = text[start : start + CHUNK_CHARS]
                        self._send({"type": "text", "id": self.cell, "source": source, "text": piece})
        finally:
            self.sending = False

    def _send(self, frame):
        if self.muted or self.forked:
            return
        # A lone surrogate is no character, and JSON cannot carry it.
        body = self.encode(frame).encode("utf-8", "replace")
        try:
            self._write(self.fd, len(body).to_bytes(4, "big") + body)
        except OSError:
            # The socket is gone, and with it all that this process was for.
            os._exit(1)

    @staticmethod
    def _write(fd, data):
        rest = memoryview(data)
        while rest:
            rest = rest[os.write(fd, rest) :]


class Bytes(io.RawIOBase):
    """`sys.stdout.buffer`: bytes on their way into a text stream."""

    def __init__(self, stream):
        self.stream = stream
        self.decoder = codecs.getincrementaldecoder("utf-8")("replace")

    def writable(self):
        return True

    def write(self, data):
        data = bytes(data)
        self.stream.write(self.decoder.decode(data))
        return len(data)

    def fileno(self):
        return self.stream.fileno()

    def flush(self):
        self.stream.flush()

    def close(self):
        self.flush()


class Stream(io.TextIOBase):
    """`sys.stdout` or `sys.stderr` of a session."""

    encoding = "utf-8"
    errors = "replace"
    newlines = None
    line_buffering = False
    mode = "w"

    def __init__(self, output, source, fd):
        self.output = output
        self.source = source
        self.fd = fd
        self.name = f"<{source}>"
        self.buffer = Bytes(self)

    def write(self, text):
        __tracebackhide__ = True
        if not isinstance(text, str):
            raise TypeError(f"write() argument must be str, not {type(text).__name__}")
        self.output.text(self.source, text)
        return len(text)

    def flush(self):
        __tracebackhide__ = True
        self.output.flush()

    def fileno(self):
        return self.fd

    def isatty(self):
        return False

    def writable(self):
        return True

    def reconfigure(self, **_):
        """Files that print to a terminal have this; here there is nothing to configure."""

    def close(self):
        self.flush()


def run_command(command, write, input=None):
    """Runs a program, or a line of shell, and passes on what it prints: `write(source, text)` as it comes.
    An interrupt reaches the program first. Returns its exit code, negative for a signal."""
    if isinstance(command, str) and command.rstrip().endswith("&"):
        # Nobody waits for it: its output goes to the descriptors.
        subprocess.Popen(command, shell=True, executable=shell_program(), stdin=subprocess.DEVNULL, process_group=0)
        return 0
    child = subprocess.Popen(
        command,
        shell=isinstance(command, str),
        executable=shell_program() if isinstance(command, str) else None,
        stdin=subprocess.DEVNULL if input is None else input,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        process_group=0,
    )
    try:
        with child.stdout, child.stderr, selectors.DefaultSelector() as selector:
            for source, pipe in (("stdout", child.stdout), ("stderr", child.stderr)):
                decoder = codecs.getincrementaldecoder("utf-8")("replace")
                selector.register(pipe, selectors.EVENT_READ, (source, decoder))
            while selector.get_map():
                ready = selector.select(0.1)
                if not ready and child.poll() is not None:
                    break  # it is gone; what still holds its pipes runs in the background
                for key, _ in ready:
                    source, decoder = key.data
                    data = os.read(key.fd, 65536)
                    write(source, decoder.decode(data, final=not data))
                    if not data:
                        selector.unregister(key.fileobj)
        return child.wait()
    except BaseException:
        end_child(child)
        raise


def shell_program():
    return shutil.which("bash") or "/bin/sh"


def end_child(child):
    """Ends a program and all that it started in the foreground: first by ^C, then by force."""
    for end, patience in ((signal.SIGINT, CHILD_GRACE_SECONDS), (signal.SIGKILL, None)):
        with contextlib.suppress(ProcessLookupError):
            os.killpg(child.pid, end)
        with contextlib.suppress(subprocess.TimeoutExpired):
            child.wait(patience)
            return


def make_shell(output):
    """The notebook. IPython is imported only here: `warm` sets the environment first."""
    from IPython.core.displayhook import DisplayHook
    from IPython.core.displaypub import DisplayPublisher
    from IPython.core.interactiveshell import InteractiveShell
    from IPython.core.magic import Magics, line_magic, magics_class
    from IPython.display import TextDisplayObject
    from IPython.utils.text import LSString, SList
    from traitlets import Type
    from traitlets.config import Config

    class Hook(DisplayHook):
        """Shows the value of a cell's last expression."""

        def write_output_prompt(self):
            pass

        def write_format_data(self, format_dict, md_dict=None):
            show(output, format_dict)

        def log_output(self, format_dict):
            pass

        def finish_displayhook(self):
            self._is_active = False

    class Publisher(DisplayPublisher):
        """Shows what `display` is given."""

        def publish(self, data, metadata=None, *_, **__):
            self._validate_data(data, metadata)
            show(output, data)

        def clear_output(self, wait=False):
            """What was sent stays."""

    class Notebook(InteractiveShell):
        displayhook_class = Type(Hook)
        display_pub_class = Type(Publisher)

        def _tee(self, channel):
            """IPython would keep a copy of all output, for ever."""
            return contextlib.nullcontext()

        def ask_exit(self):
            """`exit()` ends the cell, not the session."""
            raise SystemExit

        def enable_gui(self, gui=None):
            if gui not in (None, "inline"):
                raise NotImplementedError(f"there is no display for {gui}; figures are shown as pictures")

        def showtraceback(self, exc_tuple=None, *args, **kwargs):
            try:
                kind, value, trace = self._get_exc_info(exc_tuple)
            except ValueError:
                return
            if kind is SystemExit and value.code in (None, 0):
                return
            if kind is KeyboardInterrupt:
                hide_own_frames(trace)
            super().showtraceback(exc_tuple, *args, **kwargs)

        def _showtraceback(self, etype, evalue, stb):
            output.text("traceback", self.InteractiveTB.stb2text(stb) + "\n")

        def system(self, cmd):
            self.user_ns["_exit_code"] = self.run_line(self.var_expand(cmd, depth=1))

        system_piped = system_raw = system

        def getoutput(self, cmd, split=True, depth=0):
            pieces = []
            line = self.var_expand(cmd, depth=depth + 1)
            self.user_ns["_exit_code"] = run_command(line, lambda _source, text: pieces.append(text))
            text = "".join(pieces)
            return SList(text.splitlines()) if split else LSString(text)

        def run_line(self, command):
            """Runs a program or a line of shell in the cell."""
            code = run_command(command, output.text)
            words = command.split() if isinstance(command, str) else command
            if code and any(re.fullmatch(r"(.*/)?(pip[\d.]*|conda|mamba|uv|poetry|apt|apt-get|npm)", word) for word in words):
                output.text("stderr", no_installs())
            return code

    @magics_class
    class Commands(Magics):
        """Magics that would need a network or somebody to answer."""

        @line_magic
        def pip(self, line):
            """Runs pip: it tells what is installed, and can add nothing."""
            self.shell.user_ns["_exit_code"] = self.shell.run_line([sys.executable, "-m", "pip", *shlex.split(line)])

        @line_magic
        def conda(self, line):
            """Says that nothing can be installed."""
            output.text("stderr", no_installs())

        @line_magic
        def debug(self, line):
            """Says that there is no debugger."""
            output.text("stderr", "There is no debugger: a cell cannot ask questions.\n")

    config = Config()
    config.HistoryManager.enabled = False
    config.InteractiveShell.colors = "nocolor"
    config.PlainTextFormatter.max_width = 120
    shell = Notebook.instance(config=config)
    shell.register_magics(Commands)
    for name in ("mamba", "micromamba", "uv"):
        shell.register_magic_function(shell.find_line_magic("conda"), "line", name)
    shell.loop_runner = run_async
    shell.set_hook("show_in_pager", lambda _shell, page, *_: show(output, page if isinstance(page, dict) else {"text/plain": page}))
    plain = shell.display_formatter.formatters["text/plain"]
    # HTML and the like would show the name of their class.
    plain.for_type(TextDisplayObject, lambda thing, printer, _cycle: printer.text(str(thing.data)))
    plain.for_type_by_name(
        "pandas.io.formats.style", "Styler", lambda styler, printer, _cycle: printer.text(styler.to_string(max_rows=60))
    )
    shell.display_formatter.active_types = ["text/plain", *IMAGES]
    return shell


def show(output, bundle):
    """Shows a bundle of representations: its picture, or else its text."""
    for mime in IMAGES:
        data = bundle.get(mime)
        if data:
            if isinstance(data, bytes):
                data = base64.b64encode(data).decode("ascii")
            if len(data) > IMAGE_BYTES_MAX * 4 // 3:
                output.text("result", f"[A picture of {len(data) * 3 // 4 >> 20} MiB is too large to be shown.]\n")
            else:
                output.image(mime, "".join(data.split()))
            return
    for mime in TEXTS:
        if bundle.get(mime):
            text = bundle[mime]
            output.text("result", (text if isinstance(text, str) else repr(text)) + "\n")
            return


def no_installs():
    names = sorted({each.metadata["Name"] for each in importlib.metadata.distributions()}, key=str.lower)
    return f"Nothing can be installed: there is no network here. Installed are: {', '.join(names)}.\n"


def hide_own_frames(trace):
    """Cuts from a traceback where an interrupt entered this file."""
    while trace and trace.tb_next:
        if trace.tb_next.tb_frame.f_globals is globals():
            trace.tb_next = None
        trace = trace.tb_next


loop = None


def run_async(coroutine):
    """Runs a cell that awaits. One event loop serves all cells, so tasks go on when the next one awaits."""
    global loop
    if loop is None or loop.is_closed():
        loop = asyncio.new_event_loop()
        asyncio.set_event_loop(loop)
    task = loop.create_task(coroutine)
    try:
        return loop.run_until_complete(task)
    except BaseException:
        if not task.done():
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                loop.run_until_complete(task)
        raise


class Figures:
    """Shows every open figure at the end of a cell, as a picture, once, and closes it."""

    def __init__(self, shell):
        from IPython.core.pylabtools import print_figure
        from matplotlib import pyplot
        from matplotlib.figure import Figure
        from matplotlib_inline import backend_inline

        self.shell = shell
        self.pyplot = pyplot
        self.print_figure = print_figure
        # Figures that the cell has displayed by name.
        self.shown = set()
        shell.enable_matplotlib("inline")
        shell.events.unregister("post_execute", backend_inline.flush_figures)
        shell.events.register("pre_execute", self.shown.clear)
        shell.events.register("post_execute", self.show_open)
        shell.display_formatter.formatters["image/png"].for_type(Figure, self.render)

    def render(self, figure):
        self.shown.add(figure)
        return self.print_figure(figure, "png", base64=True, bbox_inches="tight")

    def show_open(self):
        try:
            for number in self.pyplot.get_fignums():
                figure = self.pyplot.figure(number)
                if figure not in self.shown:
                    self.shell.display_pub.publish(*self.shell.display_formatter.format(figure))
        except Exception:
            self.shell.showtraceback()
        finally:
            self.shown.clear()
            if self.pyplot.get_fignums():
                self.pyplot.close("all")


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
            request = self.receive()
            if request["type"] == "warm":
                self.warm()
            elif request["type"] == "run":
                self.run(request["id"], request["code"])

    def receive(self):
        head = self.read(4)
        return json.loads(self.read(int.from_bytes(head, "big")))

    def read(self, count):
        data = bytearray()
        while len(data) < count:
            piece = os.read(self.fd, count - len(data))
            if not piece:
                os._exit(0)
            data += piece
        return bytes(data)

    def run(self, number, code):
        # What threads printed since the last cell.
        self.output.flush()
        self.output.cell = number
        succeeded = self.execute(code)
        if os.getpid() != self.pid:
            # The cell forked, and this is the child, come home to a place that is not its own.
            self.output.flush()
            os._exit(0)
        self.output.frame({"type": "done", "id": number, "status": "ok" if succeeded else "error"})

    def execute(self, code):
        self.interrupts.install()
        try:
            self.interrupts.arm()
            result = self.shell.run_cell(code, store_history=True)
            self.interrupts.disarm()
            error = result.error_before_exec or result.error_in_exec
            return error is None or (isinstance(error, SystemExit) and error.code in (None, 0))
        except BaseException as error:
            # An interrupt just before or behind the cell, or a cell that broke the notebook.
            self.interrupts.disarm()
            self.output.text("traceback", f"{type(error).__name__}: {error}\n".replace(": \n", "\n"))
            return False
        finally:
            self.interrupts.install()
            flush_c_stdout()

    def warm(self):
        self.output.flush()
        self.output.muted = True
        self.execute("print(1 + 1)\n1 + 1")
        self.shell.reset()
        self.output.discard()
        self.output.muted = False
        self.output.frame({"type": "warm"})


libc = ctypes.CDLL(None)


def flush_c_stdout():
    """Pushes out what C code printed; it buffers what goes into a pipe."""
    libc.fflush(ctypes.c_void_p.in_dll(libc, "stdout"))


def refuse_input(prompt="", *_, **__):
    raise EOFError("input() cannot be used: nobody can type here. Put the value into the code.")


def set_environment():
    """Makes the environment of the sessions and of the programs they start. The process has none."""
    binaries = os.path.dirname(sys.executable)
    os.environ.clear()
    os.environ.update(
        {
            "PATH": f"{binaries}:/usr/local/bin:/usr/bin:/bin",
            "HOME": "/tmp",
            "USER": "sandbox",
            "LOGNAME": "sandbox",
            "LANG": "C.UTF-8",
            "TERM": "dumb",
            "MPLBACKEND": "agg",
            "PYTHONUNBUFFERED": "1",
            # A module written to the workspace and imported from there leaves no cache among its files.
            "PYTHONDONTWRITEBYTECODE": "1",
            # pip says at once that it finds nothing, instead of trying to reach its index for a minute.
            "PIP_NO_INDEX": "1",
            "PIP_DISABLE_PIP_VERSION_CHECK": "1",
            # The zygote must have one thread when it forks.
            **{f"{library}_NUM_THREADS": "1" for library in ("OMP", "OPENBLAS", "MKL", "NUMEXPR")},
        }
    )
    sys.dont_write_bytecode = True
    sys.argv = [""]
    if "" not in sys.path:
        sys.path.insert(0, "")
    with contextlib.suppress(locale.Error):
        locale.setlocale(locale.LC_CTYPE, "C.UTF-8")


notebook = None


def warm():
    """Imports and tries all that a session needs. Called once in the zygote.

    Raises RuntimeError when a package has started a thread, for then the process cannot be forked.
    """
    global notebook
    set_environment()
    interrupts = Interrupts()
    output = Output(interrupts)
    sys.stdin = open(os.devnull)
    sys.stdout = sys.__stdout__ = Stream(output, "stdout", 1)
    sys.stderr = sys.__stderr__ = Stream(output, "stderr", 2)
    builtins.input = refuse_input
    scratch = tempfile.mkdtemp(prefix="assistd-kernel-")
    try:
        os.environ["MPLCONFIGDIR"] = os.environ["IPYTHONDIR"] = scratch
        shell = make_shell(output)
        import numpy
        import pandas

        pandas.set_option("display.width", 120, "display.max_columns", 20)
        figures = Figures(shell)
        for cell in REHEARSAL:
            shell.run_cell(cell, store_history=True)
        shell.reset()
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
        del os.environ["MPLCONFIGDIR"], os.environ["IPYTHONDIR"]
    output.discard()
    threads = os.listdir("/proc/self/task")
    if len(threads) != 1:
        raise RuntimeError(f"{len(threads)} threads run after the imports; a session can be forked only from one")
    notebook = (shell, output, interrupts)
    gc.collect()
    gc.freeze()


# Touches what the first cells would otherwise load: formatters, traceback renderer, fonts.
REHEARSAL = (
    "import numpy as np, pandas as pd, matplotlib.pyplot as plt",
    "print(pd.DataFrame({'a': [1, 2], 'b': ['x', 'y']}))\npd.DataFrame({'a': [1.5, 2]}).describe()",
    "plt.plot([1, 2]); plt.title('t'); plt.xlabel('x')",
    "1 / 0",
    "def broken(:",
)


def serve(fd):
    """Runs cells from the socket until it ends, and then ends the process. Called in a confined session."""
    import numpy

    shell, output, interrupts = notebook
    random.seed()
    numpy.random.seed()
    os.set_inheritable(fd, False)
    with contextlib.suppress(OSError):
        os.chdir(WORKSPACE)
    interrupts.install()
    try:
        Session(fd, shell, output, interrupts).serve()
    finally:
        os._exit(1)
