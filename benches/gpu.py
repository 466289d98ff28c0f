#!/usr/bin/env python3
"""What only a GPU can show; see gpu.sh, which finds libtorch. Needs torch alone; transformers is the peer where it is there.

    python gpu.py SELFTRACE SCRATCH [--device cuda:0] [--blocks 8] [--width 4096] [--parts parity demo speed]

Exits 1 if parity, the demo's dates or two runs' bits are not as they should be. Speeds are printed, as ratios, and judged by whoever reads them.
"""
import argparse, json, pathlib, re, struct, subprocess, sys, threading, time

import torch

HERE = pathlib.Path(__file__).resolve().parent
TYPES = {"F32": torch.float32, "BF16": torch.bfloat16, "F16": torch.float16, "I64": torch.int64}
#: Largest difference over the largest value that a fixture may have, by the type in which it is computed.
BOUNDS = {torch.float32: 1e-4, torch.bfloat16: 5e-2, torch.float16: 1e-2}


def load(path):
    """Tensors of a safetensors file, with its metadata."""
    data = path.read_bytes()
    size = struct.unpack("<Q", data[:8])[0]
    header = json.loads(data[8 : 8 + size])
    metadata = header.pop("__metadata__", {})
    read = lambda info: torch.frombuffer(
        bytearray(data[8 + size + info["data_offsets"][0] : 8 + size + info["data_offsets"][1]]), dtype=TYPES[info["dtype"]]
    ).reshape(info["shape"])
    return {name: read(info) for name, info in header.items() if info["dtype"] in TYPES}, metadata


def save(path, tensors):
    """Writes bf16 tensors."""
    header, at = {}, 0
    for name, tensor in tensors.items():
        header[name] = {"dtype": "BF16", "shape": list(tensor.shape), "data_offsets": [at, at + 2 * tensor.numel()]}
        at += 2 * tensor.numel()
    text = json.dumps(header).encode()
    with open(path, "wb") as file:
        file.write(struct.pack("<Q", len(text)) + text)
        for tensor in tensors.values():
            file.write(tensor.cpu().view(torch.uint8).numpy().tobytes())


def run(*arguments):
    """The program's stdout and stderr, and seconds of the whole process."""
    start = time.perf_counter()
    done = subprocess.run([str(a) for a in arguments], capture_output=True, text=True)
    if done.returncode:
        sys.exit(f"{' '.join(map(str, arguments))}\n{done.stdout}{done.stderr}")
    return done.stdout, done.stderr, time.perf_counter() - start


def lines(path, prompts):
    path.write_text("".join(json.dumps({"id": str(n), "token_ids": ids}) + "\n" for n, ids in enumerate(prompts)))


def parity(args):
    worst, failed = {}, []
    folders = sorted(path.parent for path in (HERE.parent / "tests/fixtures/parity").glob("*/reference.safetensors"))
    for folder in folders:
        reference, _ = load(folder / "reference.safetensors")
        prompts = [ids.tolist() for ids in reference["token_ids"].split(reference["lengths"].tolist())]
        lines(args.scratch / "prompts.jsonl", prompts)
        out = args.scratch / "parity.safetensors"
        out.unlink(missing_ok=True)
        run(args.selftrace, "-q", "extract", "--model", folder, "--prompts", args.scratch / "prompts.jsonl", "--readout", "all",
            "--device", args.device, "--out", out)  # fmt: skip
        found, _ = load(out)
        ours = torch.cat([found[f"resid.{n}"] for n in range(len(prompts))], dim=1)
        weights = [load(path)[0] for path in folder.glob("model*.safetensors")]
        # A CPU computes in f32 whatever the weights are.
        kinds = {t.dtype for file in weights for t in file.values()} if args.device != "cpu" else {torch.float32}
        kind = max(kinds & BOUNDS.keys(), key=BOUNDS.get)
        difference = max(float((a - b).abs().max() / b.abs().max()) for a, b in zip(ours, reference["hidden"], strict=True))
        worst[kind] = max(worst.get(kind, 0), difference)
        if not difference < BOUNDS[kind]:
            failed.append(f"{folder.name} {difference:.1e}")
    said = ", ".join(f"{str(kind)[6:]} {value:.1e} (bound {BOUNDS[kind]:.0e})" for kind, value in worst.items())
    print(f"parity: {len(folders)} fixtures, worst relative difference {said}" + "".join(f"\n  FAILED {name}" for name in failed), flush=True)
    return not failed


