"""Measures Jupyter kernels in the way in which the benchmark measures sandbox sessions.

One JSON object a line comes in and one goes out for each; at the end of its input it stops its kernels.
Times are in milliseconds, memory is the proportional set size in MiB.
"""

import json
import queue
import subprocess
import sys
import time

from jupyter_client import KernelManager

# Seconds; far more than a kernel needs to start or to answer on a busy machine.
PATIENCE_SECONDS = 120


class Kernel:
    """A kernel with its client."""

    def __init__(self):
        self.manager = KernelManager()
        self.manager.start_kernel(stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        self.client = None

    def connect(self):
        """Waits until the kernel answers and its output is received.

        The client's own wait_for_ready also waits for 200 ms of silence, which would not be the kernel's.
        """
        self.client = self.manager.blocking_client()
        self.client.start_channels()
        self.client.kernel_info()
        self.client.get_shell_msg(timeout=PATIENCE_SECONDS)
        while True:
            try:
                self.client.get_iopub_msg(timeout=0.05)
                return
            except queue.Empty:
                # The output was sent before this client subscribed; execute the cell again.
                self.client.kernel_info()
                self.client.get_shell_msg(timeout=PATIENCE_SECONDS)

    def run(self, code):
        """Executes a cell; returns the text of its result and the number of its images."""
        result, pictures = "", 0
        cell = self.client.execute(code)
        while True:
            message = self.client.get_iopub_msg(timeout=PATIENCE_SECONDS)
            if message["parent_header"].get("msg_id") != cell:
                continue
            kind, content = message["msg_type"], message["content"]
            if kind == "status" and content["execution_state"] == "idle":
                break
            if kind == "error":
                raise RuntimeError(content["evalue"])
            if kind in ("execute_result", "display_data"):
                pictures += "image/png" in content["data"]
            if kind == "execute_result":
                result = content["data"]["text/plain"]
        while self.client.get_shell_msg(timeout=PATIENCE_SECONDS)["parent_header"].get("msg_id") != cell:
            pass
        return {"result": result, "pictures": pictures}

    def memory(self):
        with open(f"/proc/{self.manager.provisioner.pid}/smaps_rollup") as lines:
            return next(int(line.split()[1]) for line in lines if line.startswith("Pss:")) / 1024

    def stop(self):
        if self.client:
            self.client.stop_channels()
        self.manager.shutdown_kernel(now=True)


class Jupyter:
    """The commands, and the kernel that lives across them."""

    def __init__(self):
        self.live_kernel = None

    def start(self, code):
        """Times a new kernel's first cell."""
        began = time.perf_counter()
        kernel = Kernel()
        try:
            kernel.connect()
            shown = kernel.run(code)
            return {"ms": [ms_since(began)], **shown}
        finally:
            kernel.stop()

    def live(self, code, times):
        """Times a repeated cell in one kernel."""
        if not self.live_kernel:
            self.live_kernel = Kernel()
            self.live_kernel.connect()
            self.live_kernel.run(code)
        taken = []
        for _ in range(times):
            began = time.perf_counter()
            shown = self.live_kernel.run(code)
            taken.append(ms_since(began))
        return {"ms": taken, **shown}

    def burst(self, code, times):
        """Starts kernels at once; returns when each had its first result, and the memory of all."""
        began = time.perf_counter()
        kernels, taken = [], []
        try:
            for _ in range(times):
                kernels.append(Kernel())
            for kernel in kernels:
                kernel.connect()
                shown = kernel.run(code)
                taken.append(ms_since(began))
            return {"ms": taken, "mib": sum(kernel.memory() for kernel in kernels), **shown}
        finally:
            for kernel in kernels:
                kernel.stop()

    def end(self):
        if self.live_kernel:
            self.live_kernel.stop()


def ms_since(began):
    return (time.perf_counter() - began) * 1e3


def main():
    jupyter = Jupyter()
    asked = {"start": jupyter.start, "live": jupyter.live, "burst": jupyter.burst}
    try:
        for line in sys.stdin:
            request = json.loads(line)
            print(json.dumps(asked[request.pop("do")](**request)), flush=True)
    finally:
        jupyter.end()


if __name__ == "__main__":
    main()
