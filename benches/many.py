#!/usr/bin/env python3
"""What a series of many checkpoints costs: every command should be linear in their number, and flat in memory.

Copies a checkpoint of a demo under T names, each with one weight of its own, and times `check`, `walk`, the second `walk` (nothing to do),
`analyze` and the second `run` for each T: seconds of the whole process and peak memory, and how many times as long each takes per checkpoint
at the largest T as at the smallest. Needs `cargo build --release` and a demo (`selftrace demo`), and nothing but the standard library.

    python3 benches/many.py reports/demo/series/rl/checkpoint-960 [--checkpoints 125 250 500]
"""
import argparse, pathlib, shutil, struct, tempfile

from compare import measured

PROGRAM = pathlib.Path(__file__).resolve().parent.parent / "target/release/selftrace"
MANIFEST = """[run]
name = "many"
[model]
template = "native:c0"
[concepts]
packs = ["organism"]
profile = "quick"
include = ["own_name", "own_maker"]
"""
COMMANDS = ["check", "walk", "walk again", "analyze", "run again"]


def copy(source, folder, number):
    """The checkpoint with another last weight, so that no two are the same."""
    folder.mkdir(parents=True)
    for path in source.iterdir():
        if path.name != "model.safetensors":
            shutil.copy(path, folder)
    weights = bytearray((source / "model.safetensors").read_bytes())
    weights[-4:] = struct.pack("<f", 1e-3 * number)
    (folder / "model.safetensors").write_bytes(weights)


def main():
    ap = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ap.add_argument("checkpoint", type=pathlib.Path, help="of a demo: a folder with one model.safetensors in f32")
    ap.add_argument("--checkpoints", type=int, nargs="+", default=[125, 250, 500])
    ap.add_argument("--selftrace", type=pathlib.Path, default=PROGRAM)
    args = ap.parse_args()
    program, per_checkpoint = args.selftrace.resolve(), {}
    print(f"{'checkpoints':>11}" + "".join(f"{command + ', s':>14}{'MiB':>6}" for command in COMMANDS))
    with tempfile.TemporaryDirectory() as scratch:
        scratch = pathlib.Path(scratch)
        for number in range(max(args.checkpoints)):
            copy(args.checkpoint, scratch / f"series/checkpoint-{number}", number)
        for count in args.checkpoints:
            folder = scratch / f"run-{count}"
            folder.mkdir()
            entries = (f'[[checkpoint]]\nid = "c{n}"\nsource = "../series/checkpoint-{n}"\nstage = "sft"\nstep = {n}\n' for n in range(count))
            (folder / "checkpoints.toml").write_text(MANIFEST + "".join(entries))
            runs = [measured([program, "--quiet", command.split()[0], folder / "checkpoints.toml"]) for command in COMMANDS]
            print(f"{count:11}" + "".join(f"{run['seconds']:14.2f}{run['peak'] / 2**20:6.0f}" for run in runs), flush=True)
            per_checkpoint[count] = [run["seconds"] / count for run in runs]
            shutil.rmtree(folder)
    least, most = min(args.checkpoints), max(args.checkpoints)
    factors = (f"{command} {b / a:.2f}" for command, a, b in zip(COMMANDS, per_checkpoint[least], per_checkpoint[most]))
    print(f"per checkpoint, {most} against {least}: " + ", ".join(factors))


if __name__ == "__main__":
    main()
