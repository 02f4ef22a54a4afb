"""A second peer for training speed: how fast plain PyTorch is made with care. What it takes and prints is in `bench.py`.

The clean pass without gradients, `local` up to the SAE; the spliced pass from the SAE on only; KL in chunks of tokens,
whose gradient is computed in the forward pass, the vocabulary padded; SDPA attention; `torch.compile` of the clean pass,
of the spliced pass and of a chunk; fused Adam. `precision`: bf16 has the frozen blocks and the SAE's products in bf16, what the KL needs in
TF32. GPT-2 alone, random weights.

Legend: B sequences, T context length, N tokens, D model width, F features, V vocabulary.
"""

import math
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from bench import SAMPLED_TOKENS, Settings, main, thresholds
from torch import Tensor, nn

CHUNK_LOGITS = 1 << 26  # 1024 tokens of GPT-2's vocabulary.
COEFFICIENTS = {
    "local": {"sparsity": 4.0, "local": 1.0},
    "e2e": {"sparsity": 1.5, "kl": 1.0},
    "e2e+ds": {"sparsity": 1.5, "kl": 0.5, "downstream": 2.5},
}


class Block(nn.Module):
    """A block of GPT-2; its norms have no parameters, as processing leaves them."""

    def __init__(self, d: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.qkv, self.out = nn.Linear(d, 3 * d), nn.Linear(d, d)
        self.up, self.down = nn.Linear(d, 4 * d), nn.Linear(4 * d, d)

    def forward(self, x: Tensor) -> Tensor:
        b, t, d = x.shape
        qkv = self.qkv(F.layer_norm(x, (d,))).view(b, t, 3, self.heads, d // self.heads)
        q, k, v = qkv.permute(2, 0, 3, 1, 4)
        mixed = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        x = x + self.out(mixed.transpose(1, 2).reshape(b, t, d))
        return x + self.down(F.gelu(self.up(F.layer_norm(x, (d,))), approximate="tanh"))


class Model(nn.Module):
    """GPT-2 with random weights."""

    def __init__(self, settings: Settings, dtype: torch.dtype) -> None:
        super().__init__()
        d = settings.d_model
        self.tokens = nn.Embedding(settings.vocab, d)
        self.positions = nn.Embedding(settings.context, d)
        self.blocks = nn.ModuleList(Block(d, settings.heads) for _ in range(settings.layers))
        for name, parameter in self.named_parameters():
            std = 0.02 / math.sqrt(2 * settings.layers) if name.endswith(("out.weight", "down.weight")) else 0.02
            nn.init.zeros_(parameter) if name.endswith("bias") else nn.init.normal_(parameter, std=std)
        self.blocks.to(dtype)
        self.dtype = dtype
        self.requires_grad_(False)

    def embed(self, tokens: Tensor) -> Tensor:
        positions = torch.arange(tokens.shape[1], device=tokens.device)
        return (self.tokens(tokens) + self.positions(positions)).to(self.dtype)

    def hidden(self, x: Tensor) -> Tensor:
        return F.layer_norm(x.float(), x.shape[-1:]).flatten(0, 1)


class Sae(nn.Module):
    """`w_enc, w_dec: [F, D]`, rows of the decoder normalised in the forward pass."""

    def __init__(self, d: int, features: int) -> None:
        super().__init__()
        bound = 1 / math.sqrt(d)
        self.w_enc = nn.Parameter(torch.empty(features, d).uniform_(-bound, bound))
        self.b_enc = nn.Parameter(torch.empty(features).uniform_(-bound, bound))
        self.w_dec = nn.Parameter(nn.init.orthogonal_(torch.empty(features, d)))
        self.b_dec = nn.Parameter(torch.zeros(d))

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        lower = x.dtype
        c = F.relu(F.linear(x, self.w_enc.to(lower), self.b_enc.to(lower)))
        elements = F.normalize(self.w_dec, dim=1).to(lower)
        return F.linear(c, elements.T, self.b_dec.to(lower)), c


def kl_chunk(original: Tensor, spliced: Tensor, unembedding: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
    """The sum of KL over tokens [n, D], and its gradient with respect to `spliced`."""
    log_p = F.log_softmax(torch.addmm(mask, original, unembedding.T), dim=-1)
    log_q = F.log_softmax(torch.addmm(mask, spliced, unembedding.T), dim=-1)
    p = log_p.exp()
    return (p * (log_p - log_q)).sum(), (log_q.exp() - p) @ unembedding


class Best:
    """The peer."""

    def __init__(self, settings: Settings, batches: list[Tensor]) -> None:
        if settings.family != "gpt2":
            raise ValueError(f"the family is gpt2, not {settings.family}")
        self.settings, self.loss = settings, COEFFICIENTS[settings.type]
        dtype = torch.bfloat16 if settings.precision == "bf16" else torch.float32
        self.model = Model(settings, dtype).to(settings.device)
        self.sae = Sae(settings.d_model, settings.features).to(settings.device)
        self.optimizer = torch.optim.Adam(self.sae.parameters(), lr=settings.lr, fused=True)
        compiled: Callable[[Any], Any] = torch.compile if settings.on_gpu else lambda function: function
        self.clean, self.spliced, self.kl_chunk = compiled(self._clean), compiled(self._spliced), compiled(kl_chunk)
        # Products whose rows begin at odd addresses are several times slower: words are added that no softmax sees.
        words = -(-settings.vocab // 64) * 64
        self.unembedding = F.pad(self.model.tokens.weight, (0, 0, 0, words - settings.vocab))
        self.mask = torch.zeros(words, device=settings.device)
        self.mask[settings.vocab :] = -1e9
        if settings.active is not None:
            rows = -(-SAMPLED_TOKENS // settings.context)
            parts = torch.cat(batches)[:rows].split(settings.batch)
            with torch.no_grad():
                x = torch.cat([self._clean(part)[0][0].flatten(0, 1).float() for part in parts])
                self.sae.b_enc.copy_(thresholds(x, self.sae.w_enc, settings.active))

    def _clean(self, tokens: Tensor) -> tuple[list[Tensor], Tensor]:
        """The residual stream before the SAE's block and the later ones [B, T, D], and the final hidden state [N, D]."""
        x, residuals = self.model.embed(tokens), []
        for index, block in enumerate(self.model.blocks):
            if index >= self.settings.layer:
                residuals.append(x)
                if self.settings.type == "local":
                    return residuals, x
            x = block(x)
        return residuals, self.model.hidden(x)

    def _spliced(self, residuals: list[Tensor]) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """The loss but for KL, c, x_hat, and the final hidden state."""
        start = residuals[0]
        x_hat, c = self.sae(start)
        loss = self.loss["sparsity"] * c.float().sum() / start.numel()
        if "local" in self.loss:
            loss = loss + self.loss["local"] * F.mse_loss(x_hat.float(), start.float())
            return loss, c, x_hat, x_hat
        x = x_hat
        later = residuals[1:]
        for index, block in enumerate(self.model.blocks[self.settings.layer :]):
            if "downstream" in self.loss and index > 0:
                error = F.mse_loss(x.float(), later[index - 1].float())
                loss = loss + self.loss["downstream"] / len(later) * error
            x = block(x)
        return loss, c, x_hat, self.model.hidden(x)

    def step(self, tokens: Tensor) -> None:
        self.take(tokens)

    def l0(self, tokens: Tensor) -> float:
        return self.take(tokens).count_nonzero().item() / tokens.numel()

    def take(self, tokens: Tensor) -> Tensor:
        """One step; the features [B, T, F]."""
        with torch.no_grad():
            residuals, original = self.clean(tokens)
        loss, c, _, hidden = self.spliced(residuals)
        if "kl" in self.loss:
            gradient = self.kl_gradient(original, hidden.detach())
            torch.autograd.backward([loss, hidden], [None, gradient])
        else:
            loss.backward()
        nn.utils.clip_grad_norm_(self.sae.parameters(), 10.0)
        self.optimizer.step()
        self.optimizer.zero_grad()
        return c.detach()

    @torch.no_grad()
    def kl_gradient(self, original: Tensor, spliced: Tensor) -> Tensor:
        chunk = 1 << (CHUNK_LOGITS // self.settings.vocab).bit_length() - 1
        gradients = []
        total = torch.zeros((), device=original.device)
        for p, q in zip(original.split(chunk), spliced.split(chunk), strict=True):
            value, gradient = self.kl_chunk(p, q, self.unembedding, self.mask)
            total += value
            gradients.append(gradient)
        self.kl = total / original.shape[0]
        return torch.cat(gradients) * (self.loss["kl"] / original.shape[0])


if __name__ == "__main__":
    main(__doc__.splitlines()[0], Best, ["torch"])
