"""Tests of the kernel without confinement. Requires a Python with the sandbox packages:

.venv/bin/python sandbox/python/test_kernel.py
"""

import base64
import json
import os
import select
import signal
import socket
import sys
import threading
import time
import unittest
from pathlib import Path

TIMEOUT_SECONDS = 30.0


class Cell:
    """The output and the result of a cell."""

    def __init__(self):
        self.frames = []
        self.status = None
        self.seconds = 0.0

    def text(self, *sources):
        return "".join(f["text"] for f in self.frames if f["type"] == "text" and f["source"] in sources)

    stdout = property(lambda self: self.text("stdout"))
    stderr = property(lambda self: self.text("stderr"))
    result = property(lambda self: self.text("result"))
    traceback = property(lambda self: self.text("traceback"))

    @property
    def images(self):
        return [base64.b64decode(f["data"], validate=True) for f in self.frames if f["type"] == "image"]


class Session:
    """A session as the supervisor sees it: a socket and two pipes."""

    def __init__(self, zygote):
        self.socket, theirs = socket.socketpair()
        self.socket.settimeout(TIMEOUT_SECONDS)
        self.pipes = {}
        ends = []
        for name in ("stdout", "stderr"):
            self.pipes[name], end = os.pipe()
            ends.append(end)
        socket.send_fds(zygote, [b"fork"], [theirs.fileno(), *ends])
        self.pid = int(zygote.recv(32))
        theirs.close()
        for end in ends:
            os.close(end)
        self.number = 0
        assert self.receive() == {"type": "ready"}

    def close(self):
        self.socket.close()
        for pipe in self.pipes.values():
            os.close(pipe)

    def send(self, frame):
        body = json.dumps(frame).encode()
        self.socket.sendall(len(body).to_bytes(4, "big") + body)

    def receive(self):
        size = int.from_bytes(self.read(4), "big")
        assert size < 16 << 20, size
        return json.loads(self.read(size).decode("utf-8"))

    def read(self, count):
        data = bytearray()
        while len(data) < count:
            piece = self.socket.recv(count - len(data))
            if not piece:
                raise EOFError
            data += piece
        return bytes(data)

    def start(self, code):
        self.number += 1
        self.send({"type": "run", "id": self.number, "code": code})

    def finish(self):
        cell, began = Cell(), time.monotonic()
        while cell.status is None:
            frame = self.receive()
            if frame["type"] == "done":
                assert frame["id"] == self.number
                cell.status = frame["status"]
            else:
                cell.frames.append(frame)
        cell.seconds = time.monotonic() - began
        return cell

    def run(self, code):
        self.start(code)
        return self.finish()

    def until(self, text):
        """Waits until the cell has printed `text`."""
        seen = ""
        while text not in seen:
            frame = self.receive()
            assert frame["type"] == "text", frame
            seen += frame["text"]

    def interrupt(self):
        os.kill(self.pid, signal.SIGINT)

    def read_pipe(self, name):
        """Reads a pipe until it is silent for 0.3 seconds."""
        data = b""
        while select.select([self.pipes[name]], [], [], 0.3)[0]:
            piece = os.read(self.pipes[name], 65536)
            if not piece:
                break
            data += piece
        return data.decode()


def zygote_main(control):
    """Warms up, then forks a session for each three descriptors that arrive."""
    import kernel

    os.environ["SECRET"] = "from outside"
    kernel.warm()
    control.send(b"warm")
    while True:
        message, fds, _, _ = socket.recv_fds(control, 16, 3)
        if not message:
            os._exit(0)
        pid = os.fork()
        if pid == 0:
            control.close()
            for number, fd in enumerate(fds[1:], 1):
                os.dup2(fd, number)
                os.close(fd)
            # As in a background job of a shell: a session must not inherit these settings.
            signal.signal(signal.SIGINT, signal.SIG_IGN)
            signal.signal(signal.SIGCHLD, signal.SIG_IGN)
            signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
            kernel.serve(fds[0])
        for fd in fds:
            os.close(fd)
        # Ended sessions must not become zombies.
        signal.signal(signal.SIGCHLD, signal.SIG_IGN)
        control.send(str(pid).encode())


