#!/usr/bin/env python3
"""The peer of the throughput bench: the same readout with transformers, as one would write it.

Reads prompts, sorts them by length, runs batches with right padding and an attention mask, takes every layer's hidden
state at each prompt's last token (the last layer before the final norm, by a hook), and writes `resid`
[layer, prompt, d_model] in f32, prompts in the order of the file. The base model is run, without the unembedding, and
without a key-value cache: nothing is computed that is not asked for.

    python transformers_peer.py --model MODEL_DIR --prompts prompts.jsonl --out peer.safetensors
"""
import argparse, json, pathlib, time

start = time.perf_counter()
import torch
from safetensors.torch import save_file
from transformers import AutoModel, AutoTokenizer


def main():
    ap = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ap.add_argument("--model", type=pathlib.Path, required=True)
    ap.add_argument("--prompts", type=pathlib.Path, required=True)
    ap.add_argument("--out", type=pathlib.Path, required=True)
    ap.add_argument("--batch", type=int, default=32)
    ap.add_argument("--attention", default="sdpa", help="sdpa (transformers' default) or eager")
    ap.add_argument("--device", default="cpu")
    args = ap.parse_args()
    seconds = {"import": time.perf_counter() - start}

    def lap(name, since):
        seconds[name] = time.perf_counter() - since
        return time.perf_counter()

    t = time.perf_counter()
    model = AutoModel.from_pretrained(args.model, dtype=torch.float32, attn_implementation=args.attention).eval().to(args.device)
    tokenizer = AutoTokenizer.from_pretrained(args.model)
    t = lap("load", t)
    rows = [json.loads(line) for line in open(args.prompts)]
    ids = tokenizer([r["text"] for r in rows])["input_ids"]
    order = sorted(range(len(ids)), key=lambda i: len(ids[i]))
    t = lap("tokenise", t)

    blocks = model.layers
    last_block = []
    blocks[-1].register_forward_hook(lambda module, inputs, out: last_block.append(out[0] if isinstance(out, tuple) else out))
    resid = torch.empty(len(blocks) + 1, len(ids), model.config.hidden_size)
    with torch.inference_mode():
        for at in range(0, len(order), args.batch):
            members = order[at : at + args.batch]
            lengths = torch.tensor([len(ids[i]) for i in members], device=args.device)
            width = int(lengths.max())
            tokens = torch.zeros(len(members), width, dtype=torch.long)
            for row, i in enumerate(members):
                tokens[row, : len(ids[i])] = torch.tensor(ids[i])
            mask = (torch.arange(width, device=args.device)[None] < lengths[:, None]).long()
            hidden = model(input_ids=tokens.to(args.device), attention_mask=mask, output_hidden_states=True, use_cache=False).hidden_states
            rows_ = torch.arange(len(members), device=args.device)
            for layer, h in enumerate(hidden[:-1] + (last_block.pop(),)):      # hidden[-1] is after the final norm
                resid[layer, members] = h[rows_, lengths - 1].float().cpu()
    t = lap("forward", t)
    seconds["total"] = time.perf_counter() - start
    tokens = sum(map(len, ids))
    save_file({"resid": resid}, args.out, metadata={"tokens": str(tokens), "seconds": json.dumps(seconds), "prompt_ids": json.dumps([str(r["id"]) for r in rows])})
    print(f"{len(ids)} prompts, {tokens} tokens, {torch.get_num_threads()} threads; " + ", ".join(f"{k} {v:.2f} s" for k, v in seconds.items()))


if __name__ == "__main__":
    main()
