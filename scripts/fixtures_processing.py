"""Writes what TransformerLens computes with the fixture models once it has processed their weights.

`HookedTransformer.from_pretrained` folds norms into the matrices after them and centres what writes to the residual
stream, so the activations that an SAE of the field is trained on are not those of `transformers`. This script takes the
models that `fixtures.py` and `fixtures_families.py` wrote, processes them with TransformerLens' own code and defaults
(`peer/models.py`), and stores every site's activation. Nothing is downloaded when it runs.

    python3 -m venv target/venv-tlens
    target/venv-tlens/bin/pip install -r scripts/peer/requirements.txt
    target/venv-tlens/bin/python scripts/fixtures_processing.py

Versions: Python 3.11 or later; transformer-lens 2.15.4, torch 2.11.0, transformers 4.49.0. Those actually used stand in
the metadata. Computed in f64, stored in f32.

Written below `crates/sae-model/tests/fixtures/`, beside `expected.safetensors` of gpt2, gpt_neo, gpt_neox and llama:
`processed.safetensors` with the same entries, `final_hidden` being the normalised residual that the processed
unembedding is applied to.

`tlens/` is a checkpoint in the form of the reference's `run_train_tlens.py`: the state dict of a HookedTransformer with
the weights of gpt2 as they are (so its activations are those of `gpt2/expected.safetensors`), and `final_config.yaml`.

What the processing does, in this order (matrices stand as TransformerLens has them: a row an input), and what
`check_against_original` proves of the result:

1. Fold the norms, with weight w and bias b. For each matrix that reads one (Q, K, V from the first norm; the MLP's
   inputs from the second; the unembedding from the last): bias += b · W, then W = diag(w) W; under LayerNorm the mean
   over its rows is subtracted from W. The norm is left without parameters. RMSNorm: no b, no mean.
2. Centre the writers, LayerNorm only: from each row of the embeddings, of every attention's output matrix and of every
   MLP's, and from their biases, its mean over D.
3. Centre the unembedding over the vocabulary: each row of W_U, and b_U.
4. Fold the value biases: b_O += Σ over heads of b_V · W_O, then b_V = 0.

So under LayerNorm every site of the residual stream holds the original activation less its mean over D, and under RMSNorm
the original activation, as the MLP's normalised input and hidden layer do; logits lose their mean over the vocabulary.

Legend: B sequences, T context length, D model width, V vocabulary.
"""

import importlib.metadata
import logging
from collections.abc import Mapping
from pathlib import Path

import torch
from fixtures import ROOT, save
from peer.models import CONVERT, hooked
from safetensors.torch import load_file
from torch import Tensor
from transformer_lens import HookedTransformer
from transformers import AutoModelForCausalLM, PreTrainedModel
from transformers.utils.logging import disable_progress_bar

FIXTURES = ROOT / "crates/sae-model/tests/fixtures"
RESIDUAL_SITES = ("hook_resid_pre", "hook_attn_out", "hook_resid_mid", "hook_mlp_out", "hook_resid_post")
SITES = (*RESIDUAL_SITES, "attn.hook_z", "ln2.hook_normalized", "mlp.hook_post")
FINAL_HIDDEN = "ln_final.hook_normalized"


def run(model: HookedTransformer, tokens: Tensor) -> dict[str, Tensor]:
    """Logits, `final_hidden` and the sites that this model has; a parallel block has no `hook_resid_mid`."""
    logits, cache = model.run_with_cache(
        tokens, names_filter=lambda name: name == FINAL_HIDDEN or name.endswith(SITES), return_cache_object=False
    )
    final_hidden = cache.pop(FINAL_HIDDEN)
    # The heads side by side, as they are multiplied with one matrix.
    cache = {name: tensor.flatten(2) for name, tensor in cache.items()}
    return {**cache, "final_hidden": final_hidden, "logits": logits}


def check_against_original(original: PreTrainedModel, computed: Mapping[str, Tensor], folder: Path) -> None:
    """What the head of this file says of the result, against what `transformers` computed in f32."""
    expected = {name: tensor.double() for name, tensor in load_file(folder / "expected.safetensors").items()}
    # `mlp.hook_in` is no site of TransformerLens.
    known = {name for name in expected if name != "tokens" and not name.endswith("mlp.hook_in")}
    assert computed.keys() == known, computed.keys() ^ known
    family, state = original.config.model_type, original.state_dict()
    norm = {"gpt_neox": "gpt_neox.final_layer_norm", "llama": "model.norm"}.get(family, "transformer.ln_f")
    expected["final_hidden"] = (expected["final_hidden"] - state.get(f"{norm}.bias", 0)) / state[f"{norm}.weight"]
    expected["logits"] -= expected["logits"].mean(-1, keepdim=True)
    for name, tensor in computed.items():
        if name.endswith("attn.hook_z"):
            continue  # It has lost the value biases, which the output's bias has taken up.
        reference = expected[name]
        if name.endswith(RESIDUAL_SITES) and family != "llama":
            reference = reference - reference.mean(-1, keepdim=True)
        torch.testing.assert_close(tensor, reference, rtol=1e-5, atol=3e-5, msg=lambda m, name=name: f"{name}: {m}")


def write(name: str) -> None:
    folder = FIXTURES / name
    original = AutoModelForCausalLM.from_pretrained(folder, torch_dtype=torch.float64, attn_implementation="eager")
    original.eval().requires_grad_(False)
    tokens = load_file(folder / "expected.safetensors")["tokens"]
    computed = run(hooked(folder, torch.float64), tokens)
    check_against_original(original, computed, folder)
    # Where the value biases stand changes no other site: attention's weights sum to 1.
    unfolded = run(hooked(folder, torch.float64, fold_value_biases=False), tokens)
    for site, tensor in computed.items():
        if site.endswith("attn.hook_z"):
            continue
        torch.testing.assert_close(unfolded[site], tensor, rtol=0, atol=1e-11)
    stored = {"tokens": tokens, **{site: tensor.float() for site, tensor in computed.items()}}
    save(folder / "processed.safetensors", stored, {"transformer-lens": importlib.metadata.version("transformer-lens")})


def write_checkpoint() -> None:
    """What `run_train_tlens.py` leaves of a model: `epoch_N.pt`, and its sizes beside it."""
    folder = FIXTURES / "tlens"
    folder.mkdir(parents=True, exist_ok=True)
    model = hooked(FIXTURES / "gpt2", torch.float32, processed=False)
    torch.save(model.state_dict(), folder / "epoch_1.pt")
    cfg = model.cfg
    lines = ["name: tiny-gpt2", "seed: 0", "tlens_config:"]
    lines += [f"  {key}: {getattr(cfg, key)}" for key in ("act_fn", "d_head", "d_model", "d_vocab")]
    lines += ["  dtype: float32", f"  n_ctx: {cfg.n_ctx}", f"  n_layers: {cfg.n_layers}", "  tokenizer_name: gpt2"]
    lines += ["train:", "  batch_size: 16", "  lr: 0.001", "  n_epochs: 1", "wandb_project: null"]
    (folder / "final_config.yaml").write_text("\n".join(lines) + "\n")


def main() -> None:
    # One thread: sums are then always taken in the same order.
    torch.set_num_threads(1)
    torch.use_deterministic_algorithms(True)
    disable_progress_bar()
    logging.getLogger().setLevel(logging.ERROR)  # It warns that a Llama's writers are not centred.
    for name in CONVERT:
        write(name)
    write_checkpoint()


if __name__ == "__main__":
    main()