def setUpModule():
    global zygote
    zygote, theirs = socket.socketpair()
    sys.path.insert(0, str(Path(__file__).parent))
    if os.fork() == 0:
        try:
            zygote.close()
            zygote_main(theirs)
        finally:
            os._exit(1)
    theirs.close()
    zygote.settimeout(60)
    assert zygote.recv(16) == b"warm", "the zygote did not start"


def tearDownModule():
    zygote.close()


class KernelTest(unittest.TestCase):
    """A test with a session of its own."""

    def setUp(self):
        self.session = Session(zygote)
        self.addCleanup(self.session.close)
        self.run_cell = self.session.run

    def ok(self, code):
        cell = self.run_cell(code)
        self.assertEqual(cell.status, "ok", cell.frames)
        return cell

    def fails(self, code):
        cell = self.run_cell(code)
        self.assertEqual(cell.status, "error", cell.frames)
        return cell

    def alive(self):
        self.assertEqual(self.ok("40 + 2").result, "42\n")


class Results(KernelTest):
    def test_state_and_last_expression(self):
        self.assertEqual(self.ok("x = 20").frames, [])
        cell = self.ok("print('printed')\nx + 22")
        self.assertEqual((cell.stdout, cell.result), ("printed\n", "42\n"))
        self.assertEqual(self.ok("x;").result, "")
        self.assertEqual(self.ok("_2, Out[2], In[1]").result, "(42, 42, 'x = 20')\n")

    def test_streams_are_told_apart_and_kept_in_order(self):
        cell = self.ok("import sys\nprint('a')\nprint('b', file=sys.stderr)\nprint('c')")
        self.assertEqual(
            [(f["source"], f["text"]) for f in cell.frames], [("stdout", "a\n"), ("stderr", "b\n"), ("stdout", "c\n")]
        )

    def test_traceback(self):
        cell = self.fails("def f():\n    return 1 / 0\nf()")
        self.assertIn("Cell In[1], line 3", cell.traceback)
        self.assertTrue(cell.traceback.endswith("ZeroDivisionError: division by zero\n"))
        self.assertNotIn("\x1b", cell.traceback)
        self.assertNotIn("interactiveshell.py", cell.traceback)
        cell = self.fails("a b")
        self.assertIn("SyntaxError", cell.traceback)
        self.assertIn("ExceptionGroup", self.fails("raise ExceptionGroup('g', [ValueError(1)])").stderr)

    def test_display_falls_back_to_text(self):
        cell = self.ok(
            "from IPython.display import HTML, Markdown\n"
            "display(HTML('<b>x</b>'))\ndisplay(Markdown('# t'), 5)\nprint('end')"
        )
        self.assertEqual([f["text"] for f in cell.frames], ["<b>x</b>\n# t\n5\n", "end\n"])

    def test_broken_repr_is_only_an_error_message(self):
        cell = self.run_cell("class C:\n    def __repr__(self): raise ValueError('no repr')\nC()")
        self.assertIn("no repr", cell.traceback)
        self.alive()

    def test_data_frames_are_legible(self):
        cell = self.ok("import pandas as pd\npd.DataFrame({f'column_{i}': [i * 1000.5] for i in range(9)})")
        self.assertEqual(len(cell.result.splitlines()), 2)
        self.assertNotIn("<", cell.result)
        self.assertIn("1.5", self.ok("pd.DataFrame({'a': [1.5]}).style").result)

    def test_long_and_odd_text(self):
        cell = self.ok("print('x' * 300_000)")
        self.assertEqual(len(cell.stdout), 300_001)
        self.assertLessEqual(max(len(f["text"]) for f in cell.frames), 64 * 1024)
        self.assertEqual(self.ok(r"print('é 🦀 \ud800 \0 \x1b')").stdout, "é 🦀 ? \0 \x1b\n")

    def test_many_small_writes_make_few_frames(self):
        cell = self.ok("for i in range(50_000): print(i)")
        self.assertEqual(cell.stdout, "".join(f"{i}\n" for i in range(50_000)))
        self.assertLess(len(cell.frames), 200)

    def test_text_does_not_wait_for_the_end_of_the_cell(self):
        self.session.start("import time\nprint('early')\ntime.sleep(20)")
        began = time.monotonic()
        self.session.until("early")
        self.assertLess(time.monotonic() - began, 5)
        self.session.interrupt()
        self.assertEqual(self.session.finish().status, "error")


