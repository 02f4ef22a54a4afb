"""Writes a small randomly initialised model of every supported family, and what `transformers` computes with it.

Beside the GPT-2 of `fixtures.py`: GPT-Neo, GPT-NeoX (parallel and sequential), Llama (plain and with scaled rotary
frequencies), and a GPT-2 in the layout of old checkpoints. Between them they cover every way weights lie on the hub:
one file or shards, safetensors or pickles in a zip, f32, f16 and bf16, `config.json` with the keys of `transformers` 4
or of 5. Nothing is downloaded when it runs.

    python3 -m venv target/venv-fixtures
    target/venv-fixtures/bin/pip install -r scripts/requirements-fixtures.txt
    target/venv-fixtures/bin/python scripts/fixtures_families.py

Versions and seeds as in `fixtures.py`. Written below `crates/sae-model/tests/fixtures/`, in a folder a model:
`config.json`, the weights, and `expected.safetensors` with `tokens [B, T]`, `logits [B, T, V]`, `final_hidden`
`[B, T, D]` (after the last norm) and every site's activation `[B, T, width]` by TransformerLens' name, and
`mlp.hook_in`, which it has not: the MLP's input after the norm's weight and bias.

    gpt_neo              `model.safetensors`, f32, config of transformers 5; global and local attention in turn
    gpt_neox             `model-0000i-of-0000n.safetensors` and index, f32, config of transformers 4; parallel blocks
    gpt_neox_sequential  `model.safetensors`, bf16, config of transformers 5; sequential blocks
    llama                `model.safetensors`, f32, config of transformers 4; head size not D / heads
    llama_scaled         `pytorch_model.bin`, f16, config of transformers 5; `llama3` scaling, tied, with biases
    gpt2_bin             `pytorch_model-0000i-of-00002.bin` and index, f32, config of transformers 4; no prefix in names

Weights are rounded to the precision they are stored in, and everything is computed from those in f32. Sizes that have a
usual value (epsilons, rotary bases, MLP widths) have another one here, so that a reader that assumes it fails.

Legend: B sequences, T context length, D model width, V vocabulary.
"""

import contextlib
import copy
import json
import math
import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from fixtures import ROOT, randn, report, save, seeded
from safetensors import safe_open
from torch import Generator, Tensor, nn
from transformers import (
    AutoModelForCausalLM,
    GPT2Config,
    GPTNeoConfig,
    GPTNeoXConfig,
    LlamaConfig,
    PreTrainedConfig,
    PreTrainedModel,
)
from transformers.utils.logging import disable_progress_bar, set_verbosity_error

FIXTURES = ROOT / "crates/sae-model/tests/fixtures"


# ---- Activations ----------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Layout:
    """Where a family keeps its modules."""

    blocks: str
    attention: str
    attention_output: str
    """The projection that reads what the heads have mixed."""
    second_norm: str
    mlp_output: str
    """The projection that reads the MLP's hidden layer."""
    final_norm: str


LAYOUTS = {
    "gpt2": Layout("transformer.h", "attn", "attn.c_proj", "ln_2", "mlp.c_proj", "transformer.ln_f"),
    "gpt_neo": Layout("transformer.h", "attn", "attn.attention.out_proj", "ln_2", "mlp.c_proj", "transformer.ln_f"),
    "gpt_neox": Layout(
        "gpt_neox.layers", "attention", "attention.dense", "post_attention_layernorm", "mlp.dense_4h_to_h",
        "gpt_neox.final_layer_norm",
    ),
    "llama": Layout(
        "model.layers", "self_attn", "self_attn.o_proj", "post_attention_layernorm", "mlp.down_proj", "model.norm"
    ),
}


def is_parallel(config: PreTrainedConfig) -> bool:
    """Attention and MLP read the same residual stream: there is none between them."""
    return getattr(config, "use_parallel_residual", False)


