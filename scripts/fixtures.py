"""Writes the golden arrays that the crates' numerical tests compare against.

The Rust code is pinned to PyTorch and transformers: this script computes every quantity the way those libraries
do, straight from the formulas of arXiv 2405.12241 and its reference implementation `e2e_sae`, and stores inputs and
results as safetensors. All models are small and randomly initialised; nothing is downloaded when it runs.

    python3 -m venv target/venv-fixtures
    target/venv-fixtures/bin/pip install -r scripts/requirements-fixtures.txt
    target/venv-fixtures/bin/python scripts/fixtures.py

Versions: Python 3.11 or later; torch 2.11.0, transformers 5.23.0, tokenizers 0.23.3, safetensors 0.8.0, numpy 2.4.6.
Those actually used stand as JSON in the metadata entry `versions` of every safetensors file.

Every file has a random generator of its own with a fixed seed, so a change to one leaves the others as they are. On
one machine the output is the same byte for byte; another processor may differ in the last bits of the results.

Written, all below `crates/`:

    sae-model/tests/fixtures/gpt2/      a GPT-2 (f32), a tokeniser, and the activations of a forward pass
    sae-nn/tests/fixtures/              one SAE: forward pass, losses and gradients (f64)
    sae-splice/tests/fixtures/          SAEs spliced into that GPT-2: losses, gradients and metrics (f64)
    sae-train/tests/fixtures/           Adam, AdamW and gradient clipping (f64)

Legend: B sequences, T context length, N = B·T tokens, D model width, F features, V vocabulary.
"""

import contextlib
import importlib.metadata
import json
import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import torch
import torch.nn.functional as F
from safetensors import safe_open
from safetensors.torch import save_file
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from torch import Generator, Tensor, nn
from transformers import GPT2Config, GPT2LMHeadModel
from transformers.utils.logging import disable_progress_bar

ROOT = Path(__file__).resolve().parent.parent
GPT2_DIR = ROOT / "crates/sae-model/tests/fixtures/gpt2"
SAE_FILE = ROOT / "crates/sae-nn/tests/fixtures/sae.safetensors"
SPLICED_FILE = ROOT / "crates/sae-splice/tests/fixtures/spliced.safetensors"
OPTIM_FILE = ROOT / "crates/sae-train/tests/fixtures/optim.safetensors"

LIBRARIES = ("torch", "transformers", "tokenizers", "safetensors", "numpy")
END_OF_TEXT = "<|endoftext|>"
VOCAB_SIZE = 300

# Few and plain lines: they leave just enough repeated pairs for the 43 merges beside the 256 bytes.
TOKENIZER_LINES = [
    "The quick brown fox jumps over the lazy dog, and the dog does not mind.",
    "A sparse autoencoder explains an activation as a sum of a few dictionary elements.",
    "What matters is not how well the activation is rebuilt, but what the model then does with it.",
    'fn main() { let features: Vec<f32> = encode(&activation); println!("{features:?}"); }',
    "Accents and signs stay bytes: café, naïve, 3 × 5 = 15, λ → 0.",
]


# ---- Files ----------------------------------------------------------------------------------------------------------


def versions() -> str:
    return json.dumps({name: importlib.metadata.version(name) for name in LIBRARIES})


def report(path: Path, note: str) -> None:
    print(f"{path.relative_to(ROOT)}: {path.stat().st_size / 1000:.1f} kB, {note}")


def save(path: Path, tensors: Mapping[str, Tensor], metadata: Mapping[str, str] | None = None) -> None:
    """Stores tensors by name, detached and contiguous, with the versions that made them."""
    path.parent.mkdir(parents=True, exist_ok=True)
    stored = {name: tensor.detach().contiguous().clone() for name, tensor in tensors.items()}
    bad = [name for name, tensor in stored.items() if not torch.isfinite(tensor).all()]
    assert not bad, f"not finite in {path.name}: {bad}"
    save_file(stored, path, metadata={**(metadata or {}), "versions": versions()})
    sort_metadata(path)
    report(path, f"{len(stored)} tensors")


def sort_metadata(path: Path) -> None:
    """Puts the metadata entries in order: the library writes them from a hash map, in another order at every run."""
    content = path.read_bytes()
    size = int.from_bytes(content[:8], "little")
    header = json.loads(content[8 : 8 + size])
    header["__metadata__"] = dict(sorted(header["__metadata__"].items()))
    text = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
    text += b" " * (-len(text) % 8)  # The format aligns the data that follows.
    path.write_bytes(len(text).to_bytes(8, "little") + text + content[8 + size :])


