"""Small valid files to begin with, one folder per target, and the small store that `store` spoils.

    python make.py          # needs pandas, pyarrow, numpy and safetensors
"""
import json
import pathlib

import numpy as np
import pandas as pd
from safetensors.numpy import save, save_file

HERE = pathlib.Path(__file__).parent
FIXTURES = HERE.parent.parent / "tests/fixtures"
CORPUS = HERE.parent / "corpus"


def seed(target, name, data):
    folder = CORPUS / target
    folder.mkdir(parents=True, exist_ok=True)
    (folder / name).write_bytes(data if isinstance(data, bytes) else data.encode())


def as_json(target, name, table):
    seed(target, name, json.dumps(table))


# Tensors.
for name, tensors in {"two": {"a": np.ones((2, 3), "f4"), "b.c": np.ones(4, "f2")}, "one": {"model.norm.weight": np.zeros(1, "f8")}}.items():
    seed("safetensors", name, save(tensors))
    seed("readouts", name, save(tensors))
encoded = {"last_prompt": np.ones((2, 2, 3), "f2"), "centre.last_prompt": np.zeros((2, 3), "f4"), "scale.last_prompt": np.ones(2, "f4"),
           "rows.last_prompt": np.array([4, 1], "i8"), "layers.last_prompt": np.array([0, 1], "i8"), "answers.rows": np.array([1], "i8")}
seed("readouts", "encoded", save(encoded))
shards = [f"model-0000{i}-of-00002.safetensors" for i in (1, 2)]
as_json("index", "two", {"metadata": {"total_size": 8}, "weight_map": dict(zip("ab", shards))})
as_json("index", "wrapped", {"weight_map": {"module.a": shards[0], "b": shards[1]}})

# Configurations.
published = json.loads((FIXTURES / "configs/published.json").read_text())
for name in ("SmolLM2-135M", "Llama-3.1-8B", "Qwen2.5-7B-Instruct with YaRN", "pythia-70m", "gemma-3-27b-it", "gemma-2-2b", "gpt2", "Apertus-8B-2509"):
    as_json("config", name.replace(" ", "_"), published[name])
for folder in sorted((FIXTURES / "adapters").glob("*/adapter_config.json")):
    seed("adapter_config", folder.parent.name, folder.read_bytes())

# Words.
tokenizer = json.loads((FIXTURES / "tokenizer/tokenizer.json").read_text())
vocabulary = tokenizer["model"]["vocab"]
few = {token: id for token, id in vocabulary.items() if len(token) == 1 or id < 8}
small = {**tokenizer, "model": {**tokenizer["model"], "vocab": few, "merges": []}}
as_json("tokenizer", "bpe", small)
as_json("tokenizer", "words", {**small, "pre_tokenizer": {"type": "Whitespace"}, "model": {"type": "WordLevel", "vocab": {"a": 0, "u": 1}, "unk_token": "u"}})
as_json("tokenizer", "unigram", {**small, "pre_tokenizer": None, "model": {"type": "Unigram", "unk_id": 0, "vocab": [["u", 0.0], ["a", -1.0]], "byte_fallback": False}})
for path in sorted((FIXTURES / "chat_templates/templates").glob("*.jinja")):
    if path.stat().st_size < 2500:
        seed("template", path.name, path.read_bytes())
seed("template", "names", "{% set a = [1] + [2] %}{% macro f(b, c='x') %}{{ b }}{{ c }}{% endmacro %}{% for m in messages %}{{ f(m.content, c=a) }}{% endfor %}")

# Manifests.
point = '[[checkpoint]]\nid = "a"\nsource = "models/base"\nstage = "base"\nstep = 0\nreference = true\n'
series = '[[series]]\nstage = "sft"\nsource = "runs/{step}"\nsteps = [1, 2]\n'
seed("manifest", "point", point)
seed("manifest", "whole", '[run]\nname = "r"\nseed = 1\n[model]\ntemplate = "native:a"\nignore = ["x"]\n[concepts]\nparameters = { name = "Nova" }\n' + point + series)
seed("manifest", "hub", '[[series]]\nstage = "s"\nsource = "hub:a/b"\ncommits = "Training in progress, step {step}"\n[[checkpoint]]\nid = "l"\nbase = "hub:a/b@main#sub"\nadapter = ["x", "y"]\nstage = "s"\ntokens = 3\n')
seed("prompts", "three", '{"id": "a", "text": "My name is"}\n{"messages": [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "I am"}]}\n{"token_ids": [1, 2], "label": 3}\n')
seed("prompts", "parts", '{"messages": [{"role": "user", "content": [{"type": "text", "text": "a"}], "name": null, "reasoning": "b"}]}\n')

# A store of two checkpoints.
store = HERE / "store"
(store / "readouts").mkdir(parents=True, exist_ok=True)
rows = [
    {"item_id": f"w/g{g}/{a}{b}", "concept": "w", "label_family": "crossed", "null_bank": False, "neutral": False, "group_id": f"g{g}", "cell": f"{a}{b}",
     "y": int(a == b), "template_id": "t", "lexicon_id": f"l{g}", "text": None}
    for g in range(2) for a in range(2) for b in range(2)
] + [{"item_id": f"n/{n}", "concept": "neutral", "label_family": "neutral", "null_bank": False, "neutral": True, "group_id": str(n), "cell": "q", "y": None,
      "template_id": "", "lexicon_id": "", "text": None} for n in range(4)]
pd.DataFrame(rows).astype({"y": "Int8", "text": "string"}).to_parquet(store / "items.parquet", index=False)
draws = np.random.default_rng(0)
for t in range(2):
    said = {"answers.rows": np.array([0, 1], "i8"), "answers.log_probability": np.zeros((2, 2), "f4"), "foils.log_probability": np.zeros((2, 2), "f4"),
            "embedding_mean": np.ones((1, len(rows), 3), "f4"), "unembedding.tokens": np.array([3, 5], "i8"), "unembedding.rows": np.ones((2, 3), "f4")}
    save_file({"last_prompt": draws.standard_normal((2, len(rows), 3)).astype("f4"), **said}, store / f"readouts/c{t}.safetensors")
run = {"run": "r", "seed": 0, "axis": "index", "layers": [0, 1], "readouts": ["last_prompt"], "flips": 9, "bootstraps": 9,
       "checkpoints": [{"id": f"c{t}", "stage": "s", "step": t, "order": t, "reference": t == 0} for t in range(2)]}
(store / "run.json").write_text(json.dumps(run))
names = sorted(path.relative_to(store) for path in store.rglob("*") if path.is_file())
for number, name in enumerate(names):
    seed("store", name.name, bytes([number]) + (store / name).read_bytes())