@contextlib.contextmanager
def recording(model: PreTrainedModel) -> Iterator[dict[str, Tensor]]:
    """Collects the activation at every site, and `final_hidden`, while open."""
    seen: dict[str, Tensor] = {}

    def on_input(name: str) -> Callable[..., None]:
        def hook(_module: nn.Module, args: tuple[Tensor, ...]) -> None:
            seen[name] = args[0]

        return hook

    def on_output(name: str) -> Callable[..., None]:
        def hook(_module: nn.Module, _args: object, output: Tensor | tuple[Tensor, ...]) -> None:
            seen[name] = output[0] if isinstance(output, tuple) else output

        return hook

    def on_norm(name: str) -> Callable[..., None]:
        def hook(norm: nn.Module, _args: object, output: Tensor) -> None:
            seen[name] = (output - getattr(norm, "bias", 0)) / norm.weight

        return hook

    layout = LAYOUTS[model.config.model_type]
    handles = [model.get_submodule(layout.final_norm).register_forward_hook(on_output("final_hidden"))]
    for i, block in enumerate(model.get_submodule(layout.blocks)):
        site = f"blocks.{i}.hook_"
        handles += [
            block.register_forward_pre_hook(on_input(site + "resid_pre")),
            block.get_submodule(layout.attention).register_forward_hook(on_output(site + "attn_out")),
            block.mlp.register_forward_hook(on_output(site + "mlp_out")),
            block.register_forward_hook(on_output(site + "resid_post")),
            block.mlp.register_forward_pre_hook(on_input(f"blocks.{i}.mlp.hook_in")),
            block.get_submodule(layout.mlp_output).register_forward_pre_hook(on_input(f"blocks.{i}.mlp.hook_post")),
            block.get_submodule(layout.attention_output).register_forward_pre_hook(on_input(f"blocks.{i}.attn.hook_z")),
        ]
        norm = block.get_submodule(layout.second_norm)
        handles.append(norm.register_forward_hook(on_norm(f"blocks.{i}.ln2.hook_normalized")))
        if not is_parallel(model.config):
            handles.append(norm.register_forward_pre_hook(on_input(site + "resid_mid")))
    try:
        yield seen
    finally:
        for handle in handles:
            handle.remove()


def check_residual_stream(model: PreTrainedModel, seen: Mapping[str, Tensor]) -> None:
    """The hooks caught what TransformerLens' names mean."""
    for i in range(model.config.num_hidden_layers):
        pre, attn, mlp, post = (
            seen[f"blocks.{i}.hook_{site}"] for site in ("resid_pre", "attn_out", "mlp_out", "resid_post")
        )
        torch.testing.assert_close(post, pre + attn + mlp)
        if not is_parallel(model.config):
            torch.testing.assert_close(seen[f"blocks.{i}.hook_resid_mid"], pre + attn)


def check_not_trivial(attentions: tuple[Tensor, ...], logits: Tensor) -> None:
    """Attention is neither uniform nor on one token, so a wrong score, mask or position shows; logits are apart."""
    for pattern in attentions:
        allowed = (pattern > 0).sum(-1)
        entropy = -(pattern * pattern.clamp_min(1e-30).log()).sum(-1)
        share = (entropy / allowed.log())[allowed > 1].mean()
        assert 0.2 < share < 0.9, f"entropy {share:.2f} of the greatest possible"
    assert 1 < logits.std() < 10, f"logits' deviation {logits.std():.2f}"


def expected(model: PreTrainedModel, tokens: Tensor) -> dict[str, Tensor]:
    with recording(model) as seen:
        output = model(tokens, use_cache=False, output_attentions=True)
    check_residual_stream(model, seen)
    check_not_trivial(output.attentions, output.logits)
    final_hidden = seen.pop("final_hidden")
    torch.testing.assert_close(output.logits, final_hidden @ model.get_output_embeddings().weight.T)
    return {"tokens": tokens, **seen, "final_hidden": final_hidden, "logits": output.logits}


# ---- Models ---------------------------------------------------------------------------------------------------------


