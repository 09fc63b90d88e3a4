#!/usr/bin/env python3
"""A stand-in for `arriero worker`: answers /health as the mode says, which comes as the model's system text."""

import json
import os
import signal
import socket
import sys
import threading

spec = json.loads(sys.argv[sys.argv.index("--spec") + 1])
mode = spec["system"]
looks = 0


def leash():
    while os.read(0, 1):
        pass
    os._exit(0)


def health():
    global looks
    looks += 1
    answer = {
        "state": "ready", "progress": 1.0, "busy": 0, "free": 4, "kv_used": 5, "kv_total": 10, "resident_bytes": 1000,
        "device_bytes": 10, "backend": {"devices": ["CPU"], "cpu_features": []},
        "model": {"context": 512, "parallel": 4, "trained_context": 512, "embedding_length": 8, "completes": True,
                  "embeds": True, "infills": False},
    }
    if mode == "slow" and looks < 5:
        answer |= {"state": "loading", "progress": looks / 5}
    if mode == "stuck":
        answer |= {"state": "loading", "progress": 0.5}
    if mode == "failed":
        answer |= {"state": "failed", "error": "unknown model architecture: 'x'"}
    return answer


with open(spec["socket"] + ".partial", "w") as file:
    file.write(str(os.getpid()))
os.rename(spec["socket"] + ".partial", spec["socket"] + ".pid")
threading.Thread(target=leash, daemon=True).start()
signal.signal(signal.SIGTERM, signal.SIG_IGN if mode == "stubborn" else lambda *_: os._exit(0))
if mode == "exits":
    os.write(2, b"first words\nlast words\n")
    os._exit(3)
if mode == "killed":
    os.kill(os.getpid(), signal.SIGKILL)
listener = socket.socket(socket.AF_UNIX)
listener.bind(spec["socket"])
listener.listen()
while True:
    connection, _ = listener.accept()
    connection.recv(4096)
    body = json.dumps(health()).encode()
    status = b"200 OK" if b'"state": "ready"' in body else b"503 Service Unavailable"
    connection.sendall(b"HTTP/1.1 " + status + b"\r\ncontent-length: %d\r\n\r\n" % len(body) + body)
    connection.close()
