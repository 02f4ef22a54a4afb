"""Trains the same SAEs in PyTorch and with `sae train`, step by step, and compares every number: the test of parity.

A small random GPT-2 with processed weights, 50 steps of Adam with warm-up, cosine schedule and clipping, the three
types of SAE and one with accumulated gradients, in f64 and in f32. Both sides read the same files, which are made below
`target/parity/`; the PyTorch side (`peer/objectives.py` on TransformerLens) computes as the reference `e2e_sae` does.

    python3 -m venv target/venv-tlens
    target/venv-tlens/bin/pip install -r scripts/peer/requirements.txt
    cargo build --release -p sae-cli
    target/venv-tlens/bin/python scripts/parity.py

Prints the comparison and writes it to `docs/parity.md`. Exit code 1 with a message, and no page, where a bound is
broken or something failed. Python 3.11 or later; nothing is downloaded.

Legend: B sequences, T context length, D model width, F features, V vocabulary.
"""

import argparse
import json
import logging
import shutil
import subprocess
import sys
import textwrap
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import torch
from fixtures import ROOT, seeded
from fixtures import Sae as RoughSae
from peer import page
from peer.models import Sizes, hooked, random_model
from peer.objectives import Loss, Options, Sae, Trainer
from safetensors.torch import load_file
from torch import Tensor
from transformers.utils.logging import disable_progress_bar

FOLDER = ROOT / "target/parity"
PAGE = ROOT / "docs/parity.md"
SITE = "blocks.2.hook_resid_pre"
DOWNSTREAM = ("blocks.3.hook_resid_pre", "blocks.3.hook_resid_post")
SIZES = Sizes("gpt2", layers=4, d_model=32, heads=4, vocab=211, context=24)
EXPANSION = 4
STEPS, EFFECTIVE_BATCH, WARMUP_STEPS, EVALUATION_ROWS = 50, 8, 10, 64
LR, MIN_LR_FACTOR = 1e-3, 0.1

DTYPES = {"f64": torch.float64, "f32": torch.float32}
# Relative: of the loss and its terms at every step, and of the norm of the final weights. What is left out is reported.
TERM_BOUNDS = {"f64": 1e-9, "f32": 1e-4}
WEIGHT_BOUNDS = {"f64": 1e-7}

SETTING = textwrap.fill(
    f"""\
Both read the same files and take {STEPS} steps of Adam on {EFFECTIVE_BATCH} windows of {SIZES.context} tokens, which
the case `accumulated` gets in two batches. The model is a random GPT-2 ({SIZES.layers} layers, D = {SIZES.d_model},
V = {SIZES.vocab}) with TransformerLens' processing of its weights; the SAE has F = {EXPANSION * SIZES.d_model} features
at `{SITE}`. The learning rate rises to {LR} over {WARMUP_STEPS} steps and falls along a cosine; gradients are clipped
on a part of the steps.""",
    119,
)

TERMS = ("loss", "sparsity", "local", "downstream", "kl")


@dataclass(frozen=True)
class Case:
    """One training; `max_grad_norm` clips a part of the steps."""

    name: str
    loss: Loss
    max_grad_norm: float
    batch: int = EFFECTIVE_BATCH