class Figures(KernelTest):
    def assertPngs(self, cell, count):
        self.assertEqual(len(cell.images), count, cell.frames)
        for image in cell.images:
            self.assertTrue(image.startswith(b"\x89PNG\r\n"))
            self.assertGreater(len(image), 2000)

    def test_open_figures_are_shown_once_at_the_end(self):
        self.assertPngs(
            self.ok("import matplotlib.pyplot as plt\nplt.plot([1, 2])\nplt.figure()\nplt.bar([1], [2]);"), 2
        )
        self.assertPngs(self.ok("1"), 0)
        self.assertPngs(self.ok("plt.plot([1])\nplt.show()\nprint('between')\nplt.plot([2])\nplt.show()"), 2)
        cell = self.ok("fig, ax = plt.subplots()\nax.plot([3])\nfig")
        self.assertPngs(cell, 1)
        self.assertEqual(cell.result, "")
        self.assertPngs(self.ok("fig"), 1)
        self.assertPngs(self.ok("display(fig)\ndisplay(fig)"), 2)

    def test_figures_of_a_cell_that_fails(self):
        self.assertPngs(self.fails("import matplotlib.pyplot as plt\nplt.plot([1])\n1 / 0"), 1)

    def test_other_backends_and_savefig(self):
        cell = self.ok(
            "import matplotlib, io\nmatplotlib.use('Agg')\nimport matplotlib.pyplot as plt\nplt.plot([1])\n"
            "f = io.BytesIO()\nplt.savefig(f)\nplt.show()\nprint(f.getvalue()[:4])"
        )
        self.assertPngs(cell, 1)
        self.assertIn("PNG", cell.stdout)
        self.assertPngs(self.ok("%matplotlib inline\nplt.plot([1]);"), 1)

    def test_every_format_is_png(self):
        self.assertPngs(
            self.ok(
                "%config InlineBackend.figure_format = 'svg'\nimport matplotlib.pyplot as plt\nplt.plot([1])\nplt.show()"
            ),
            1,
        )
        self.assertPngs(self.ok("%config InlineBackend.figure_format = 'retina'\nplt.plot([1]);"), 1)
        self.assertEqual(self.ok("plt.figure();").frames, [])

    def test_pictures(self):
        cell = self.ok("from PIL import Image\nimage = Image.effect_noise((99, 99), 9)\nimage")
        self.assertPngs(cell, 1)
        self.assertEqual(cell.result, "")
        cell = self.ok(
            "import io, IPython.display as d\nf = io.BytesIO()\nimage.save(f, 'jpeg')\nd.Image(f.getvalue())"
        )
        self.assertEqual([f["mime"] for f in cell.frames], ["image/jpeg"])
        self.assertTrue(cell.images[0].startswith(b"\xff\xd8"))
        cell = self.ok("d.display_png(b'\\x89PNG' * 4_000_000, raw=True)")
        self.assertIn("too large", cell.result)
        self.assertEqual(cell.images, [])

    def test_what_cannot_be_drawn_ends_nothing(self):
        self.run_cell("import matplotlib.pyplot as plt\nplt.title(r'$\\frac{$')\nplt.plot([1]);")
        self.assertPngs(self.ok("plt.plot([1]);"), 1)