def random_model(gen: Generator, config: PreTrainedConfig, dtype: torch.dtype = torch.float32) -> PreTrainedModel:
    """Weights far larger than an initialisation's, and no bias 0 or norm weight 1; all representable in `dtype`.

    Only parameters are rounded: a cast of the module would take the rotary frequencies with it.
    """
    embeddings = ("wte", "wpe", "embed_in", "embed_tokens", "lm_head")
    model = AutoModelForCausalLM.from_config(config, attn_implementation="eager").eval().requires_grad_(False)
    for name, parameter in model.named_parameters():
        if name.endswith(".bias"):
            value = randn(gen, *parameter.shape, scale=0.2)
        elif parameter.dim() == 1:
            value = 1 + randn(gen, *parameter.shape, scale=0.25)
        else:
            gain = 2.5 if name.split(".")[-2] in embeddings else 1.3
            value = randn(gen, *parameter.shape, scale=gain / config.hidden_size**0.5)
        parameter.copy_(value.to(dtype))
    return model


def random_tokens(gen: Generator, config: PreTrainedConfig, length: int) -> Tensor:
    return torch.randint(config.vocab_size, (2, length), generator=gen)


def fresh(name: str) -> Path:
    """The folder of a model, without weights: a run before may have made other shards."""
    folder = FIXTURES / name
    folder.mkdir(parents=True, exist_ok=True)
    for pattern in ("model*", "pytorch_model*"):
        for path in folder.glob(pattern):
            path.unlink()
    return folder


def write_json(path: Path, content: Mapping[str, Any]) -> None:
    path.write_text(json.dumps(content, indent=2) + "\n")
    report(path, f"{len(content)} entries")


def write_pickle(path: Path, state: Mapping[str, Tensor]) -> None:
    torch.save(dict(state), path)
    report(path, f"{len(state)} tensors")


def write_safetensors(model: PreTrainedModel, folder: Path, max_shard_size: str = "1GB") -> None:
    """The library's own files but for `config.json`; our versions are added to the metadata."""
    with tempfile.TemporaryDirectory() as temporary:
        model.save_pretrained(temporary, max_shard_size=max_shard_size)
        for path in sorted(Path(temporary).glob("*.safetensors")):
            with safe_open(path, "pt") as file:
                tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (not a mapping)
                metadata = file.metadata()
            save(folder / path.name, tensors, metadata)
        for path in Path(temporary).glob("*.index.json"):
            shutil.copy(path, folder)
            report(folder / path.name, "index")


def write_own_config(model: PreTrainedModel, folder: Path) -> None:
    """`config.json` as the library writes it."""
    with tempfile.TemporaryDirectory() as temporary:
        model.save_pretrained(temporary)
        shutil.copy(Path(temporary, "config.json"), folder)
    report(folder / "config.json", model.config.model_type)


def in_dtype(model: PreTrainedModel, dtype: torch.dtype) -> PreTrainedModel:
    return copy.deepcopy(model).to(dtype)


def write_expected(gen: Generator, model: PreTrainedModel, folder: Path, length: int) -> None:
    """What `model` computes, once it is proved that the folder read anew computes the same."""
    tensors = expected(model, random_tokens(gen, model.config, length))
    again = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32, attn_implementation="eager").eval()
    assert torch.equal(again(tensors["tokens"], use_cache=False).logits, tensors["logits"]), folder.name
    save(folder / "expected.safetensors", tensors)


# ---- One function a folder ------------------------------------------------------------------------------------------


def write_gpt_neo() -> None:
    """Like TinyStories-1M: heads of size 4, unscaled attention, every second layer within a window shorter than T."""
    gen = seeded(11)
    config = GPTNeoConfig(
        hidden_size=16, num_layers=4, num_heads=4, attention_types=[[["global", "local"], 2]], window_size=5,
        vocab_size=80, max_position_embeddings=24, layer_norm_epsilon=1e-3, activation_function="gelu_new",
        bos_token_id=0, eos_token_id=0,
    )  # fmt: skip
    folder, model = fresh("gpt_neo"), random_model(gen, config)
    write_own_config(model, folder)
    write_safetensors(model, folder)
    write_expected(gen, model, folder, length=17)


