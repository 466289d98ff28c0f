"""Wall time of a walk over the hub against max(download, compute): how well downloads hide behind computation.

A hub on loopback serves the demo's checkpoints, padded, at the rate at which a download takes as long as the walk of a checkpoint, which is the
hardest case, or `--ratio` times as long. Needs `cargo build --release` and a demo (`selftrace demo`), and nothing but the standard
library:

    python3 benches/hub.py reports/demo/series [--checkpoints 6] [--ratio 1]

Prints the seconds that the walk takes from folders (compute), that the bytes take at the limited rate (download), and that the walk
from the hub takes.
"""

import argparse
import hashlib
import http.server
import json
import os
import pathlib
import re
import subprocess
import tempfile
import threading
import time
import urllib.parse

PROGRAM = pathlib.Path(__file__).resolve().parent.parent / "target/release/selftrace"
MANIFEST = """[run]
name = "{name}"
axis = "index"
[model]
template = "native:{last}"
[concepts]
packs = ["organism"]
profile = "quick"
"""


def padded(path, size):
    """The bytes of a safetensors file with one more tensor in it, so that it has this size."""
    data = path.read_bytes()
    length = int.from_bytes(data[:8], "little")
    header = json.loads(data[8 : 8 + length])
    end = max(tensor["data_offsets"][1] for name, tensor in header.items() if name != "__metadata__")
    more = max(size - len(data), 4) // 4 * 4
    header["padding"] = {"dtype": "F32", "shape": [more // 4], "data_offsets": [end, end + more]}
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    return len(text).to_bytes(8, "little") + text + data[8 + length :] + bytes(more)


class Hub(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    folders, rate, busy = {}, 1e6, threading.Lock()

    def log_message(self, *_):
        pass

    def do_GET(self):
        path = urllib.parse.unquote(self.path.split("?")[0])
        if path.endswith("/refs"):
            branches = [{"name": f"step_{step}", "targetCommit": commit} for commit, (step, _) in self.folders.items()]
            return self.answer({"branches": branches, "tags": []})
        if match := re.search(r"/tree/(\w+)$", path):
            files = self.folders[match[1]][1].items()
            return self.answer([{"type": "file", "path": n, "size": len(b), "oid": hashlib.sha1(b"blob %d\0" % len(b) + b).hexdigest()} for n, b in files])
        _, commit, name = re.search(r"/(resolve)/(\w+)/(.+)$", path).groups()
        body = self.folders[commit][1][name]
        self.send_response(200)
        self.send_header("Content-Length", len(body))
        self.end_headers()
        if len(body) < 100_000:
            return self.wfile.write(body)
        with self.busy:
            start = time.monotonic()
            for at in range(0, len(body), 1 << 16):
                self.wfile.write(body[at : at + (1 << 16)])
                time.sleep(max(0.0, start + (at + (1 << 16)) / self.rate - time.monotonic()))

    def answer(self, value):
        body = json.dumps(value).encode()
        self.send_response(200)
        self.send_header("Content-Length", len(body))
        self.end_headers()
        self.wfile.write(body)


def walk(folder, manifest, **variables):
    (folder / "checkpoints.toml").write_text(manifest)
    start = time.monotonic()
    done = subprocess.run([PROGRAM, "--quiet", "walk"], cwd=folder, env={**os.environ, **variables}, check=False)
    assert done.returncode == 0
    return time.monotonic() - start


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("series", type=pathlib.Path, help="the folder series/ of a demo")
    parser.add_argument("--checkpoints", type=int, default=6)
    parser.add_argument("--ratio", type=float, default=1.0, help="seconds of a download over those of a walk of one checkpoint; 1 is the hardest")
    arguments = parser.parse_args()
    sources = sorted(arguments.series.resolve().glob("*/checkpoint-*"), key=lambda path: int(path.name.split("-")[1]))
    # A longer series repeats what there is.
    sources = (sources * (arguments.checkpoints // len(sources) + 1))[-arguments.checkpoints :]
    with tempfile.TemporaryDirectory() as scratch:
        scratch = pathlib.Path(scratch)
        size = 40_000_000
        for number, source in enumerate(sources):
            files = {path.name: path.read_bytes() for path in source.iterdir() if path.is_file()}
            files["model.safetensors"] = padded(source / "model.safetensors", size)
            Hub.folders[hashlib.sha1(f"{number} {source}".encode()).hexdigest()] = (number, files)
            (scratch / f"checkpoint-{number}").mkdir()
            for name, body in files.items():
                (scratch / f"checkpoint-{number}" / name).write_bytes(body)
        last = f"x-{len(sources) - 1}"
        series = '[[series]]\nid = "x"\nstage = "rl"\nsource = "{}"\n'
        local = MANIFEST.format(name="local", last=last) + series.format("checkpoint-{step}")
        walk(scratch, local)
        one = local.replace('source = "checkpoint', 'steps = [%d]\nsource = "checkpoint' % (len(sources) - 1)).replace('"local"', '"one"')
        single = walk(scratch, one)
        compute = walk(scratch, local.replace('"local"', '"again"'))
        each = (compute - single) / (len(sources) - 1)
        Hub.rate = size / each / arguments.ratio
        download = sum(len(files["model.safetensors"]) for _, files in Hub.folders.values()) / Hub.rate
        server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Hub)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        remote = MANIFEST.format(name="hub", last=last) + series.format('hub:acme/series"\nrevision = "step_{step}')
        endpoint = f"http://127.0.0.1:{server.server_port}"
        wall = walk(scratch, remote, HF_ENDPOINT=endpoint, HF_HOME=str(scratch / "hf"), NO_PROXY="127.0.0.1")
        print(f"{len(sources)} checkpoints of {size / 1e6:.0f} MB at {Hub.rate / 1e6:.1f} MB/s")
        print(f"compute {compute:.2f} s, download {download:.2f} s, walk from the hub {wall:.2f} s")
        print(f"wall / max(download, compute) = {wall / max(download, compute):.2f}; one after the other would be {(download + compute) / max(download, compute):.2f}")


main()