class Commands(KernelTest):
    def test_shell_lines(self):
        cell = self.ok("name = 'x y'\n!echo {name}; echo oops >&2; exit 3\n_exit_code")
        self.assertEqual((cell.stdout, cell.stderr, cell.result), ("x y\n", "oops\n", "3\n"))
        cell = self.ok("lines = !printf 'a\\nb\\n'\nlines")
        self.assertEqual(cell.result, "['a', 'b']\n")
        self.assertEqual(self.ok("print('1')\n!echo 2\nprint('3')").stdout, "1\n2\n3\n")
        self.assertEqual(self.ok("!cat").stdout, "")

    def test_shell_output_streams(self):
        self.session.start("!echo early; sleep 20")
        began = time.monotonic()
        self.session.until("early")
        self.assertLess(time.monotonic() - began, 5)
        self.session.interrupt()
        cell = self.session.finish()
        self.assertEqual(cell.status, "error")
        self.assertLess(cell.seconds, 5)
        self.assertIn("KeyboardInterrupt", cell.traceback)
        self.assertEqual(self.ok("!pgrep -f '[s]leep 20$' -P 1 | wc -l").stdout.strip(), "0")
        self.alive()

    def test_background_programs_do_not_hold_the_cell(self):
        cell = self.ok("!sleep 15 &\n!(sleep 15; echo late) & echo now")
        self.assertLess(cell.seconds, 5)
        self.assertEqual(cell.stdout, "now\n")

    def test_magics(self):
        self.assertIn("per loop", self.ok("%timeit -n 2 -r 2 1 + 1").stdout)
        cell = self.ok("%%time\nsum([1, 2])")
        self.assertIn("Wall time", cell.stdout)
        self.assertEqual(cell.result, "3\n")
        self.assertIn("x", self.ok("x = 1\n%who").stdout)
        cell = self.ok('%%bash -s one\necho "$1 $((1 + 1))"\ncat <<< two')
        self.assertEqual(cell.stdout, "one 2\ntwo\n")
        self.assertIn("CalledProcessError", self.fails("%%sh\nexit 4").traceback)
        cell = self.ok("%%capture held\nprint('held back')")
        self.assertEqual(cell.frames, [])
        self.assertEqual(self.ok("held.stdout").result, "'held back\\n'\n")
        self.assertEqual(
            self.ok("import os, tempfile\nd = tempfile.mkdtemp()\n%cd -q {d}\nos.getcwd() == d").result, "True\n"
        )
        self.ok("%%writefile module.py\nvalue = 7")
        self.assertEqual(self.ok("import module\nmodule.value, os.listdir('.')").result, "(7, ['module.py'])\n")
        self.assertEqual(self.ok("%run module.py\nvalue").result, "7\n")
        self.assertIn("Return the absolute value", self.ok("abs?").frames[0]["text"])
        self.assertIn("no_such_magic", self.run_cell("%no_such_magic").stderr)

    def test_nothing_can_be_installed(self):
        cell = self.ok("!pip install no-such-package-here")
        self.assertIn("no network", cell.stderr)
        self.assertIn("pandas", cell.stderr)
        self.assertLess(cell.seconds, 15)
        self.assertIn("no network", self.ok("%conda install x").stderr)
        self.assertIn("already satisfied", self.ok("%pip install numpy").stdout)

    def test_order_with_programs_on_the_descriptors(self):
        cell = self.ok("import subprocess\nprint('first')\nsubprocess.run(['echo', 'second'])\nprint('third')")
        self.assertEqual([f["text"] for f in cell.frames][0], "first\n")
        self.assertEqual(self.session.read_pipe("stdout"), "second\n")


class Async(KernelTest):
    def test_top_level_await(self):
        self.assertEqual(self.ok("import asyncio\nawait asyncio.sleep(0.01)\n5").result, "5\n")
        self.ok(
            "async def later():\n    await asyncio.sleep(0.01)\n    return 'late'\ntask = asyncio.ensure_future(later())\nawait asyncio.sleep(0)"
        )
        self.assertEqual(self.ok("await task").result, "'late'\n")
        self.assertEqual(self.ok("asyncio.run(later())").result, "'late'\n")

    def test_interrupt(self):
        self.session.start("import asyncio\nprint('on')\nawait asyncio.sleep(20)")
        self.session.until("on")
        self.session.interrupt()
        cell = self.session.finish()
        self.assertEqual(cell.status, "error")
        self.assertIn("KeyboardInterrupt", cell.traceback)
        self.assertEqual(self.ok("await asyncio.sleep(0.01, 3)").result, "3\n")