def gpt_neox_config() -> dict[str, Any]:
    """`config.json` of a Pythia with the keys and in the order it has on the hub; 4 of 16 dimensions rotate."""
    return {
        "architectures": ["GPTNeoXForCausalLM"], "bos_token_id": 0, "eos_token_id": 0, "hidden_act": "gelu",
        "hidden_size": 32, "initializer_range": 0.02, "intermediate_size": 48, "layer_norm_eps": 1e-3,
        "max_position_embeddings": 24, "model_type": "gpt_neox", "num_attention_heads": 2, "num_hidden_layers": 3,
        "rotary_emb_base": 200, "rotary_pct": 0.25, "tie_word_embeddings": False, "torch_dtype": "float32",
        "transformers_version": "4.24.0", "use_cache": True, "use_parallel_residual": True, "vocab_size": 64,
    }  # fmt: skip


def write_gpt_neox() -> None:
    gen = seeded(12)
    content = gpt_neox_config()
    folder, model = fresh("gpt_neox"), random_model(gen, GPTNeoXConfig(**content))
    write_json(folder / "config.json", content)
    write_safetensors(model, folder, max_shard_size="50KB")
    write_expected(gen, model, folder, length=12)


def write_gpt_neox_sequential() -> None:
    gen = seeded(13)
    config = GPTNeoXConfig(
        hidden_size=32, num_hidden_layers=3, num_attention_heads=4, intermediate_size=48, vocab_size=64,
        max_position_embeddings=24, layer_norm_eps=1e-3, hidden_act="gelu", use_parallel_residual=False,
        rope_parameters={"rope_type": "default", "rope_theta": 500.0, "partial_rotary_factor": 1.0},
        bos_token_id=0, eos_token_id=0,
    )  # fmt: skip
    folder, model = fresh("gpt_neox_sequential"), random_model(gen, config, torch.bfloat16)
    stored = in_dtype(model, torch.bfloat16)
    write_own_config(stored, folder)
    write_safetensors(stored, folder)
    write_expected(gen, model, folder, length=12)


def llama_config() -> dict[str, Any]:
    """`config.json` of a Llama 3 with the keys and in the order it has on the hub; heads of size 8 ≠ 24 / 6."""
    return {
        "architectures": ["LlamaForCausalLM"], "attention_bias": False, "attention_dropout": 0.0, "bos_token_id": 0,
        "eos_token_id": 0, "head_dim": 8, "hidden_act": "silu", "hidden_size": 24, "initializer_range": 0.02,
        "intermediate_size": 40, "max_position_embeddings": 24, "mlp_bias": False, "model_type": "llama",
        "num_attention_heads": 6, "num_hidden_layers": 3, "num_key_value_heads": 2, "pretraining_tp": 1,
        "rms_norm_eps": 1e-3, "rope_scaling": None, "rope_theta": 500000.0, "tie_word_embeddings": False,
        "torch_dtype": "float32", "transformers_version": "4.45.0", "use_cache": True, "vocab_size": 64,
    }  # fmt: skip


def write_llama() -> None:
    gen = seeded(14)
    content = llama_config()
    folder, model = fresh("llama"), random_model(gen, LlamaConfig(**content))
    write_json(folder / "config.json", content)
    write_safetensors(model, folder)
    write_expected(gen, model, folder, length=14)


