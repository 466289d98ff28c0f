"""What a causal sweep costs: nodes through a block per second, in the sweep and in a plain walk of the same model.

A sweep computes its nodes above the layers, once per condition, and scores its answers, which takes the unembedding and no blocks; so
without that both rates should be alike.

    python benches/causal.py --selftrace target/release/selftrace --model FOLDER [--concepts ai_vs_human,honesty]
"""
import argparse, os, pathlib, re, subprocess, tempfile

MANIFEST = """[run]
name = "bench"
axis = "index"
[model]
device = "cpu"
[concepts]
profile = "quick"
include = [{concepts}]
exclude = [{exclude}]
{causal}
[[checkpoint]]
id = "model"
source = "{model}"
stage = "bench"
"""


def walk(program, folder, text):
    (folder / "checkpoints.toml").write_text(text)
    done = subprocess.run([program, "walk", folder / "checkpoints.toml"], capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(done.stderr)
    return done.stderr


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--selftrace", default="target/release/selftrace")
    parser.add_argument("--model", required=True)
    parser.add_argument("--concepts", default="ai_vs_human,honesty")
    parser.add_argument("--exclude", default="", help="null concepts to leave out, to make the walk short")
    parser.add_argument("--directions", type=int, default=32)
    parser.add_argument("--memory-mb", type=int, default=2000)
    options = parser.parse_args()
    layers = __import__("json").loads((pathlib.Path(options.model) / "config.json").read_text())["num_hidden_layers"]
    quoted = lambda names: ", ".join(f'"{name}"' for name in names.split(",") if name)
    make = lambda causal: MANIFEST.format(concepts=quoted(options.concepts), exclude=quoted(options.exclude), causal=causal,
                                          model=os.path.abspath(options.model))
    with tempfile.TemporaryDirectory() as folder:
        folder = pathlib.Path(folder)
        log = walk(options.selftrace, folder, make(f"[causal]\ndirections = {options.directions}\nmemory_mb = {options.memory_mb}\n"))
        conditions, node_blocks = map(int, re.search(r"(\d+) interventions, (\d+) nodes through", log).groups())
        sweep, passes, scoring = re.search(r"interventions took ([\d.]+) s in (\d+) passes, ([\d.]+) s", log).groups()
        nodes, whole = re.search(r"(\d+) nodes for \d+ tokens in ([\d.]+) s", log).groups()
        plain = float(whole)
        print(f"walk:  {int(nodes) * layers} nodes through a block in {plain:.1f} s: {int(nodes) * layers / plain:.0f} per second")
        print(f"sweep: {conditions} conditions, {node_blocks} nodes through a block in {sweep} s ({passes} passes, {scoring} s of it to score answers): "
              f"{node_blocks / float(sweep):.0f} per second, without scoring {node_blocks / (float(sweep) - float(scoring)):.0f}")


if __name__ == "__main__":
    main()
