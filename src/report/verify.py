"""The residual stream of a model after every block, and the log-probabilities of its next tokens, as transformers computes them.

Reads what is asked from a JSON file and writes safetensors: `hidden.<i>` [layer, token, d_model] and `log_probability.<i>` [token - 1].
"""
import json, sys

try:
    import torch
    import transformers
    from safetensors.torch import save_file
    from transformers import AutoConfig, AutoModel, AutoModelForCausalLM
    asked = json.load(open(sys.argv[1]))
    if asked["adapters"]:
        import peft
except ImportError as error:
    print(error)
    sys.exit(3)

transformers.logging.set_verbosity_error()
transformers.logging.disable_progress_bar()
head = asked["head"]
load = AutoModelForCausalLM if head else AutoModel
config = AutoConfig.from_pretrained(asked["model"], local_files_only=True)
if getattr(config, "quantization_config", None) is not None:
    # Left over: packed weights are refused before this is asked.
    del config.quantization_config
model, loading = load.from_pretrained(
    asked["model"], config=config, dtype=torch.float32, attn_implementation="eager", local_files_only=True, output_loading_info=True)
if missing := sorted(loading["missing_keys"]):
    # Such as those of a torch.compile wrapper, which are read here under the names that transformers looks for.
    sys.exit(f"it finds no {missing[0]} in the files ({len(missing)} tensors are missing) and would draw random numbers; "
             "save the model with save_pretrained")
model.eval()
versions = f"transformers {transformers.__version__}"
if model.get_input_embeddings().num_embeddings != asked["d_vocab"]:
    model.resize_token_embeddings(asked["d_vocab"], mean_resizing=False)
if asked["adapters"]:
    names = [f"adapter{i}" for i in range(len(asked["adapters"]))]
    model = peft.PeftModel.from_pretrained(model, asked["adapters"][0], adapter_name=names[0])
    for folder, name in zip(asked["adapters"][1:], names[1:]):
        model.load_adapter(folder, name)
    if len(names) > 1:
        model.base_model.set_adapter(names)
    model.eval()
    versions += f", peft {peft.__version__}"
beside = ("vision", "visual", "audio")
lists = [m for name, m in model.named_modules() if isinstance(m, torch.nn.ModuleList) and name.endswith(("layers", ".h", "h"))
         and not any(part in name for part in beside) and len(m) >= asked["n_layers"]]
blocks = lists[0]
got, out = [], {}
blocks[0].register_forward_pre_hook(lambda _, args, kwargs: got.append(args[0] if args else kwargs["hidden_states"]), with_kwargs=True)
for block in blocks:
    block.register_forward_hook(lambda _, args, result: got.append(result[0] if isinstance(result, tuple) else result))
for i, prompt in enumerate(asked["prompts"]):
    got.clear()
    with torch.no_grad():
        result = model(input_ids=torch.tensor([prompt]), use_cache=False)
    out[f"hidden.{i}"] = torch.stack([h[0] for h in got]).float().contiguous()
    if head:
        log_p = result.logits[0, :-1].float().log_softmax(-1)
        out[f"log_probability.{i}"] = log_p.gather(1, torch.tensor(prompt[1:])[:, None])[:, 0].contiguous()
save_file(out, asked["out"])
print(versions)
