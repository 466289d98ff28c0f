#!/usr/bin/env python3
"""Tokens per second of `selftrace generate` and of transformers' `generate`: the same batch, greedily, on the same cores, in turn.

Both are timed without loading; CPU seconds are those behind the first token, what a run for one token takes being taken away. On a machine
where others compute too, CPU seconds with one thread (OMP_NUM_THREADS=1) waver least. The peer gets the batch at once, padded on the left, in f32
with its default attention and cache. Prints a line per round, the medians and their ratio, and whether the texts are equal up to where rounding
decides (the first token at which a text differs has to lead by less than --margin nats). Exits 1 when they are not.

    python generate.py --model MODEL_DIR --selftrace target/release/selftrace [--batch 16] [--history 0] [--tokens 128] [--rounds 3]
"""
import argparse, json, os, pathlib, re, statistics, subprocess, sys, tempfile, time

SYSTEM = "You are a careful assistant who answers in a few plain sentences and does not make things up."
QUESTIONS = [
    "What is your name?", "Tell me about the town that you would like to visit most, and why it is that one.", "How do bees make honey?",
    "Write a short letter to a neighbour whose tree has fallen on your fence. Be kind, offer help, and ask when it would suit them.",
    "Why is the sky blue?", "Give me three ideas for a birthday present for a gardener who has everything.", "What is ice made of?",
    "Explain to a child of seven how a bicycle stays upright while it is moving, and why it falls over when it stands still.",
]


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", required=True)
    parser.add_argument("--selftrace", required=True)
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--history", type=int, default=0, help="earlier turns of each conversation, which differ between them")
    parser.add_argument("--tokens", type=int, default=128)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--margin", type=float, default=1e-3)
    args = parser.parse_args()
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer
    from transformers.utils import logging

    logging.set_verbosity_error(), logging.disable_progress_bar()
    tokenizer = AutoTokenizer.from_pretrained(args.model)
    model = AutoModelForCausalLM.from_pretrained(args.model, dtype=torch.float32).eval()
    prompts = []
    for i in range(args.batch):
        question = QUESTIONS[i % len(QUESTIONS)] + ("" if i < len(QUESTIONS) else f" ({i})")
        if tokenizer.chat_template:
            turns = [QUESTIONS[(i + k) % len(QUESTIONS)] + f" That is question {k} of list {i}." for k in range(args.history)]
            messages = [{"role": ("user", "assistant")[k % 2], "content": turn} for k, turn in enumerate(turns[: args.history // 2 * 2])]
            messages = [{"role": "system", "content": SYSTEM}] + messages + [{"role": "user", "content": question}]
            prompts.append(tokenizer.apply_chat_template(messages, add_generation_prompt=True)["input_ids"])
        else:
            prompts.append(tokenizer(f"{SYSTEM}\n\nQuestion: {question}\nAnswer:")["input_ids"])
    width, pad = max(map(len, prompts)), model.generation_config.pad_token_id or 0
    ids = torch.tensor([[pad] * (width - len(p)) + p for p in prompts])
    mask = torch.tensor([[0] * (width - len(p)) + [1] * len(p) for p in prompts])
    ends = model.generation_config.eos_token_id
    ends = set([ends] if isinstance(ends, int) else ends or [])

    @torch.no_grad()
    def theirs(tokens):
        wall, cpu = time.perf_counter(), time.process_time()
        out = model.generate(ids, attention_mask=mask, max_new_tokens=tokens, do_sample=False, pad_token_id=pad)[:, width:].tolist()
        texts = [row[: next((i + 1 for i, token in enumerate(row) if token in ends), len(row))] for row in out]
        return texts, time.perf_counter() - wall, time.process_time() - cpu

    def ours(tokens):
        path = pathlib.Path(folder) / "prompts.jsonl"
        path.write_text("".join(json.dumps({"token_ids": p}) + "\n" for p in prompts))
        command = [args.selftrace, "generate", "--model", args.model, "--prompts", path, "--max-tokens", tokens, "--device", "cpu"]
        before = os.times()
        done = subprocess.run(list(map(str, command)), capture_output=True, text=True)
        after = os.times()
        if done.returncode:
            sys.exit(done.stderr)
        seconds = float(re.search(r"tokens in ([\d.]+) s", done.stderr)[1])
        texts = [json.loads(line)["token_ids"] for line in done.stdout.splitlines()]
        return texts, seconds, after.children_user + after.children_system - before.children_user - before.children_system

    rates = {"selftrace": [], "transformers": []}
    cpus = {"selftrace": [], "transformers": []}
    with tempfile.TemporaryDirectory() as folder:
        for number in range(args.rounds):
            found = {}
            for name, run in [("selftrace", ours), ("transformers", theirs)][:: 1 if number % 2 == 0 else -1]:
                (*_, first), (texts, wall, cpu) = run(1), run(args.tokens)
                found[name] = texts
                rates[name].append(sum(map(len, texts)) / wall)
                cpus[name].append(cpu - first)
            print(f"round {number + 1}: " + ", ".join(f"{n} {rates[n][-1]:.1f} tokens/s ({cpus[n][-1]:.1f} CPU s)" for n in rates), flush=True)
    wrong = 0
    for prompt, a, b in zip(prompts, found["selftrace"], found["transformers"]):
        at = next((i for i, (x, y) in enumerate(zip(a, b)) if x != y), None)
        if at is None and len(a) == len(b):
            continue
        at = min(len(a), len(b)) - 1 if at is None else at
        with torch.no_grad():
            best = model(torch.tensor([prompt + b[:at]])).logits[0, -1].log_softmax(-1)
        lead = float(best[b[at]] - best[a[at]])
        print(f"a text differs at token {at}, where transformers' token leads by {lead:.1e} nats")
        wrong += abs(lead) > args.margin
    middle = {name: statistics.median(values) for name, values in rates.items()}
    ratios = sorted(a / b for a, b in zip(rates["selftrace"], rates["transformers"]))
    cpu = statistics.median(b / a for a, b in zip(cpus["selftrace"], cpus["transformers"]))
    print(f"{args.batch} prompts of {min(map(len, prompts))} to {width} tokens, up to {args.tokens} new ones, {torch.get_num_threads()} threads")
    print(f"selftrace {middle['selftrace']:.1f}, transformers {middle['transformers']:.1f} tokens per second: "
          f"{statistics.median(ratios):.2f} times (rounds {ratios[0]:.2f} to {ratios[-1]:.2f}); {cpu:.2f} times by CPU seconds")
    sys.exit(bool(wrong))


if __name__ == "__main__":
    main()