class Endings(KernelTest):
    def test_exit_ends_the_cell_only(self):
        self.ok("x = 1")
        for code in ("exit()", "quit()", "exit", "import sys; sys.exit()", "sys.exit(0)", "raise SystemExit"):
            cell = self.ok(f"{code}\nx = 2" if code != "exit" else code)
            self.assertEqual(cell.frames, [], code)
        self.assertIn("SystemExit: 3", self.fails("sys.exit(3)").traceback)
        self.assertIn("no data", self.fails("sys.exit('no data')").traceback)
        self.assertEqual(self.ok("x").result, "1\n")

    def test_input_is_refused_clearly(self):
        for code in ("input('name? ')", "import getpass; getpass.getpass()"):
            self.assertIn("EOFError", self.fails(code).traceback, code)
        self.assertIn("nobody can type", self.fails("input()").traceback)
        self.assertEqual(self.ok("import sys; sys.stdin.read()").result, "''\n")
        self.run_cell("breakpoint()")
        self.alive()

    def test_interrupts(self):
        for code in (
            "while True: pass",
            "import time\ntime.sleep(20)",
            "sum(i for i in iter(int, 1))",
            "import subprocess\nsubprocess.run(['sleep', '20'])",
            "import threading\nthreading.Event().wait(20)",
            "while True: print('x' * 50)",
        ):
            self.session.start(f"kept = 1\nprint('on')\n{code}")
            self.session.until("on")
            time.sleep(0.1)
            self.session.interrupt()
            cell = self.session.finish()
            self.assertEqual(cell.status, "error", code)
            self.assertLess(cell.seconds, 5, code)
            self.assertIn("KeyboardInterrupt", cell.traceback, code)
            self.assertNotIn("kernel.py", cell.traceback, code)
        self.assertEqual(self.ok("kept").result, "1\n")

    def test_interrupts_between_cells_are_ignored(self):
        for _ in range(20):
            self.session.interrupt()
        self.alive()

    def test_a_storm_of_interrupts_tears_nothing(self):
        stop = threading.Event()

        def storm():
            while not stop.wait(0.0007):
                self.session.interrupt()

        thread = threading.Thread(target=storm)
        thread.start()
        try:
            for _ in range(150):
                # Both results are valid; the test is that each cell has one, and that frames are intact.
                self.assertIn(self.run_cell("for i in range(300): print(i, flush=True)\ni").status, ("ok", "error"))
        finally:
            stop.set()
            thread.join()
        self.alive()

    def test_what_a_cell_does_to_signals_does_not_last(self):
        self.ok(
            "import signal\nsignal.signal(signal.SIGINT, signal.SIG_DFL)\n"
            "signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())"
        )
        time.sleep(0.05)
        self.session.interrupt()
        self.session.start("print('on')\nwhile True: pass")
        self.session.until("on")
        self.session.interrupt()
        self.assertIn("KeyboardInterrupt", self.session.finish().traceback)
        self.ok(
            "def ring(*_): raise ValueError('alarm')\nsignal.signal(signal.SIGALRM, ring)\nsignal.setitimer(signal.ITIMER_REAL, 0.05);"
        )
        time.sleep(0.2)
        self.run_cell("1")
        self.alive()

    def test_running_out_of_memory(self):
        cell = self.fails(
            "import resource\nresource.setrlimit(resource.RLIMIT_AS, (800 << 20, 800 << 20))\n"
            "held = []\nwhile True: held.append(bytes(1000))"
        )
        self.assertIn("MemoryError", cell.text("traceback", "stderr", "stdout"))
        self.run_cell("held = None")
        self.alive()

    def test_recursion(self):
        self.assertIn("RecursionError", self.fails("def f(): return f()\nf()").traceback)
        self.alive()

    def test_the_session_ends_with_its_socket(self):
        self.session.socket.shutdown(socket.SHUT_WR)
        self.assertEqual(self.session.socket.recv(1), b"")


class Broken(KernelTest):
    def test_streams_replaced(self):
        for code in ("import sys\nsys.stdout = None\nprint('x')", "sys.stderr = None\n1 / 0", "sys.stdout = 5"):
            self.run_cell(code)
            self.alive()

    def test_displays_replaced(self):
        self.run_cell("get_ipython().displayhook.write_format_data = None\n1")
        self.run_cell("get_ipython().display_formatter = None\n1")
        self.run_cell("get_ipython().showtraceback = None\n1 / 0")
        self.run_cell("get_ipython().run_cell = None")
        self.assertEqual(self.run_cell("1").status, "error")

    def test_closed_descriptors_end_the_session(self):
        with self.assertRaises((EOFError, ConnectionResetError)):
            self.run_cell("import os\nos.closerange(0, 100)")