E2E_DS = Loss(sparsity=0.5, kl=0.5, downstream=2.5, downstream_sites=DOWNSTREAM)
CASES = (
    Case("local", Loss(sparsity=0.8, local=1.0), max_grad_norm=0.8),
    Case("e2e", Loss(sparsity=0.3, local=0.0, kl=1.0), max_grad_norm=2.0),  # 0: tracked
    Case("e2e+ds", E2E_DS, max_grad_norm=3.0),
    Case("e2e+ds, accumulated", E2E_DS, max_grad_norm=3.0, batch=EFFECTIVE_BATCH // 2),
)


@dataclass(frozen=True)
class Run:
    """What a training leaves: a line a step, the weights by the names of `state.safetensors`, and what made it."""

    lines: list[dict[str, float]]
    weights: dict[str, Tensor]
    made_with: str = ""


class Failed(Exception):
    """Ends the script with a message."""


# ---- What both sides read -------------------------------------------------------------------------------------------


def write_inputs() -> None:
    """The model, the windows and the SAE to start from, all in f32 or whole numbers."""
    shutil.rmtree(FOLDER, ignore_errors=True)
    FOLDER.mkdir(parents=True)
    random_model(SIZES, seeded(1), scale=0.85).save_pretrained(FOLDER / "model")
    rows = STEPS * EFFECTIVE_BATCH + EVALUATION_ROWS
    windows = torch.randint(SIZES.vocab, (rows, SIZES.context), generator=seeded(2)).tolist()
    for name, part in (("train", windows[:-EVALUATION_ROWS]), ("validation", windows[-EVALUATION_ROWS:])):
        pq.write_table(pa.table({"input_ids": pa.array(part, pa.list_(pa.int32()))}), FOLDER / f"{name}.parquet")
    rough = RoughSae.random(seeded(3), EXPANSION * SIZES.d_model, SIZES.d_model)
    state = {
        "encoder.0.weight": rough.w_enc, "encoder.0.bias": rough.b_enc,
        "decoder.weight": rough.w_dec.T.contiguous(), "decoder.bias": rough.b_dec,
    }  # fmt: skip
    prefix = SITE.replace(".", "-")
    torch.save({f"{prefix}.{name}": value.detach().float() for name, value in state.items()}, FOLDER / "initial.pt")


def run_toml(case: Case, precision: str) -> str:
    here, loss = FOLDER.relative_to(ROOT).as_posix(), case.loss
    tables = {
        "model": {"path": f"{here}/model", "processing": "transformer_lens"},
        "data": {
            "train": f"{here}/train.parquet", "column": "input_ids", "context_length": SIZES.context,
            "shuffle_buffer": 1,
        },
        "sae": {"sites": [SITE], "expansion": EXPANSION, "pretrained": [f"{here}/initial.pt"], "retrain": True},
        "loss.sparsity": {"coeff": loss.sparsity},
        "loss.local": {"coeff": loss.local},
        "loss.kl": {"coeff": loss.kl},
        "loss.downstream": {"total_coeff": loss.downstream, "sites": loss.downstream_sites},
        "train": {
            "n_samples": STEPS * EFFECTIVE_BATCH, "batch_size": case.batch, "effective_batch_size": EFFECTIVE_BATCH,
            "lr": LR, "max_grad_norm": case.max_grad_norm, "precision": precision,
        },
        "train.schedule": {
            "kind": "cosine", "warmup_samples": WARMUP_STEPS * EFFECTIVE_BATCH, "min_lr_factor": MIN_LR_FACTOR,
        },
        "eval": {"data": f"{here}/validation.parquet", "n_samples": EVALUATION_ROWS, "alive_tokens": 1000},
        "log": {"every_n_steps": 1, "checkpoint_every_n_steps": STEPS},
    }  # fmt: skip
    lines = []
    for name, table in tables.items():
        if None not in table.values():
            # Numbers, strings, truth values and lists are written alike in JSON and TOML.
            lines += [f"[{name}]", *(f"{key} = {json.dumps(value)}" for key, value in table.items()), ""]
    return "\n".join(lines)


# ---- The two sides --------------------------------------------------------------------------------------------------


def initial_state(dtype: torch.dtype) -> dict[str, Tensor]:
    state = torch.load(FOLDER / "initial.pt", weights_only=True)
    return {name.partition(".")[2]: value.to(dtype) for name, value in state.items()}


def by_our_names(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {
        "w_enc": state["encoder.0.weight"], "b_enc": state["encoder.0.bias"],
        "w_dec": state["decoder.weight"].T, "b_dec": state["decoder.bias"],
    }  # fmt: skip


def train_in_pytorch(case: Case, precision: str) -> Run:
    dtype = DTYPES[precision]
    sae = Sae(SIZES.d_model, EXPANSION * SIZES.d_model).to(dtype)
    sae.load_state_dict(initial_state(dtype))
    options = Options(LR, case.max_grad_norm, STEPS, WARMUP_STEPS, MIN_LR_FACTOR)
    trainer = Trainer(hooked(FOLDER / "model", dtype), SITE, sae, case.loss, options)
    windows = torch.tensor(pq.read_table(FOLDER / "train.parquet")["input_ids"].to_pylist())
    lines = []
    for rows in windows.split(EFFECTIVE_BATCH):
        step = trainer.step(rows.split(case.batch))
        lines.append({"loss": step.loss, **step.terms, "l0": step.l0, "grad_norm": step.grad_norm, "lr": step.lr})
    return Run(lines, by_our_names(sae.state_dict()))


def train_in_rust(case: Case, precision: str, binary: Path) -> Run:
    folder = FOLDER / "runs" / f"{CASES.index(case)}_{precision}"
    folder.parent.mkdir(exist_ok=True)
    config = folder.with_suffix(".toml")
    config.write_text(run_toml(case, precision))
    command = [binary, "train", config.relative_to(ROOT), "--out", folder.relative_to(ROOT), "--quiet"]
    done = subprocess.run([*command, "--device", "cpu"], cwd=ROOT, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise Failed(f"{case.name} in {precision}: sae train ended with {done.returncode}:\n{done.stderr}")
    found = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    found = [line for line in found if "evaluation" not in line]
    if [line["step"] for line in found] != list(range(1, STEPS + 1)):
        raise Failed(f"{case.name} in {precision}: metrics.jsonl has not one line for each of {STEPS} steps")
    stored = load_file(folder / f"checkpoints/step_{STEPS}/state.safetensors")
    versions = json.loads((folder / "summary.json").read_text())["versions"]
    return Run(
        found, {name: stored[f"{SITE}.{name}"] for name in ("w_enc", "b_enc", "w_dec", "b_dec")},
        made_with="`sae` {sae} built at {commit}, libtorch {libtorch}, {device}".format(**versions),
    )  # fmt: skip


# ---- The comparison -------------------------------------------------------------------------------------------------


def compare(run: Run, peer: Run) -> dict[str, float]:
    """The largest relative difference of each quantity over the steps, and those of the weights at the end.

    `path` is the difference of the weights over the distance from where the peer's training started to its end.
    """
    differences = {}
    for name in peer.lines[0]:
        if any(name not in line for line in run.lines):
            raise Failed(f"metrics.jsonl has no {name}")
        ours, theirs = (torch.tensor([line[name] for line in side.lines], dtype=torch.float64) for side in (run, peer))
        # Where both are 0, as the first learning rate is, the difference is 0. A maximum passes NaN on.
        differences[name] = ((ours - theirs).abs() / theirs.abs().clamp(min=1e-300)).max().item()
    ours, theirs, start = (
        torch.cat([weights[name].double().flatten() for name in peer.weights])
        for weights in (run.weights, peer.weights, by_our_names(initial_state(torch.float64)))
    )
    distance = (ours - theirs).norm()
    differences["weights"] = (distance / theirs.norm()).item()
    differences["path"] = (distance / (theirs - start).norm()).item()
    return differences


def broken_bounds(case: Case, precision: str, differences: Mapping[str, float]) -> list[str]:
    bounds = dict.fromkeys(TERMS, TERM_BOUNDS[precision])
    if precision in WEIGHT_BOUNDS:
        bounds["weights"] = WEIGHT_BOUNDS[precision]
    return [
        f"{case.name} in {precision}, {page.QUANTITIES[name]}: {differences[name]:.1e}, the bound is {bound:.0e}"
        for name, bound in bounds.items()
        if name in differences and not differences[name] <= bound  # NaN breaks it too.
    ]


def clipped_steps(case: Case, run: Run) -> int:
    count = sum(line["grad_norm"] > case.max_grad_norm for line in run.lines)
    if not 0 < count < STEPS:
        raise Failed(f"{case.name}: {count} of {STEPS} steps are clipped, which does not test clipping")
    return count


def main() -> None:
    parser = argparse.ArgumentParser(description="Compares sae train with PyTorch, and writes docs/parity.md.")
    parser.add_argument("--sae", type=Path, default=ROOT / "target/release/sae", help="the binary to test")
    binary = parser.parse_args().sae.resolve()
    if not binary.is_file():
        raise Failed(f"there is no {binary}: cargo build --release -p sae-cli")
    torch.set_num_threads(1)
    disable_progress_bar()
    logging.getLogger().setLevel(logging.ERROR)
    write_inputs()
    lines: dict[str, list[dict[str, float]]] = {}
    clipped: dict[str, int] = {}
    found: dict[str, dict[str, dict[str, float]]] = {"f64": {}, "f32": {}, "rounding": {}}
    broken, made_with = [], ""
    for case in CASES:
        peers = {precision: train_in_pytorch(case, precision) for precision in DTYPES}
        lines[case.name], clipped[case.name] = peers["f64"].lines, clipped_steps(case, peers["f64"])
        found["rounding"][case.name] = compare(peers["f32"], peers["f64"])
        for precision, peer in peers.items():
            run = train_in_rust(case, precision, binary)
            made_with = run.made_with
            found[precision][case.name] = compare(run, peer)
            broken += broken_bounds(case, precision, found[precision][case.name])
    text = page.text(
        ROOT, PAGE, setting=SETTING, ours=made_with, trained=page.training_table(lines, clipped),
        differences={name: page.difference_table(cases) for name, cases in found.items()},
        bounds={
            "f64": f"loss and terms {TERM_BOUNDS['f64']:.0e}, weights {WEIGHT_BOUNDS['f64']:.0e}",
            "f32": f"loss and terms {TERM_BOUNDS['f32']:.0e}",
        },
    )  # fmt: skip
    print(text)
    if broken:
        raise Failed("bounds are broken, and the page is not written:\n" + "\n".join(broken))
    PAGE.write_text(text)


if __name__ == "__main__":
    try:
        main()
    except Failed as failed:
        sys.exit(f"parity.py: {failed}")
