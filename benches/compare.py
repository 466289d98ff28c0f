#!/usr/bin/env python3
"""selftrace and transformers side by side: the same prompts, model and machine, whole processes in turn.

Runs `selftrace extract` and `transformers_peer.py` alternately, each as a fresh process, checks that the activations
agree (largest |difference| / largest |peer value|, per layer), and prints medians of wall time, peak memory and prompt
tokens per second. Exits 1 when the activations disagree or a program fails.

    python compare.py --model MODEL_DIR --prompts prompts.jsonl --selftrace target/release/selftrace
"""
import argparse, json, os, pathlib, statistics, struct, subprocess, sys, tempfile, threading, time

# Nothing heavy may be imported before the runs: on Linux a child's peak memory starts at its parent's at the fork.


def measured(command, env=None):
    """Runs `command`; returns {seconds, cpu, peak (bytes), anonymous, mapped (bytes, None off Linux)}; exits if it fails."""
    begin = time.perf_counter()
    process = subprocess.Popen([str(c) for c in command], env=env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    peaks, done = {"RssAnon": None, "RssFile": None}, threading.Event()

    def sample():                                        # what part of the peak is mapped checkpoint, not working memory
        while not done.wait(0.02):
            try:
                for line in open(f"/proc/{process.pid}/status"):
                    key, _, value = line.partition(":")
                    if key in peaks:
                        peaks[key] = max(peaks[key] or 0, int(value.split()[0]) * 1024)
            except (OSError, ValueError):
                return

    sampler = threading.Thread(target=sample, daemon=True)
    sampler.start()
    output = process.stdout.read()
    _, status, usage = os.wait4(process.pid, 0)
    seconds = time.perf_counter() - begin
    done.set()
    sampler.join()
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        sys.exit(f"{output}\nfailed with {process.returncode}: {' '.join(map(str, command))}")
    peak = usage.ru_maxrss * (1 if sys.platform == "darwin" else 1024)
    return {"seconds": seconds, "cpu": usage.ru_utime + usage.ru_stime, "peak": peak, "anonymous": peaks["RssAnon"], "mapped": peaks["RssFile"], "output": output}


def extract(selftrace, model, prompts, out):
    return [selftrace, "extract", "--model", model, "--prompts", prompts, "--out", out,
            "--readout", "last", "--layers", "all", "--dtype", "f32", "--device", "cpu"]


def header(path):
    with open(path, "rb") as f:
        return json.loads(f.read(struct.unpack("<Q", f.read(8))[0]))


def disagreement(ours, peer):
    """The largest relative difference of a layer, and that layer."""
    from safetensors.numpy import load_file
    a, b = load_file(ours)["resid"], load_file(peer)["resid"]
    if a.shape != b.shape:
        sys.exit(f"resid has shape {a.shape} from selftrace and {b.shape} from transformers")
    layers = [float(abs(x - y).max() / abs(y).max()) for x, y in zip(a, b)]
    layers = [x if x == x else float("inf") for x in layers]                  # not-a-number never agrees
    return max(layers), layers.index(max(layers)), a.shape


def main():
    ap = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ap.add_argument("--model", type=pathlib.Path, required=True)
    ap.add_argument("--prompts", type=pathlib.Path, required=True)
    ap.add_argument("--selftrace", required=True, help="the release binary")
    ap.add_argument("--python", default=sys.executable, help="an interpreter with torch and transformers")
    ap.add_argument("--runs", type=int, default=3)
    ap.add_argument("--tolerance", type=float, default=1e-3)
    ap.add_argument("--json", type=pathlib.Path, help="also write the figures here")
    args = ap.parse_args()
    peer = pathlib.Path(__file__).with_name("transformers_peer.py")
    runs, worst, worst_layer = {"selftrace": [], "transformers": []}, 0.0, 0
    with tempfile.TemporaryDirectory() as folder:
        for i in range(args.runs):
            a, b = (pathlib.Path(folder) / f"{name}{i}.safetensors" for name in ("selftrace", "transformers"))
            jobs = [("selftrace", extract(args.selftrace, args.model, args.prompts, a)),
                    ("transformers", [args.python, peer, "--model", args.model, "--prompts", args.prompts, "--out", b])]
            for name, command in jobs if i % 2 == 0 else jobs[::-1]:
                run = measured(command)
                runs[name].append(run)
                print(f"run {i + 1}: {name:12} {run['seconds']:7.2f} s  {run['peak'] / 2**20:6.0f} MiB", flush=True)
            if i < args.runs - 1 and i > 0:
                a.unlink(), b.unlink()                                          # the first and the last are compared
        meta = header(b)["__metadata__"]
        stages = json.loads(meta["seconds"])
        tokens = int(meta["tokens"])
        for i in {0, args.runs - 1}:
            difference, layer, shape = disagreement(*(pathlib.Path(folder) / f"{n}{i}.safetensors" for n in ("selftrace", "transformers")))
            if difference >= worst:
                worst, worst_layer = difference, layer
    median = lambda name, key: statistics.median(r[key] or 0 for r in runs[name])
    print(f"\n{shape[1]} prompts, {tokens} tokens, resid {list(shape)}, {args.runs} runs each, {os.cpu_count()} CPUs, OMP_NUM_THREADS={os.environ.get('OMP_NUM_THREADS', 'unset')}")
    print(f"\n{'':14}{'seconds':>9}{'fastest':>9}{'CPU s':>8}{'peak MiB':>10}{'anonymous':>11}{'mapped':>8}{'tokens/s':>10}")
    for name in runs:
        s = median(name, "seconds")
        print(f"{name:14}{s:9.2f}{min(r['seconds'] for r in runs[name]):9.2f}{median(name, 'cpu'):8.1f}{median(name, 'peak') / 2**20:10.0f}"
              f"{median(name, 'anonymous') / 2**20:11.0f}{median(name, 'mapped') / 2**20:8.0f}{tokens / s:10.0f}")
    ratio = median("transformers", "seconds") / median("selftrace", "seconds")
    memory = median("transformers", "peak") / median("selftrace", "peak")
    print(f"\nselftrace is {ratio:.2f} times as fast, whole process; transformers uses {memory:.2f} times its peak memory")
    print("transformers' own stages, last run: " + ", ".join(f"{k} {v:.2f} s" for k, v in stages.items()))
    print(f"activations: largest relative difference {worst:.1e} (layer {worst_layer}), tolerance {args.tolerance:.0e}: {'agree' if worst <= args.tolerance else 'DISAGREE'}")
    if args.json:
        keep = {n: [{k: v for k, v in r.items() if k != "output"} for r in rs] for n, rs in runs.items()}
        args.json.write_text(json.dumps({"tokens": tokens, "shape": list(shape), "ratio": ratio, "memory_ratio": memory, "worst": worst, "peer_stages": stages, "runs": keep}, indent=1) + "\n")
    sys.exit(0 if worst <= args.tolerance else 1)


if __name__ == "__main__":
    main()