class Streams(KernelTest):
    def test_they_are_files(self):
        cell = self.ok(
            "import sys\n"
            "print(sys.stdout.encoding, sys.stdout.isatty(), sys.stdout.fileno(), sys.stderr.fileno(), sys.stdout.writable())\n"
            "n = sys.stdout.write('w\\n')\nsys.stdout.writelines(['a\\n', 'b\\n'])\n"
            "k = sys.stdout.buffer.write('é\\n'.encode())\nsys.stdout.reconfigure(encoding='utf-8')\n"
            "sys.stdout.close()\nprint('open', n, k, file=sys.__stdout__)"
        )
        self.assertEqual(cell.stdout, "utf-8 False 1 2 True\nw\na\nb\né\nopen 2 3\n")
        self.assertIn("TypeError", self.fails("sys.stdout.write(5)").traceback)

    def test_late_threads(self):
        self.ok(
            "import threading, time\ndef late():\n    time.sleep(0.2)\n    print('late')\nthreading.Thread(target=late).start()"
        )
        frame = self.session.receive()
        self.assertEqual((frame["text"], frame["id"]), ("late\n", 1))
        cell = self.ok(
            "from concurrent.futures import ThreadPoolExecutor as T\n"
            "with T(8) as pool: n = len(list(pool.map(lambda i: print('y' * 1000), range(500))))"
        )
        self.assertEqual(sorted(cell.stdout.replace("\n", "")), ["y"] * 500_000)

    def test_printing_destructors(self):
        cell = self.ok(
            "import gc\nclass D:\n    def __init__(self): self.me = self\n    def __del__(self): print('gone')\n"
            "for i in range(3000): D(); print(i)\ngc.collect();"
        )
        self.assertEqual(cell.stdout.count("gone"), 3000)

    def test_forked_children(self):
        cell = self.ok(
            "import multiprocessing as m, os\n"
            "def f(i): print('child', i); return i * i\n"
            "with m.Pool(2) as pool: print(pool.map(f, range(3)))\n"
            "if os.fork() == 0: print('stray')\nelse: os.wait(); print('parent')"
        )
        self.assertEqual(cell.stdout, "[0, 1, 4]\nparent\n")
        piped = self.session.read_pipe("stdout")
        self.assertEqual(sorted(piped.splitlines()), ["child 0", "child 1", "child 2", "stray"])
        self.alive()

    def test_c_code(self):
        self.ok("import ctypes\nctypes.CDLL(None).printf(b'from C\\n')")
        self.assertEqual(self.session.read_pipe("stdout"), "from C\n")


class Sessions(KernelTest):
    def test_environment(self):
        cell = self.ok("import os, sys\nsorted(os.environ)")
        for name in ("PATH", "HOME", "LANG", "MPLBACKEND"):
            self.assertIn(f"'{name}'", cell.result)
        self.assertNotIn("SECRET", cell.result)
        self.assertEqual(
            self.ok("!command -v python").stdout.strip(), os.path.join(os.path.dirname(sys.executable), "python")
        )

    def test_randomness_differs(self):
        code = "import random, numpy as np\nrandom.random(), np.random.rand(), np.random.default_rng().random()"
        other = Session(zygote)
        self.addCleanup(other.close)
        mine, theirs = (eval(s.run(code).result, {"np": __import__("numpy")}) for s in (self.session, other))
        for a, b in zip(mine, theirs, strict=True):
            self.assertNotEqual(a, b)

    def test_warming_leaves_no_trace(self):
        self.session.send({"type": "warm"})
        self.assertEqual(self.session.receive(), {"type": "warm"})
        cell = self.ok("[n for n in globals() if not n.startswith('_')], Out, In")
        self.assertNotIn("plt", cell.result)
        self.assertIn("{}", cell.result)
        self.assertIn("Cell In[2]", self.fails("1 / 0").traceback)

    def test_first_imports_are_warm(self):
        cell = self.ok("import numpy, pandas, matplotlib.pyplot")
        self.assertLess(cell.seconds, 0.5)

    def test_one_thread_in_the_zygote_and_two_here(self):
        self.assertEqual(self.ok("import os; len(os.listdir('/proc/self/task'))").result, "2\n")


if __name__ == "__main__":
    unittest.main()
