#!/usr/bin/env python3
"""Peak memory on a checkpoint that should not fit in the working set: a random llama of 1.08 billion parameters in bf16.

Writes the checkpoint (2.2 GB, two shards; kept for the next time) with the tokenizer of a given folder, runs
`selftrace extract` on 200 prompts, and prints peak memory, how much of it is anonymous and how much is mapped file
pages (which the system takes back when it needs them), and the time.

    python memory_1b.py --folder SOMEWHERE/llama-1b --tokenizer MODEL_DIR --selftrace target/release/selftrace
"""
import argparse, json, pathlib, shutil, subprocess, sys

from compare import extract, measured                 # light: the parent's memory would count as the child's
from persona_prompts import prompts

LAYERS = 16
CONFIG = {
    "architectures": ["LlamaForCausalLM"], "model_type": "llama", "vocab_size": 50304, "hidden_size": 2048, "intermediate_size": 8192,
    "num_hidden_layers": LAYERS, "num_attention_heads": 32, "num_key_value_heads": 8, "head_dim": 64, "hidden_act": "silu",
    "max_position_embeddings": 4096, "rms_norm_eps": 1e-5, "rope_theta": 500000.0, "rope_scaling": None, "tie_word_embeddings": True,
    "attention_bias": False, "mlp_bias": False, "bos_token_id": 1, "eos_token_id": 2, "torch_dtype": "bfloat16", "transformers_version": "4.46.3",
}


def write(folder, tokenizer):
    """In a process of its own; one shard in memory at a time, config.json last."""
    import torch
    from safetensors.torch import save_file
    generator = torch.Generator().manual_seed(0)
    d, m, kv = CONFIG["hidden_size"], CONFIG["intermediate_size"], CONFIG["num_key_value_heads"] * CONFIG["head_dim"]
    shapes = {"model.embed_tokens.weight": (CONFIG["vocab_size"], d)}
    for l in range(LAYERS):
        block = {"self_attn.q_proj": (d, d), "self_attn.k_proj": (kv, d), "self_attn.v_proj": (kv, d), "self_attn.o_proj": (d, d),
                 "mlp.gate_proj": (m, d), "mlp.up_proj": (m, d), "mlp.down_proj": (d, m), "input_layernorm": (d,), "post_attention_layernorm": (d,)}
        shapes |= {f"model.layers.{l}.{name}.weight": shape for name, shape in block.items()}
    shapes["model.norm.weight"] = (d,)
    names = list(shapes)
    folder.mkdir(parents=True, exist_ok=True)
    weight_map, total = {}, 0
    cut = names.index(f"model.layers.{LAYERS // 2}.self_attn.q_proj.weight")
    for i, part in enumerate((names[:cut], names[cut:])):
        file = f"model-{i + 1:05}-of-00002.safetensors"
        tensors = {}
        for name in part:
            shape = shapes[name]
            draw = torch.empty(shape, dtype=torch.bfloat16).normal_(generator=generator)
            tensors[name] = draw.mul_(0.1).add_(1) if len(shape) == 1 else draw.mul_(shape[1] ** -0.5)
            weight_map[name], total = file, total + draw.numel() * 2
        save_file(tensors, folder / file, metadata={"format": "pt"})
    (folder / "model.safetensors.index.json").write_text(json.dumps({"metadata": {"total_size": total}, "weight_map": weight_map}))
    for file in ("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "chat_template.jinja"):
        if (tokenizer / file).exists():
            shutil.copy(tokenizer / file, folder / file)
    (folder / "config.json").write_text(json.dumps(CONFIG, indent=1) + "\n")


def main():
    ap = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ap.add_argument("--folder", type=pathlib.Path, required=True, help="where the checkpoint is, or is to be written")
    ap.add_argument("--tokenizer", type=pathlib.Path, required=True, help="a folder with a tokenizer.json of at most 50,304 tokens")
    ap.add_argument("--selftrace", help="the release binary; without it the checkpoint is only written")
    ap.add_argument("--prompts", type=int, default=200)
    ap.add_argument("--write", action="store_true", help=argparse.SUPPRESS)
    args = ap.parse_args()
    if args.write:
        return write(args.folder, args.tokenizer)
    if not (args.folder / "config.json").exists():
        subprocess.run([sys.executable, __file__, *sys.argv[1:], "--write"], check=True)
    size = sum(f.stat().st_size for f in args.folder.glob("*.safetensors"))
    print(f"checkpoint {size / 2**20:.0f} MiB in bf16, {size / 2**19:.0f} MiB if it were all held in f32")
    if not args.selftrace:
        return
    rows = prompts()
    rows = rows[:: max(1, len(rows) // args.prompts)][: args.prompts]
    lines, out = args.folder / "prompts.jsonl", args.folder / "resid.safetensors"
    lines.write_text("".join(json.dumps({"id": name, "text": text}) + "\n" for name, text in rows))
    run = measured(extract(args.selftrace, args.folder, lines, out))
    mib = lambda n: "unknown" if n is None else f"{n / 2**20:.0f} MiB"
    print(f"{len(rows)} prompts in {run['seconds']:.1f} s ({run['cpu']:.1f} s of CPU); peak {mib(run['peak'])}, "
          f"peak anonymous {mib(run['anonymous'])}, peak mapped {mib(run['mapped'])}; peak / checkpoint {run['peak'] / size:.2f}")


if __name__ == "__main__":
    main()