def write_llama_scaled() -> None:
    """All three branches of `llama3` scaling: of the four frequencies 1 is kept, 1/4 interpolated, the others divided.

    Their wavelengths are 2π · 4ⁱ; the bounds are 32 / 4 and 32 / 1.
    """
    gen = seeded(15)
    rope: dict[str, Any] = {
        "rope_type": "llama3", "rope_theta": 256.0, "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
        "original_max_position_embeddings": 32,
    }  # fmt: skip
    config = LlamaConfig(
        hidden_size=32, num_hidden_layers=3, num_attention_heads=4, num_key_value_heads=2, intermediate_size=48,
        vocab_size=64, max_position_embeddings=256, rms_norm_eps=1e-3, hidden_act="silu", rope_parameters=rope,
        tie_word_embeddings=True, attention_bias=True, mlp_bias=True, bos_token_id=0, eos_token_id=0,
    )  # fmt: skip
    folder, model = fresh("llama_scaled"), random_model(gen, config, torch.float16)
    frequencies = 4.0 ** -torch.arange(4)
    smooth = (32 * 0.25 / (2 * math.pi) - 1) / (4 - 1)
    scale = torch.tensor([1, (1 - smooth) / 8 + smooth, 1 / 8, 1 / 8])
    torch.testing.assert_close(model.model.rotary_emb.inv_freq, frequencies * scale)
    stored = in_dtype(model, torch.float16)
    write_own_config(stored, folder)
    write_pickle(folder / "pytorch_model.bin", stored.state_dict())  # `lm_head.weight` shares the embedding's storage.
    write_expected(gen, model, folder, length=17)


def gpt2_config() -> dict[str, Any]:
    """`config.json` of GPT-2 with the keys and in the order it has on the hub."""
    return {
        "activation_function": "gelu_new", "architectures": ["GPT2LMHeadModel"], "attn_pdrop": 0.1,
        "bos_token_id": 0, "embd_pdrop": 0.1, "eos_token_id": 0, "initializer_range": 0.02,
        "layer_norm_epsilon": 1e-3, "model_type": "gpt2", "n_ctx": 20, "n_embd": 24, "n_head": 3, "n_inner": 40,
        "n_layer": 2, "n_positions": 20, "resid_pdrop": 0.1, "summary_activation": None,
        "summary_first_dropout": 0.1, "summary_proj_to_labels": True, "summary_type": "cls_index",
        "summary_use_proj": True, "task_specific_params": {"text-generation": {"do_sample": True, "max_length": 50}},
        "vocab_size": 90,
    }  # fmt: skip


def write_gpt2_bin() -> None:
    """Names as on the hub: no prefix, no unembedding, and the buffers that were once stored with the weights."""
    gen = seeded(16)
    content = gpt2_config()
    folder, model = fresh("gpt2_bin"), random_model(gen, GPT2Config(**content))
    write_json(folder / "config.json", content)
    state: dict[str, Tensor] = {}
    for name, tensor in model.transformer.state_dict().items():
        if name.endswith(".ln_1.weight"):
            block, context = name.removesuffix("ln_1.weight"), content["n_ctx"]
            state[block + "attn.bias"] = torch.ones(context, context).tril().view(1, 1, context, context)
            state[block + "attn.masked_bias"] = torch.tensor(-1e4)
        state[name] = tensor.clone()
    names = list(state)
    shards = names[: len(names) // 2], names[len(names) // 2 :]
    weight_map = {}
    for number, shard in enumerate(shards, start=1):
        file = f"pytorch_model-{number:05}-of-{len(shards):05}.bin"
        write_pickle(folder / file, {name: state[name] for name in shard})
        weight_map |= dict.fromkeys(shard, file)
    size = sum(tensor.nbytes for tensor in state.values())
    index = {"metadata": {"total_size": size}, "weight_map": dict(sorted(weight_map.items()))}
    write_json(folder / "pytorch_model.bin.index.json", index)
    write_expected(gen, model, folder, length=12)


def main() -> None:
    # One thread: sums are then always taken in the same order.
    torch.set_num_threads(1)
    torch.use_deterministic_algorithms(True)
    disable_progress_bar()
    set_verbosity_error()  # It warns of the old buffers.
    write_gpt_neo()
    write_gpt_neox()
    write_gpt_neox_sequential()
    write_llama()
    write_llama_scaled()
    write_gpt2_bin()


if __name__ == "__main__":
    main()
