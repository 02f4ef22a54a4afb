"""Writes a checkpoint as the reference implementation `e2e_sae` leaves it, and files that no reader may be taken in by.

    python3 -m venv target/venv-fixtures
    target/venv-fixtures/bin/pip install -r scripts/requirements-fixtures.txt
    target/venv-fixtures/bin/python scripts/fixtures_e2e_sae.py

Versions as in `fixtures.py`, and PyYAML 6.0.3. Nothing is downloaded when it runs.

Written below `crates/sae-nn/tests/fixtures/e2e_sae/`:

    samples_400.pt        the state dict of two SAEs, as `torch.save(module.state_dict(), …)` writes it; f32
    e2e_similar_ce_layer_6.pt   the second of these SAEs as the paper's authors published theirs: bare keys (`encoder.weight`
                          …), the decoder's columns at unit length (the reference's `upload_to_hf.py`)
    final_config.yaml     the configuration that the reference stores beside it, with every key of its schema
    expected.safetensors  an input `x [N, D]`, and `<site>.c [N, F]` and `<site>.x_hat [N, D]` for each site
    views.pt              views of one storage with offsets and strides, and tensors of other types
    views.safetensors     the same tensors, contiguous
    not_a_zip.pt          plain text
    legacy.pt             a state dict in the format before PyTorch 1.6, which is no zip
    objects.pt            no tensor at all
    code.pt               a state dict whose unpickling would run a command; only to be read without executing pickles

The reference: c = relu(W x + b), x_hat = W_dec c + b_dec, the columns of W_dec divided by their L2 norms first.

Legend: N tokens, D model width, F features.
"""

import os
import pickle
import re
from collections import OrderedDict
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
import yaml
from fixtures import ROOT, Sae, randn, report, save, seeded
from safetensors.torch import load_file
from torch import Generator, Tensor, nn

FOLDER = ROOT / "crates/sae-nn/tests/fixtures/e2e_sae"
SITES = ("blocks.1.hook_resid_pre", "blocks.2.hook_resid_pre")
DIM, FEATURES = 32, 64  # D is that of the GPT-2 that `fixtures.py` writes.


def write_pickle(name: str, content: object) -> Path:
    path = FOLDER / name
    torch.save(content, path)
    report(path, "pickle")
    return path


# ---- The checkpoint -------------------------------------------------------------------------------------------------


class ReferenceSae(nn.Module):
    """Modules by the reference's names; its state dict is all that is needed of it."""

    def __init__(self, gen: Generator) -> None:
        super().__init__()
        self.encoder = nn.Sequential(nn.Linear(DIM, FEATURES), nn.ReLU())
        self.decoder = nn.Linear(FEATURES, DIM)
        sae = Sae.random(gen, FEATURES, DIM)
        values = {
            "encoder.0.weight": sae.w_enc, "encoder.0.bias": sae.b_enc,
            "decoder.weight": sae.w_dec.T, "decoder.bias": sae.b_dec,
        }  # fmt: skip
        self.load_state_dict(values)


def forward(state: Mapping[str, Tensor], site: str, x: Tensor) -> tuple[Tensor, Tensor]:
    names = ("encoder.0.weight", "encoder.0.bias", "decoder.weight", "decoder.bias")
    w_enc, b_enc, w_dec, b_dec = (state[f"{site.replace('.', '-')}.{name}"].double() for name in names)
    lengths = w_dec.norm(dim=0)
    assert 0.3 < lengths.min() < 0.8 and lengths.max() > 1.2, "columns of equal length hide a missing normalisation"
    c = torch.relu(x @ w_enc.T + b_enc)
    return c, c @ (w_dec / lengths).T + b_dec


def config() -> dict[str, Any]:
    """What pydantic's `model_dump` gives for the reference's `Config`, defaults included.

    `type_of_sparsifier` and `k` stand in some versions of its schema alone.
    """
    data = {
        "column_name": "input_ids", "dataset_name": "apollo-research/Skylion007-openwebtext-tokenizer-gpt2",
        "is_tokenized": True, "n_ctx": 16, "seed": None, "split": "train", "streaming": True, "tokenizer_name": "gpt2",
    }  # fmt: skip
    return {
        "wandb_project": None, "wandb_run_name": None, "wandb_run_name_prefix": "", "seed": 7,
        "tlens_model_name": "gpt2-small", "tlens_model_path": None, "save_dir": "/path/to/save_dir",
        "n_samples": 400, "save_every_n_samples": None, "eval_every_n_samples": 200, "eval_n_samples": 40,
        "batch_size": 4, "effective_batch_size": 8, "lr": 5e-4, "lr_schedule": "cosine", "min_lr_factor": 0.1,
        "warmup_samples": 40, "cooldown_samples": 0, "max_grad_norm": 10.0, "log_every_n_grad_steps": 20,
        "collect_act_frequency_every_n_samples": 200, "act_frequency_n_tokens": 3200,
        "loss": {
            "sparsity": {"coeff": 1.5, "p_norm": 1.0},
            "in_to_orig": {"hook_positions": ["blocks.2.hook_resid_post"], "total_coeff": 2.5},
            "out_to_orig": None, "out_to_in": {"coeff": 0.0}, "logits_kl": {"coeff": 0.5},
        },
        "train_data": data, "eval_data": {**data, "seed": 49},
        "saes": {
            "type_of_sparsifier": "sae", "dict_size_to_input_ratio": FEATURES / DIM, "k": None,
            "pretrained_sae_paths": None, "retrain_saes": False, "sae_positions": list(SITES),
        },
    }  # fmt: skip


