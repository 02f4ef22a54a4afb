"""Writes SAEs as SAELens saves them, and what SAELens computes with them.

    python3 -m venv target/venv-saelens
    target/venv-saelens/bin/pip install sae-lens==6.54.12 torch==2.11.0
    target/venv-saelens/bin/python scripts/fixtures_saelens.py

Versions: Python 3.11 or later; sae-lens 6.54.12, torch 2.11.0. Those actually used stand in the metadata. Nothing is
downloaded when it runs.

Written to `crates/sae-nn/tests/fixtures/saelens/`: a folder a case, and `expected.safetensors` with `x`, and of every case
the reconstruction `<case>.x_hat` and the feature activations `<case>.c`, each times the length of its decoder row. All
cases are loaded back by SAELens itself (`SAE.load_from_disk`) before they compute.

With folders as arguments, it loads these with SAELens, and says of each what it is and how large its code and
reconstruction are (a check by hand of what was written in its format).

Legend: N tokens, D width, E width that a transcoder writes, F dictionary elements.
"""

import importlib.metadata
import json
import sys
from pathlib import Path

import torch
from safetensors.torch import save_file
from sae_lens import (
    SAE,
    JumpReLUSAE,
    JumpReLUSAEConfig,
    SkipTranscoder,
    SkipTranscoderConfig,
    StandardSAE,
    StandardSAEConfig,
    TopKSAE,
    TopKSAEConfig,
    Transcoder,
    TranscoderConfig,
)

OUT = Path(__file__).parent.parent / "crates/sae-nn/tests/fixtures/saelens"
N, D, E, F = 16, 6, 5, 20
HOOK = "blocks.1.hook_resid_pre"
HOOK_OUT = "blocks.1.hook_mlp_out"


def make(apply_b_dec: bool, dtype: str = "float32", unit: bool = False) -> StandardSAE:
    config = StandardSAEConfig(d_in=D, d_sae=F, dtype=dtype, apply_b_dec_to_input=apply_b_dec)
    config.metadata.hook_name = HOOK
    config.metadata.model_name = "tiny"
    sae = StandardSAE(config)
    generator = torch.Generator().manual_seed(7)
    with torch.no_grad():
        for name in ["W_enc", "b_enc", "W_dec", "b_dec"]:
            parameter = getattr(sae, name)
            parameter.copy_(torch.randn(parameter.shape, generator=generator).to(parameter.dtype))
        if unit:
            sae.W_dec.div_(sae.W_dec.norm(dim=-1, keepdim=True))
        else:
            # A row of zeros: the feature stays, and adds nothing.
            sae.W_dec[3] = 0
    return sae


def of_another_kind(sae: SAE) -> SAE:
    """Weights at random, decoder rows of unit length where the features are chosen by activations in other units."""
    sae.cfg.metadata.hook_name = HOOK
    sae.cfg.metadata.model_name = "tiny"
    generator = torch.Generator().manual_seed(9)
    with torch.no_grad():
        for name, parameter in sae.named_parameters():
            value = torch.randn(parameter.shape, generator=generator)
            parameter.copy_(value.abs() if name == "threshold" else value)
        if isinstance(sae, TopKSAE) and not sae.cfg.rescale_acts_by_decoder_norm:
            sae.W_dec.div_(sae.W_dec.norm(dim=-1, keepdim=True))
        if isinstance(sae, Transcoder):
            sae.cfg.metadata.hook_name_out = HOOK_OUT
    return sae


def edit(folder: Path, change) -> None:
    path = folder / "cfg.json"
    config = json.loads(path.read_text())
    path.write_text(json.dumps(change(config), indent=2) + "\n")


def without(config: dict, *keys: str) -> dict:
    return {key: value for key, value in config.items() if key not in keys}


def old(config: dict) -> dict:
    """The schema before SAELens 6: everything on one level, no architecture."""
    kept = without(config, "metadata", "architecture", "reshape_activations", "normalize_activations")
    return kept | {
        "activation_fn_str": "relu",
        "hook_name": HOOK,
        "hook_layer": 1,
        "hook_head_index": None,
        "finetuning_scaling_factor": False,
        "normalize_activations": "none",
        "prepend_bos": True,
        "context_size": 128,
        "model_name": "tiny",
        "sae_lens_training_version": "3.20.0",
    }


def check(folders: list[str]) -> None:
    for folder in folders:
        loaded = SAE.load_from_disk(folder, dtype="float32")
        x = torch.randn([N, loaded.cfg.d_in], generator=torch.Generator().manual_seed(8))
        with torch.no_grad():
            c, x_hat = loaded.encode(x), loaded(x)
        active = (c > 0).sum(dim=-1).float().mean()
        print(f"{folder}: {loaded.cfg.architecture()}, L0 {active:.2f}, norm of the output {x_hat.norm(dim=-1).mean():.4f}")


def main() -> None:
    if len(sys.argv) > 1:
        return check(sys.argv[1:])
    cases = {
        "unit": make(apply_b_dec=False, unit=True),
        "lengths": make(apply_b_dec=False),
        "applied": make(apply_b_dec=True),
        "default": make(apply_b_dec=True),
        "old": make(apply_b_dec=True),
        "scaled": make(apply_b_dec=True),
        "bfloat16": make(apply_b_dec=True, dtype="bfloat16"),
    }
    sizes = {"d_in": D, "d_sae": F, "apply_b_dec_to_input": False}
    cases["topk"] = of_another_kind(TopKSAE(TopKSAEConfig(**sizes, k=4, rescale_acts_by_decoder_norm=False)))
    cases["topk_lengths"] = of_another_kind(TopKSAE(TopKSAEConfig(**sizes, k=4, rescale_acts_by_decoder_norm=True)))
    cases["jumprelu"] = of_another_kind(JumpReLUSAE(JumpReLUSAEConfig(**sizes)))
    cases["transcoder"] = of_another_kind(Transcoder(TranscoderConfig(**sizes, d_out=E)))
    cases["skip_transcoder"] = of_another_kind(SkipTranscoder(SkipTranscoderConfig(**sizes, d_out=E)))
    cases["scaled"].fold_activation_norm_scaling_factor(0.3)
    generator = torch.Generator().manual_seed(8)
    x = torch.randn([N, D], generator=generator)
    expected = {"x": x}
    for name, sae in cases.items():
        folder = OUT / name
        folder.mkdir(parents=True, exist_ok=True)
        sae.save_model(folder)
        if name == "default":
            edit(folder, lambda config: without(config, "apply_b_dec_to_input"))
        if name == "old":
            edit(folder, lambda config: without(old(config), "apply_b_dec_to_input"))
        loaded = SAE.load_from_disk(folder, dtype="float32")
        with torch.no_grad():
            c = loaded.encode(x)
            expected[f"{name}.x_hat"] = loaded(x).contiguous()
            lengths = loaded.W_dec.norm(dim=-1)
            if name == "topk_lengths":
                lengths = torch.ones(F)  # Its activations are in these units already.
            expected[f"{name}.c"] = (c * torch.where(lengths == 0, 1.0, lengths)).contiguous()
    versions = {name: importlib.metadata.version(name) for name in ["sae-lens", "torch", "safetensors"]}
    save_file(expected, OUT / "expected.safetensors", metadata=versions)


if __name__ == "__main__":
    main()
