"""Language models for the peer: random ones in Hugging Face layout, and the same weights in TransformerLens.

Nothing is downloaded: the configuration that TransformerLens' `from_pretrained` looks up by a model's name is made from
`config.json` here, the rest (conversion and processing of the weights) is its own code with its defaults.
"""

import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Generator
from transformer_lens import HookedTransformer, HookedTransformerConfig
from transformer_lens.loading_from_pretrained import (
    convert_gpt2_weights,
    convert_llama_weights,
    convert_neo_weights,
    convert_neox_weights,
)
from transformers import AutoModelForCausalLM, GPT2Config, GPTNeoConfig, PretrainedConfig, PreTrainedModel

CONVERT = {
    "gpt2": convert_gpt2_weights,
    "gpt_neo": convert_neo_weights,
    "gpt_neox": convert_neox_weights,
    "llama": convert_llama_weights,
}


@dataclass(frozen=True)
class Sizes:
    """A GPT-2 or GPT-Neo with an MLP of four times its width; the latter's odd blocks attend to 256 tokens."""

    family: str  # gpt2 or gpt_neo
    layers: int
    d_model: int
    heads: int
    vocab: int
    context: int


def hf_config(sizes: Sizes) -> PretrainedConfig:
    end_of_text = {"bos_token_id": sizes.vocab - 1, "eos_token_id": sizes.vocab - 1}
    if sizes.family == "gpt2":
        return GPT2Config(
            n_layer=sizes.layers, n_embd=sizes.d_model, n_head=sizes.heads, n_positions=sizes.context,
            vocab_size=sizes.vocab, **end_of_text,
        )  # fmt: skip
    if sizes.family == "gpt_neo":
        pairs, odd = divmod(sizes.layers, 2)
        return GPTNeoConfig(
            num_layers=sizes.layers, hidden_size=sizes.d_model, num_heads=sizes.heads,
            max_position_embeddings=sizes.context, vocab_size=sizes.vocab, window_size=256,
            attention_types=[[["global", "local"], pairs]] * bool(pairs) + [[["global"], 1]] * odd, **end_of_text,
        )  # fmt: skip
    raise ValueError(f"family {sizes.family!r}: gpt2 or gpt_neo")


def random_model(sizes: Sizes, gen: Generator, scale: float) -> PreTrainedModel:
    """An f32 model whose every parameter matters: biases and norms are random too.

    Matrices have entries of deviation `scale / √D`, both embeddings of deviation `scale`.
    """
    config = hf_config(sizes)
    model = AutoModelForCausalLM.from_config(config, attn_implementation="eager").eval().requires_grad_(False)
    for name, parameter in model.named_parameters():
        noise = torch.randn(parameter.shape, generator=gen)
        if name.endswith(".bias"):
            value = 0.1 * noise
        elif ".ln_" in name:
            value = 1 + 0.2 * noise
        elif name.endswith(("wte.weight", "wpe.weight")):
            value = scale * noise
        else:
            value = scale / math.sqrt(sizes.d_model) * noise
        parameter.copy_(value)
    return model


def hooked_config(hf: dict[str, Any], **settings: Any) -> HookedTransformerConfig:
    """What TransformerLens' `convert_hf_model_config` and `get_pretrained_model_config` make of a `config.json`.

    Unlike those it reads the MLP's width of GPT-2 and GPT-Neo, and the head size and context length of a Llama.
    """
    family = hf["model_type"]
    if family == "gpt2":
        own = {
            "d_model": hf["n_embd"], "d_head": hf["n_embd"] // hf["n_head"], "n_heads": hf["n_head"],
            "d_mlp": hf["n_inner"] or 4 * hf["n_embd"], "n_layers": hf["n_layer"], "n_ctx": hf["n_positions"],
            "eps": hf["layer_norm_epsilon"], "act_fn": hf["activation_function"],
        }  # fmt: skip
    elif family == "gpt_neo":
        own = {
            "d_model": hf["hidden_size"], "d_head": hf["hidden_size"] // hf["num_heads"], "n_heads": hf["num_heads"],
            "d_mlp": hf["intermediate_size"] or 4 * hf["hidden_size"], "n_layers": hf["num_layers"],
            "n_ctx": hf["max_position_embeddings"], "eps": hf["layer_norm_epsilon"],
            "act_fn": hf["activation_function"], "use_attn_scale": False, "use_local_attn": True,
            "attn_types": hf["attention_layers"], "window_size": hf["window_size"],
        }  # fmt: skip
    elif family == "gpt_neox":
        head = hf["hidden_size"] // hf["num_attention_heads"]
        own = {
            "d_model": hf["hidden_size"], "d_head": head, "n_heads": hf["num_attention_heads"],
            "d_mlp": hf["intermediate_size"], "n_layers": hf["num_hidden_layers"],
            "n_ctx": hf["max_position_embeddings"], "eps": hf["layer_norm_eps"], "act_fn": hf["hidden_act"],
            "positional_embedding_type": "rotary", "rotary_adjacent_pairs": False,
            "rotary_dim": round(hf["rotary_pct"] * head), "rotary_base": hf["rotary_emb_base"],
            "parallel_attn_mlp": hf["use_parallel_residual"],
        }  # fmt: skip
    else:
        own = {
            "d_model": hf["hidden_size"], "d_head": hf["head_dim"], "n_heads": hf["num_attention_heads"],
            "n_key_value_heads": hf["num_key_value_heads"], "d_mlp": hf["intermediate_size"],
            "n_layers": hf["num_hidden_layers"], "n_ctx": hf["max_position_embeddings"], "eps": hf["rms_norm_eps"],
            "act_fn": hf["hidden_act"], "gated_mlp": True, "final_rms": True,
            "positional_embedding_type": "rotary", "rotary_adjacent_pairs": False, "rotary_dim": hf["head_dim"],
            "rotary_base": hf["rope_theta"],
        }  # fmt: skip
    norm = "RMSPre" if family == "llama" else "LNPre"
    return HookedTransformerConfig(**{**own, "d_vocab": hf["vocab_size"], "normalization_type": norm, **settings})


def hooked(
    folder: Path, dtype: torch.dtype, processed: bool = True, fold_value_biases: bool = True
) -> HookedTransformer:
    """A stored model as `from_pretrained` returns it (the flags are its defaults), or with its weights as they are.

    The weights are converted to `dtype` before they are processed.
    """
    original = AutoModelForCausalLM.from_pretrained(folder, torch_dtype=dtype, attn_implementation="eager")
    original.eval().requires_grad_(False)
    hf = json.loads((folder / "config.json").read_text())
    config = hooked_config(hf, init_weights=False, device="cpu", dtype=dtype)
    if not processed:
        config.normalization_type = config.normalization_type.removesuffix("Pre")
    model = HookedTransformer(config, move_to_device=False).eval().requires_grad_(False)
    model.load_and_process_state_dict(
        CONVERT[hf["model_type"]](original, config), fold_ln=processed, center_writing_weights=processed,
        center_unembed=processed, fold_value_biases=processed and fold_value_biases,
        refactor_factored_attn_matrices=False,
    )  # fmt: skip
    return model


def random_hooked(sizes: Sizes, device: str, seed: int) -> HookedTransformer:
    """A model in f32, initialised by TransformerLens; its norms have no parameters, as processing leaves them."""
    config = hooked_config(hf_config(sizes).to_dict(), device=device, dtype=torch.float32, seed=seed)
    return HookedTransformer(config).eval().requires_grad_(False)