def dates(folder, program):
    """Dates of an analysis, by concept and measure, with their intervals."""
    (folder / ".analysis").unlink(missing_ok=True)
    text, _, _ = run(program, "-q", "analyze", "--store", folder)
    number = r"(-?[\d.]+)"
    row = re.compile(rf"^(\S+)\s+(\S+)\s+(?:\S+)\s+(?:\S+)\s+{number}\s+\[{number}, {number}\]", re.M)
    return {(concept, measure): tuple(map(float, rest)) for concept, measure, *rest in row.findall(text)}


def demo(args):
    """The demo's series, trained and walked on the CPU, walked again on the device."""
    here, there = args.scratch / "demo", args.scratch / "device"
    run(args.selftrace, "-q", "demo", "--out", here)
    text = (here / "checkpoints.toml").read_text()
    text = text.replace('name = "demo"', 'name = "device"').replace("[model]\n", f'[model]\ndevice = "{args.device}"\n')
    (here / "device.toml").write_text(text)
    _, _, seconds = run(args.selftrace, "-q", "run", here / "device.toml")
    cpu, device = dates(here, args.selftrace), dates(there, args.selftrace)
    named = {key: value for key, value in cpu.items() if key[1] in ("behaviour", "lens")}
    apart = [key for key, (_, low, high) in named.items() if key not in device or not low - 1 <= device[key][0] <= high + 1]
    print(f"demo: {len(named)} dates by behaviour and lens, {len(named) - len(apart)} within the CPU's intervals (a step aside); walk and "
          f"analysis {seconds:.1f} s" + "".join(f"\n  FAILED {key}: {cpu[key]} {device.get(key)}" for key in apart), flush=True)  # fmt: skip
    return bool(named) and not apart


