"""A llama-server out of the package `xllamacpp`: serves the GGUF file given, says where it listens, ends with its standard input."""

import sys

import xllamacpp

params = xllamacpp.CommonParams()
params.model.path, params.model_alias = sys.argv[1], {"tiny"}
params.n_parallel, params.n_ctx = 8, 8 * 512
params.hostnames, params.port = ["127.0.0.1"], 0
params.endpoint_slots = params.endpoint_metrics = True
server = xllamacpp.Server(params)
print(server.listening_address, flush=True)
sys.stdin.read()