def seeded(seed: int) -> Generator:
    return Generator().manual_seed(seed)


def randn(gen: Generator, *shape: int, scale: float = 1.0) -> Tensor:
    """Normal numbers [*shape], f64."""
    return scale * torch.randn(*shape, generator=gen, dtype=torch.float64)


# ---- The sparse autoencoder and its losses --------------------------------------------------------------------------


@dataclass(frozen=True)
class Sae:
    """The four parameters of an SAE; `w_dec` has a row a feature and is normalised only inside the forward pass."""

    w_enc: Tensor  # [F, D]
    b_enc: Tensor  # [F]
    w_dec: Tensor  # [F, D]
    b_dec: Tensor  # [D]

    @classmethod
    def random(cls, gen: Generator, features: int, dim: int) -> Self:
        """An SAE that reconstructs its input roughly, so that no metric sits at an extreme.

        Features come in opposite pairs, of which one is active: without the noise their sum is the projection of the
        input on the directions. Decoder rows get unequal lengths, which only an implementation that normalises them
        survives.
        """
        half = torch.empty(features // 2, dim, dtype=torch.float64)
        half = F.normalize(torch.nn.init.orthogonal_(half, generator=gen), dim=1)
        directions = torch.cat([half, -half])
        lengths = 0.5 + torch.rand(features, 1, generator=gen, dtype=torch.float64)
        noise = 0.2 / dim**0.5
        return cls(
            w_enc=(min(1, 2 * dim / features) * directions + randn(gen, features, dim, scale=noise)).requires_grad_(),
            b_enc=randn(gen, features, scale=0.1).requires_grad_(),
            w_dec=(lengths * (directions + randn(gen, features, dim, scale=noise))).requires_grad_(),
            b_dec=randn(gen, dim, scale=0.1).requires_grad_(),
        )

    def named(self, prefix: str = "") -> dict[str, Tensor]:
        return {prefix + name: tensor for name, tensor in vars(self).items()}

    def __call__(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Feature activations `c [..., F]` and the reconstruction `x_hat [..., D]` of `x [..., D]`."""
        c = F.relu(F.linear(x, self.w_enc, self.b_enc))
        return c, c @ F.normalize(self.w_dec, dim=1, eps=1e-12) + self.b_dec


def sparsity_loss(c: Tensor, dim: int, p: float = 1.0) -> Tensor:
    return torch.linalg.vector_norm(c, ord=p, dim=-1).mean() / dim


def kl_loss(original: Tensor, spliced: Tensor) -> Tensor:
    """KL(original ‖ spliced) of two sets of logits [..., V], in nats a token."""
    log_p, log_q = (F.log_softmax(logits.flatten(0, -2), dim=-1) for logits in (original, spliced))
    return F.kl_div(log_q, log_p, log_target=True, reduction="batchmean")


def gradients(loss: Tensor, parameters: Mapping[str, Tensor], prefix: str = "grad_") -> dict[str, Tensor]:
    """The gradient of `loss` by each parameter, named after it; the graph stays for further calls."""
    grads = torch.autograd.grad(loss, list(parameters.values()), retain_graph=True)
    return {prefix + name: grad for name, grad in zip(parameters, grads, strict=True)}


def write_sae() -> None:
    gen = seeded(1)
    tokens, features, dim, vocab = 10, 24, 6, 11
    sae = Sae.random(gen, features, dim)
    # The SAE's input needs a gradient here: in a model with several SAEs a later one passes it on to the earlier.
    # `local` does not detach its target, so `x` receives gradient from both sides of it.
    x = randn(gen, tokens, dim).requires_grad_()
    x_orig = x.detach() + randn(gen, tokens, dim, scale=0.5)

    c, x_hat = sae(x)
    losses = {
        "loss_sparsity_p1": sparsity_loss(c, dim),
        "loss_sparsity_p05": sparsity_loss(c, dim, p=0.5),
        "loss_local": F.mse_loss(x_hat, x),
        "loss_output": F.mse_loss(x_hat, x_orig),
    }
    total = 0.7 * losses["loss_sparsity_p1"] + 1.3 * losses["loss_local"] + 0.4 * losses["loss_output"]

    h_orig, w_u = randn(gen, tokens, dim), randn(gen, vocab, dim)
    h_spliced = (h_orig + randn(gen, tokens, dim, scale=0.5)).requires_grad_()
    kl = kl_loss(h_orig @ w_u.T, h_spliced @ w_u.T)

    save(SAE_FILE, {
        **sae.named(), "x": x, "x_orig": x_orig, "c": c, "x_hat": x_hat,
        **losses, **gradients(total, {**sae.named(), "x": x}),
        "h_orig": h_orig, "h_spliced": h_spliced, "w_u": w_u,
        "kl": kl, **gradients(0.5 * kl, {"h_spliced": h_spliced}),
    })  # fmt: skip


# ---- The language model ---------------------------------------------------------------------------------------------


def train_tokenizer() -> Tokenizer:
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.post_processor = processors.ByteLevel(trim_offsets=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCAB_SIZE,
        special_tokens=[END_OF_TEXT],
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    tokenizer.train_from_iterator(TOKENIZER_LINES, trainer)
    assert tokenizer.get_vocab_size() == VOCAB_SIZE
    assert all(tokenizer.decode(tokenizer.encode(line).ids) == line for line in TOKENIZER_LINES)
    return tokenizer


def random_gpt2(gen: Generator, end_of_text: int) -> GPT2LMHeadModel:
    """A frozen GPT-2 whose every parameter matters.

    The library's own initialisation leaves biases at 0 and LayerNorm weights at 1, where a forgotten or swapped one
    goes unnoticed.
    """
    config = GPT2Config(
        n_layer=3, n_head=4, n_embd=32, n_positions=24, vocab_size=VOCAB_SIZE, activation_function="gelu_new",
        bos_token_id=end_of_text, eos_token_id=end_of_text, attn_implementation="eager",
    )  # fmt: skip
    model = GPT2LMHeadModel(config).eval().requires_grad_(False)
    for name, parameter in model.named_parameters():
        if name.endswith(".bias"):
            value = randn(gen, *parameter.shape, scale=0.1)
        elif ".ln_" in name:
            value = 1 + randn(gen, *parameter.shape, scale=0.2)
        else:
            value = randn(gen, *parameter.shape, scale=0.2)
        parameter.copy_(value)
    return model


@dataclass(frozen=True)
class Pass:
    """What a forward pass leaves behind."""

    sites: dict[str, Tensor]  # [B, T, width] each, by TransformerLens' names (but for mlp.hook_in)
    final_hidden: Tensor  # [B, T, D], after the last LayerNorm
    logits: Tensor  # [B, T, V]


@contextlib.contextmanager
def recording(model: GPT2LMHeadModel, replace: Mapping[str, Callable[[Tensor], Tensor]]) -> Iterator[dict[str, Tensor]]:
    """Collects the activation at every site while open; `replace` exchanges residual streams before a block.

    At a replaced site the activation that arrives there is recorded, not the one that goes on, as the reference does.
    """
    seen: dict[str, Tensor] = {}

    def on_input(name: str) -> Callable[..., tuple[Tensor, ...]]:
        def hook(_module: object, args: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
            seen[name] = args[0]
            return (replace[name](args[0]) if name in replace else args[0], *args[1:])

        return hook

    def on_output(name: str) -> Callable[..., None]:
        def hook(_module: object, _args: object, output: Tensor | tuple[Tensor, ...]) -> None:
            seen[name] = output[0] if isinstance(output, tuple) else output

        return hook

    def on_norm(name: str) -> Callable[..., None]:
        def hook(norm: nn.LayerNorm, _args: object, output: Tensor) -> None:
            seen[name] = (output - norm.bias) / norm.weight

        return hook

    handles = [model.transformer.ln_f.register_forward_hook(on_output("final_hidden"))]
    for i, block in enumerate(model.transformer.h):
        handles += [
            block.register_forward_pre_hook(on_input(f"blocks.{i}.hook_resid_pre")),
            block.attn.register_forward_hook(on_output(f"blocks.{i}.hook_attn_out")),
            block.ln_2.register_forward_pre_hook(on_input(f"blocks.{i}.hook_resid_mid")),
            block.mlp.register_forward_hook(on_output(f"blocks.{i}.hook_mlp_out")),
            block.register_forward_hook(on_output(f"blocks.{i}.hook_resid_post")),
            block.attn.c_proj.register_forward_pre_hook(on_input(f"blocks.{i}.attn.hook_z")),
            block.ln_2.register_forward_hook(on_norm(f"blocks.{i}.ln2.hook_normalized")),
            block.mlp.register_forward_pre_hook(on_input(f"blocks.{i}.mlp.hook_in")),
            block.mlp.c_proj.register_forward_pre_hook(on_input(f"blocks.{i}.mlp.hook_post")),
        ]
    try:
        yield seen
    finally:
        for handle in handles:
            handle.remove()


def run(
    model: GPT2LMHeadModel, tokens: Tensor, replace: Mapping[str, Callable[[Tensor], Tensor]] | None = None
) -> Pass:
    with recording(model, replace or {}) as seen:
        logits = model(tokens, use_cache=False).logits
    final_hidden = seen.pop("final_hidden")
    return Pass(seen, final_hidden, logits)


def half_predictable_tokens(gen: Generator, model: GPT2LMHeadModel, batch: int, length: int) -> Tensor:
    """Tokens [B, T] of which about half are the model's own first choice.

    On random ones a random model's accuracy is 0, which any wrong alignment of logits and targets gives too.
    """
    tokens = torch.randint(VOCAB_SIZE, (batch, length), generator=gen)
    follow = torch.rand(batch, length, generator=gen) < 0.5
    for t in range(1, length):
        choice = model(tokens[:, :t], use_cache=False).logits[:, -1].argmax(-1)
        tokens[:, t] = torch.where(follow[:, t], choice, tokens[:, t])
    return tokens


def check_residual_stream(model: GPT2LMHeadModel, sites: Mapping[str, Tensor]) -> None:
    """The hooks caught what TransformerLens' names mean: each block adds its attention, then its MLP."""
    for i in range(model.config.n_layer):
        pre, attn, mid, mlp, post = (
            sites[f"blocks.{i}.hook_{site}"] for site in ("resid_pre", "attn_out", "resid_mid", "mlp_out", "resid_post")
        )
        torch.testing.assert_close(mid, pre + attn)
        torch.testing.assert_close(post, mid + mlp)


def save_pretrained(model: GPT2LMHeadModel, folder: Path) -> None:
    """The library's own `config.json` and `model.safetensors`, nothing else, the latter with our versions added."""
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as temporary:
        model.save_pretrained(temporary)
        shutil.copy(Path(temporary, "config.json"), folder)
        with safe_open(Path(temporary, "model.safetensors"), "pt") as file:
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (not a mapping)
            metadata = file.metadata()
    report(folder / "config.json", "GPT-2")
    save(folder / "model.safetensors", tensors, metadata)


def write_gpt2() -> tuple[GPT2LMHeadModel, Tensor]:
    """Writes the model and what it computes; returns it with the tokens, for the splice."""
    gen = seeded(2)
    GPT2_DIR.mkdir(parents=True, exist_ok=True)
    tokenizer = train_tokenizer()
    tokenizer.save(str(GPT2_DIR / "tokenizer.json"))
    report(GPT2_DIR / "tokenizer.json", f"{tokenizer.get_vocab_size()} entries")

    model = random_gpt2(gen, tokenizer.token_to_id(END_OF_TEXT))
    save_pretrained(model, GPT2_DIR)
    tokens = half_predictable_tokens(gen, model, batch=2, length=17)
    clean = run(model, tokens)
    check_residual_stream(model, clean.sites)
    save(GPT2_DIR / "expected.safetensors", {
        "tokens": tokens, **clean.sites, "final_hidden": clean.final_hidden, "logits": clean.logits,
    })  # fmt: skip
    return model, tokens


# ---- SAEs spliced into the language model ---------------------------------------------------------------------------

SITE = "blocks.1.hook_resid_pre"
SECOND_SITE = "blocks.2.hook_resid_pre"
DOWNSTREAM = ("blocks.2.hook_resid_pre", "blocks.2.hook_resid_post")
COEFFICIENTS = {"sparsity": 0.3, "kl": 0.5, "downstream": 2.5, "local": 0.2, "output": 0.1}


@dataclass(frozen=True)
class Spliced:
    """A pass with SAEs in, and the loss terms at unit coefficient."""

    output: Pass
    c: dict[str, Tensor]  # [B, T, F] by site
    x_hat: dict[str, Tensor]  # [B, T, D] by site
    losses: dict[str, Tensor]

    @property
    def total(self) -> Tensor:
        return torch.stack([weight * self.losses[name] for name, weight in COEFFICIENTS.items()]).sum()

    def named_losses(self, prefix: str = "") -> dict[str, Tensor]:
        return {f"{prefix}loss_{name}": value for name, value in self.losses.items()}


def splice(model: GPT2LMHeadModel, tokens: Tensor, clean: Pass, saes: Mapping[str, Sae]) -> Spliced:
    """Runs the model with each SAE's reconstruction in the place of its site's activation.

    A later SAE sees the spliced activation, with its gradient; `local` compares with that, `output` with the clean one.
    """
    c: dict[str, Tensor] = {}
    x_hat: dict[str, Tensor] = {}

    def reconstruct(site: str) -> Callable[[Tensor], Tensor]:
        def replace(x: Tensor) -> Tensor:
            c[site], x_hat[site] = saes[site](x)
            return x_hat[site]

        return replace

    output = run(model, tokens, {site: reconstruct(site) for site in saes})
    downstream = [F.mse_loss(output.sites[site], clean.sites[site]) for site in DOWNSTREAM]
    losses = {
        "sparsity": sum_of(sparsity_loss(c[site], model.config.n_embd) for site in saes),
        "local": sum_of(F.mse_loss(x_hat[site], output.sites[site]) for site in saes),
        "output": sum_of(F.mse_loss(x_hat[site], clean.sites[site]) for site in saes),
        "downstream": torch.stack(downstream).mean(),
        "kl": kl_loss(clean.logits, output.logits),
    }
    return Spliced(output, c, x_hat, losses)


def sum_of(terms: Iterator[Tensor]) -> Tensor:
    return torch.stack(list(terms)).sum()


def next_token_ce(logits: Tensor, tokens: Tensor) -> Tensor:
    return F.cross_entropy(logits[:, :-1].flatten(0, 1), tokens[:, 1:].flatten())


def next_token_accuracy(logits: Tensor, tokens: Tensor) -> Tensor:
    return (logits[:, :-1].argmax(-1) == tokens[:, 1:]).double().mean()


def output_metrics(original: Tensor, spliced: Tensor, tokens: Tensor) -> dict[str, Tensor]:
    """How far the model's predictions moved; logits [B, T, V]."""
    distance = (original.softmax(-1) - spliced.softmax(-1)).abs().sum(-1) / 2
    return {
        "ce_original": next_token_ce(original, tokens),
        "ce_spliced": next_token_ce(spliced, tokens),
        "kl": kl_loss(original, spliced),
        "top1_accuracy_original": next_token_accuracy(original, tokens),
        "top1_accuracy_spliced": next_token_accuracy(spliced, tokens),
        "top1_agreement": (original.argmax(-1) == spliced.argmax(-1)).double().mean(),
        "statistical_distance": distance.mean(),
    }


def explained_variance_per_token(prediction: Tensor, target: Tensor) -> Tensor:
    """The reference's: each token's squared error over its squared distance from the mean of all tokens; [N, D]."""
    error = (prediction - target).square().sum(-1)
    variance = (target - target.mean(0)).square().sum(-1)
    return (1 - error / variance).mean()


def site_metrics(x: Tensor, c: Tensor, x_hat: Tensor) -> dict[str, Tensor]:
    """How well the SAE rebuilds its input; [N, D], [N, F], [N, D]."""
    return {
        "l0": (c != 0).double().sum(-1).mean(),
        "mse": F.mse_loss(x_hat, x),
        "explained_variance": 1 - (x - x_hat).square().sum() / (x - x.mean(0)).square().sum(),
        "explained_variance_per_token": explained_variance_per_token(x_hat, x),
        # What the reference logs for `out_to_in`: it hands the input over as the prediction and the reconstruction as
        # the target, so the variance is the reconstruction's. Its `out_to_orig` is the plain one above.
        "explained_variance_per_token_out_to_in": explained_variance_per_token(x, x_hat),
        "cosine": F.cosine_similarity(x, x_hat, dim=-1).mean(),
        "l2_ratio": (x_hat.norm(dim=-1) / x.norm(dim=-1)).mean(),
    }


def ablation_metrics(model: GPT2LMHeadModel, tokens: Tensor, clean: Pass) -> dict[str, Tensor]:
    mean = clean.sites[SITE].mean(dim=(0, 1))
    zeroed = run(model, tokens, {SITE: torch.zeros_like})
    averaged = run(model, tokens, {SITE: mean.expand_as})
    return {"ce_zero": next_token_ce(zeroed.logits, tokens), "ce_mean": next_token_ce(averaged.logits, tokens)}


def write_spliced(model: GPT2LMHeadModel, tokens: Tensor) -> None:
    gen = seeded(3)
    model = model.double()
    sae, second = (Sae.random(gen, features=48, dim=model.config.n_embd) for _ in range(2))
    clean = run(model, tokens)
    one = splice(model, tokens, clean, {SITE: sae})
    two = splice(model, tokens, clean, {SITE: sae, SECOND_SITE: second})

    x, c, x_hat = clean.sites[SITE], one.c[SITE], one.x_hat[SITE]
    metrics = {
        **output_metrics(clean.logits, one.output.logits, tokens),
        **site_metrics(x.flatten(0, 1), c.flatten(0, 1), x_hat.flatten(0, 1)),
        **ablation_metrics(model, tokens, clean),
    }
    save(SPLICED_FILE, {
        "tokens": tokens, **sae.named(), "x": x, "c": c, "x_hat": x_hat,
        **{f"clean.{site}": clean.sites[site] for site in DOWNSTREAM},
        **{f"spliced.{site}": one.output.sites[site] for site in DOWNSTREAM},
        "final_hidden_clean": clean.final_hidden, "final_hidden_spliced": one.output.final_hidden,
        "logits_clean": clean.logits, "logits_spliced": one.output.logits,
        **one.named_losses(), **gradients(one.total, sae.named()),
        **{f"metric_{name}": value for name, value in metrics.items()},
        **second.named("two_"), "two_logits_spliced": two.output.logits,
        **two.named_losses("two_"),
        **gradients(two.total, sae.named(), "two_grad_first_"),
        **gradients(two.total, second.named(), "two_grad_second_"),
    })  # fmt: skip


# ---- Optimisers -----------------------------------------------------------------------------------------------------


def trajectory(optimizer: Callable[[list[Tensor]], torch.optim.Optimizer], start: Tensor, grads: Tensor) -> Tensor:
    """The parameter after each step, a row a step."""
    parameter = start.clone().requires_grad_()
    stepper = optimizer([parameter])
    rows = []
    for grad in grads:
        parameter.grad = grad.clone()
        stepper.step()
        rows.append(parameter.detach().clone())
    return torch.stack(rows)


def clip_rows(grads: Tensor, max_norm: float) -> tuple[Tensor, Tensor]:
    """The norm of each row before clipping, and the row after it, each as if it were a model's whole gradient."""
    norms, clipped = [], []
    for grad in grads:
        parameter = torch.zeros_like(grad, requires_grad=True)
        parameter.grad = grad.clone()
        norms.append(torch.nn.utils.clip_grad_norm_([parameter], max_norm))
        clipped.append(parameter.grad)
    return torch.stack(norms), torch.stack(clipped)


def write_optim() -> None:
    gen = seeded(4)
    steps, size = 12, 7
    start = randn(gen, size)
    # Norms from about 0.1 to 10, out of order, so that clipping has both cases and Adam's averages move.
    scales = torch.logspace(-1.5, 0.5, steps, dtype=torch.float64)[torch.randperm(steps, generator=gen)]
    grads = scales[:, None] * randn(gen, steps, size)
    norms, clipped = clip_rows(grads, max_norm=1.0)
    assert (norms < 1).any() and (norms > 1).any()
    save(OPTIM_FILE, {
        "p0": start, "grads": grads, "clipped_norms": norms, "clipped": clipped,
        "adam": trajectory(lambda p: torch.optim.Adam(p, lr=1e-2), start, grads),
        "adamw": trajectory(
            lambda p: torch.optim.AdamW(p, lr=1e-2, betas=(0.9, 0.95), weight_decay=0.1), start, grads
        ),
    })  # fmt: skip


def main() -> None:
    # One thread: sums are then always taken in the same order.
    torch.set_num_threads(1)
    torch.use_deterministic_algorithms(True)
    disable_progress_bar()
    model, tokens = write_gpt2()
    write_sae()
    write_spliced(model, tokens)
    write_optim()


if __name__ == "__main__":
    main()