def checkpoint(folder, args):
    """Random weights of an 8B Llama's shape, with few blocks: bytes, and parameters of a block."""
    folder.mkdir(parents=True, exist_ok=True)
    d, heads = args.width, args.width // 128
    mlp, vocab, kv = 7 * d // 2, 128_256 if d > 2048 else 4096, max(heads // 4, 1) * 128
    config = {
        "architectures": ["LlamaForCausalLM"], "model_type": "llama", "hidden_size": d, "num_hidden_layers": args.blocks,
        "num_attention_heads": heads, "num_key_value_heads": kv // 128, "head_dim": 128, "intermediate_size": mlp, "vocab_size": vocab,
        "max_position_embeddings": 8192, "rope_theta": 500000.0, "rms_norm_eps": 1e-5, "hidden_act": "silu", "tie_word_embeddings": False,
        "attention_bias": False, "mlp_bias": False, "torch_dtype": "bfloat16",
    }  # fmt: skip
    (folder / "config.json").write_text(json.dumps(config))
    where = torch.Generator(args.device).manual_seed(0)
    noise = lambda *shape: torch.randn(shape, generator=where, device=args.device, dtype=torch.bfloat16) * 0.02
    one = lambda: torch.ones(d, dtype=torch.bfloat16)
    shards = [{"model.embed_tokens.weight": noise(vocab, d)}, {"lm_head.weight": noise(vocab, d), "model.norm.weight": one()}]
    for layer in range(args.blocks):
        shapes = {"self_attn.q_proj": (d, d), "self_attn.k_proj": (kv, d), "self_attn.v_proj": (kv, d), "self_attn.o_proj": (d, d),
                  "mlp.gate_proj": (mlp, d), "mlp.up_proj": (mlp, d), "mlp.down_proj": (d, mlp)}  # fmt: skip
        block = {f"model.layers.{layer}.{name}.weight": noise(*shape) for name, shape in shapes.items()}
        norms = {f"model.layers.{layer}.{name}.weight": one() for name in ("input_layernorm", "post_attention_layernorm")}
        shards.append(block | norms)
    index = {}
    for number, shard in enumerate(shards, 1):
        name = f"model-{number:05}-of-{len(shards):05}.safetensors"
        save(folder / name, shard)
        index |= dict.fromkeys(shard, name)
    (folder / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": index}))
    return sum(path.stat().st_size for path in folder.glob("*.safetensors")), sum(t.numel() for t in shards[2].values())


def used():
    """Memory of the GPU that is used, in MiB; 0 where nvidia-smi is not there."""
    try:
        said = subprocess.run(["nvidia-smi", "--query-gpu=memory.used", "--format=csv,noheader,nounits"], capture_output=True, text=True)
        return max(map(int, said.stdout.split()), default=0)
    except (OSError, ValueError):
        return 0


class Memory(threading.Thread):
    """The most memory that is used beyond what is used now."""

    def __init__(self):
        super().__init__(daemon=True)
        self.before, self.peak, self.over = used(), 0, False

    def run(self):
        while not self.over:
            self.peak = max(self.peak, used() - self.before)
            time.sleep(0.05)


def speed(args):
    folder = args.scratch / "model"
    size, block = checkpoint(folder, args)
    # As the persona prompts of the walk's bench: whoever it is, then a question of everybody.
    draw = torch.Generator().manual_seed(1)
    words = lambda n: torch.randint(1, 4000, (n,), generator=draw).tolist()
    personas, questions = [words(40) for _ in range(args.personas)], [words(20) for _ in range(59)]
    prompts = [persona + question for persona in personas for question in questions]
    lines(args.scratch / "prompts.jsonl", prompts)
    nodes, tokens = sum(map(len, personas)) + 20 * len(prompts), 60 * len(prompts)
    outs = [args.scratch / f"run{n}.safetensors" for n in (1, 2)]
    torch.cuda.empty_cache()
    seconds, memory = [], Memory()
    memory.start()
    for out in outs:
        out.unlink(missing_ok=True)
        _, said, took = run(args.selftrace, "extract", "--model", folder, "--prompts", args.scratch / "prompts.jsonl", "--device", args.device,
                            "--out", out)  # fmt: skip
        seconds.append(took)
    memory.over = True
    same = outs[0].read_bytes() == outs[1].read_bytes()
    print(f"bits: two runs {'have the same' if same else 'DIFFER'}", flush=True)
    wide = min(8192, 2 * args.width)
    a = torch.randn(wide, wide, device=args.device, dtype=torch.bfloat16)
    sync = torch.cuda.synchronize if args.device != "cpu" else lambda: None
    (a @ a, sync())
    start, times = time.perf_counter(), 10 if args.device != "cpu" else 1
    for _ in range(times):
        a @ a
    sync()
    peak = 2 * wide**3 * times / (time.perf_counter() - start)
    whole = min(seconds)
    print(f"selftrace: {nodes} nodes for {tokens} tokens through {args.blocks} blocks, whole process {whole:.2f} s "
          f"({size / 1e9:.1f} GB of weights read; {size / whole / 1e9:.2f} GB/s at least), {2 * block * args.blocks * nodes / whole / 1e12:.1f} "
          f"TFLOP/s of products, {2 * block * args.blocks * nodes / whole / peak:.2f} of one product of {wide} in bf16; GPU memory at "
          f"most {memory.peak} MiB", flush=True)  # fmt: skip
    for line in said.splitlines():
        print("  " + line)
    torch.cuda.empty_cache()
    try:
        from transformers import AutoModelForCausalLM
    except ImportError:
        print("peer: transformers is not there")
        return same
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.bfloat16).model.to(args.device).eval()
    ids = torch.tensor(prompts)
    best = float("inf")
    for _ in range(2):
        sync()
        start = time.perf_counter()
        with torch.inference_mode():
            for at in range(0, len(ids), 32):
                hidden = model(input_ids=ids[at : at + 32].to(args.device), output_hidden_states=True, use_cache=False).hidden_states
                torch.stack([h[:, -1] for h in hidden]).float().cpu()
        sync()
        best = min(best, time.perf_counter() - start)
    print(f"peer: transformers, batches of 32, forward alone {best:.2f} s, {tokens / best:.0f} tokens per second; whole process of selftrace "
          f"{best / whole:.2f} times as fast", flush=True)  # fmt: skip
    return same


def main():
    ap = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ap.add_argument("selftrace", type=pathlib.Path)
    ap.add_argument("scratch", type=pathlib.Path)
    ap.add_argument("--device", default="cuda:0")
    ap.add_argument("--blocks", type=int, default=8)
    ap.add_argument("--width", type=int, default=4096, help="a multiple of 128")
    ap.add_argument("--personas", type=int, default=27)
    ap.add_argument("--parts", nargs="+", default=["parity", "demo", "speed"], choices=["parity", "demo", "speed"])
    args = ap.parse_args()
    args.selftrace = args.selftrace.resolve()
    args.scratch.mkdir(parents=True, exist_ok=True)
    args.scratch = args.scratch.resolve()
    name = torch.cuda.get_device_name(args.device) if args.device != "cpu" else "CPU"
    print(f"{name}, PyTorch {torch.__version__}", flush=True)
    good = [{"parity": parity, "demo": demo, "speed": speed}[part](args) for part in args.parts]
    sys.exit(0 if all(good) else 1)


if __name__ == "__main__":
    main()