def write_checkpoint() -> None:
    gen = seeded(21)
    module = nn.ModuleDict({site.replace(".", "-"): ReferenceSae(gen) for site in SITES})
    path = write_pickle("samples_400.pt", module.state_dict())
    state = torch.load(path, weights_only=True)
    x = randn(gen, 8, DIM).float()
    tensors = {"x": x}
    for site in SITES:
        tensors[f"{site}.c"], tensors[f"{site}.x_hat"] = (value.float() for value in forward(state, site, x.double()))
    save(FOLDER / "expected.safetensors", tensors)
    path = FOLDER / "final_config.yaml"
    path.write_text(yaml.dump(config()))
    assert yaml.safe_load(path.read_text()) == config()
    report(path, "config")


# ---- Files to be careful with ---------------------------------------------------------------------------------------


def write_published() -> None:
    state = torch.load(FOLDER / "samples_400.pt")
    site = "blocks-2-hook_resid_pre"
    write_pickle(
        "e2e_similar_ce_layer_6.pt",
        {
            "encoder.weight": state[f"{site}.encoder.0.weight"],
            "encoder.bias": state[f"{site}.encoder.0.bias"],
            "decoder.weight": torch.nn.functional.normalize(state[f"{site}.decoder.weight"], dim=0),
            "decoder.bias": state[f"{site}.decoder.bias"],
        },
    )


def write_views() -> None:
    gen = seeded(22)
    base = randn(gen, 6, 8).float()
    tensors = {
        "whole": base,
        "rows": base[2:5],
        "window": base[1:4, 2:7],
        "every_second": base[::2, 1::3],
        "transposed": base.T,
        "permuted": base.view(2, 3, 8).permute(2, 0, 1)[3:],
        "element": base[4, 5],
        "expanded": base[3].expand(3, 8),
        "bf16": randn(gen, 3, 5).bfloat16(),
        "f16": randn(gen, 3, 5).half().T,
        "f64": randn(gen, 7)[2:],
        "i64": torch.randint(-(2**40), 2**40, (4,), generator=gen),
    }
    path = write_pickle("views.pt", tensors)
    save(FOLDER / "views.safetensors", tensors)
    again, contiguous = torch.load(path, weights_only=True), load_file(FOLDER / "views.safetensors")
    assert all(torch.equal(again[name], contiguous[name]) for name in tensors)
    assert again["window"].untyped_storage().data_ptr() == again["transposed"].untyped_storage().data_ptr()


class Command:
    """Unpickles as the result of running a command."""

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.system, ("touch /tmp/pwned-by-pt",)


def write_hostile() -> None:
    gen = seeded(23)
    path = FOLDER / "not_a_zip.pt"
    path.write_text("This is not a checkpoint, whatever its name says.\n")
    report(path, "text")
    write_pickle("objects.pt", {"step": 400, "name": "samples_400", "losses": [0.5, 0.25], "nested": {"seed": 7}})
    weight = randn(gen, 3, 4).float()
    path = write_pickle("code.pt", OrderedDict(payload=Command(), weight=weight))
    try:
        torch.load(path, weights_only=True)
    except pickle.UnpicklingError as error:
        assert re.search(r"(posix|nt)\.system", str(error)), error
    else:
        raise AssertionError("PyTorch itself would run it")
    path = FOLDER / "legacy.pt"
    if not path.exists():  # It names storages by their address: another file at every run.
        torch.save(OrderedDict(weight=weight), path, _use_new_zipfile_serialization=False)
    assert torch.equal(torch.load(path, weights_only=True)["weight"], weight)
    report(path, "pickle")


def main() -> None:
    # One thread: sums are then always taken in the same order.
    torch.set_num_threads(1)
    torch.use_deterministic_algorithms(True)
    FOLDER.mkdir(parents=True, exist_ok=True)
    write_checkpoint()
    write_published()
    write_views()
    write_hostile()
    size = sum(path.stat().st_size for path in FOLDER.iterdir())
    assert size < 80_000, size


if __name__ == "__main__":
    main()
