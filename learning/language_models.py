"""BERT, GPT and Llama as lists of units: an embedding, blocks, a head; see architectures for sizes and sources.

A tied output layer has the embedding's own parameter, which is counted with the embedding.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from .model_arguments import Shape


class Embedding(nn.Module):
    """Tokens to vectors, each with a learned vector of its place, or without one where positions is 0.

    segments: as many more learned vectors, of which all tokens take the first. norm: whether a LayerNorm follows.
    """

    def __init__(
        self, vocabulary: int, positions: int, dim: int, dropout: float = 0.0, segments: int = 0, norm: bool = False
    ) -> None:
        super().__init__()
        self.tokens = nn.Embedding(vocabulary, dim)
        self.positions = nn.Embedding(positions, dim) if positions else None
        self.segments = nn.Embedding(segments, dim) if segments else None
        self.norm = nn.LayerNorm(dim, eps=1e-12) if norm else None
        self.dropout = nn.Dropout(dropout)
        for module in self.modules():
            if isinstance(module, nn.Embedding):
                nn.init.normal_(module.weight, std=0.02)

    def forward(self, x: Tensor) -> Tensor:
        """x: (batch, tokens), whole numbers; returns (batch, tokens, dim)."""
        out: Tensor = self.tokens(x)
        if self.positions is not None:
            out = out + self.positions.weight[: x.shape[1]]
        if self.segments is not None:
            out = out + self.segments.weight[0]
        found: Tensor = self.dropout(out if self.norm is None else self.norm(out))
        return found


class Attention(nn.Module):
    """Self-attention with learned projections and biases. causal: a token sees those before it alone."""

    def __init__(self, dim: int, heads: int, causal: bool) -> None:
        super().__init__()
        self.heads, self.causal = heads, causal
        self.qkv, self.out = nn.Linear(dim, 3 * dim), nn.Linear(dim, dim)

    def forward(self, x: Tensor) -> Tensor:
        """x: (batch, tokens, dim)."""
        batch, tokens, dim = x.shape
        q, k, v = self.qkv(x).view(batch, tokens, 3, self.heads, dim // self.heads).permute(2, 0, 3, 1, 4)
        seen = nn.functional.scaled_dot_product_attention(q, k, v, is_causal=self.causal)
        found: Tensor = self.out(seen.transpose(1, 2).reshape(batch, tokens, dim))
        return found


class Encoder(nn.Module):
    """A transformer block of attention and an MLP with GELU.

    first: whether a LayerNorm comes before each of both, as in GPT-2, or after each sum, as in BERT.
    """

    def __init__(self, dim: int, heads: int, hidden: int, dropout: float, first: bool, eps: float) -> None:
        super().__init__()
        self.first = first
        self.norm1, self.norm2 = nn.LayerNorm(dim, eps=eps), nn.LayerNorm(dim, eps=eps)
        self.attention = Attention(dim, heads, causal=first)
        activation = nn.GELU(approximate="tanh") if first else nn.GELU()
        self.mlp = nn.Sequential(nn.Linear(dim, hidden), activation, nn.Linear(hidden, dim))
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor) -> Tensor:
        """x: (batch, tokens, dim)."""
        if self.first:
            x = x + self.dropout(self.attention(self.norm1(x)))
            return x + self.dropout(self.mlp(self.norm2(x)))  # type: ignore[no-any-return]
        x = self.norm1(x + self.dropout(self.attention(x)))
        return self.norm2(x + self.dropout(self.mlp(x)))  # type: ignore[no-any-return]


class Pooler(nn.Module):
    """A layer on each example's first token."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.dense = nn.Linear(dim, dim)

    def forward(self, x: Tensor) -> Tensor:
        """x: (batch, tokens, dim); returns (batch, dim)."""
        return torch.tanh(self.dense(x[:, 0]))


class MaskedHead(nn.Module):
    """BERT's heads in pre-training: the pooler with its two classes, and the words at `predictions` places.

    The places are the first ones, since only their number matters for what it costs.
    """

    def __init__(self, embedding: nn.Embedding, dim: int, predictions: int) -> None:
        super().__init__()
        self.predictions = predictions
        self.pooler, self.classes = Pooler(dim), nn.Linear(dim, 2)
        self.dense, self.norm = nn.Linear(dim, dim), nn.LayerNorm(dim, eps=1e-12)
        self.weight = embedding.weight
        self.bias = nn.Parameter(torch.zeros(len(embedding.weight)))

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """x: (batch, tokens, dim); returns (batch, predictions, vocabulary) and (batch, 2)."""
        words = self.norm(nn.functional.gelu(self.dense(x[:, : self.predictions])))
        return nn.functional.linear(words, self.weight, self.bias), self.classes(self.pooler(x))


class Output(nn.Module):
    """A norm, and a linear layer to the vocabulary, whose weights may be those of the embedding."""

    def __init__(self, norm: nn.Module, embedding: nn.Embedding, tied: bool) -> None:
        super().__init__()
        self.norm = norm
        vocabulary, dim = embedding.weight.shape
        self.linear = nn.Linear(dim, vocabulary, bias=False)
        if tied:
            self.linear.weight = embedding.weight

    def forward(self, x: Tensor) -> Tensor:
        """x: (batch, tokens, dim); returns (batch, tokens, vocabulary)."""
        found: Tensor = self.linear(self.norm(x))
        return found


class LlamaBlock(nn.Module):
    """x += attention(norm(x)); x += mlp(norm(x)), without biases. Several query heads share keys and values."""

    def __init__(self, dim: int, heads: int, kv_heads: int, hidden: int) -> None:
        super().__init__()
        self.heads, self.kv_heads, self.size = heads, kv_heads, dim // heads
        self.norm1, self.norm2 = nn.RMSNorm(dim, eps=1e-5), nn.RMSNorm(dim, eps=1e-5)
        self.q, self.out = nn.Linear(dim, dim, bias=False), nn.Linear(dim, dim, bias=False)
        self.k, self.v = (nn.Linear(dim, kv_heads * self.size, bias=False) for _ in range(2))
        self.gate, self.up = (nn.Linear(dim, hidden, bias=False) for _ in range(2))
        self.down = nn.Linear(hidden, dim, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """x: (batch, tokens, dim)."""
        x = x + self._attention(self.norm1(x))
        y = self.norm2(x)
        found: Tensor = x + self.down(nn.functional.silu(self.gate(y)) * self.up(y))
        return found

    def _attention(self, x: Tensor) -> Tensor:
        batch, tokens, dim = x.shape
        turns = rotations(tokens, self.size, x.device)
        q = rotated(self.q(x).view(batch, tokens, self.heads, self.size), turns).transpose(1, 2)
        k = rotated(self.k(x).view(batch, tokens, self.kv_heads, self.size), turns).transpose(1, 2)
        v = self.v(x).view(batch, tokens, self.kv_heads, self.size).transpose(1, 2)
        if self.kv_heads < self.heads:
            k, v = (each.repeat_interleave(self.heads // self.kv_heads, 1) for each in (k, v))
        seen = nn.functional.scaled_dot_product_attention(q, k, v, is_causal=True)
        found: Tensor = self.out(seen.transpose(1, 2).reshape(batch, tokens, dim))
        return found


def rotations(tokens: int, size: int, device: torch.device, base: float = 10_000.0) -> Tensor:
    """Complex turns (tokens, 1, size / 2): channel pair i of token t turns by t / base^(2i / size).

    Source: Su et al., RoFormer, arXiv 2104.09864, section 3.2.
    """
    rates = base ** (-torch.arange(0, size, 2, device=device, dtype=torch.float32) / size)
    angles = torch.outer(torch.arange(tokens, device=device, dtype=torch.float32), rates)
    return torch.polar(torch.ones_like(angles), angles)[:, None]


def rotated(x: Tensor, turns: Tensor) -> Tensor:
    """x: (batch, tokens, heads, size), with each pair of channels turned."""
    pairs = torch.view_as_complex(x.view(*x.shape[:-1], -1, 2))
    return torch.view_as_real(pairs * turns).flatten(-2)


def bert(
    input_shape: Shape,
    classes: int,
    *,
    dim: int,
    depth: int,
    heads: int,
    mlp_ratio: float,
    vocabulary: int,
    positions: int,
    predictions: int,
    dropout: float,
) -> nn.Sequential:
    """See architectures.bert."""
    first = Embedding(vocabulary, positions, dim, dropout, segments=2, norm=True)
    blocks = [Encoder(dim, heads, round(dim * mlp_ratio), dropout, first=False, eps=1e-12) for _ in range(depth)]
    head = MaskedHead(first.tokens, dim, predictions) if predictions else Pooler(dim)
    return nn.Sequential(first, *blocks, head)


def gpt(
    input_shape: Shape,
    classes: int,
    *,
    dim: int,
    depth: int,
    heads: int,
    mlp_ratio: float,
    vocabulary: int,
    positions: int,
    tied: bool,
    dropout: float,
) -> nn.Sequential:
    """See architectures.gpt."""
    first = Embedding(vocabulary, positions, dim, dropout)
    blocks = [Encoder(dim, heads, round(dim * mlp_ratio), dropout, first=True, eps=1e-5) for _ in range(depth)]
    return nn.Sequential(first, *blocks, Output(nn.LayerNorm(dim), first.tokens, tied))


def llama(
    input_shape: Shape,
    classes: int,
    *,
    dim: int,
    depth: int,
    heads: int,
    kv_heads: int,
    mlp_dim: int,
    vocabulary: int,
    tied: bool,
) -> nn.Sequential:
    """See architectures.llama."""
    first = Embedding(vocabulary, 0, dim)
    blocks = [LlamaBlock(dim, heads, kv_heads, mlp_dim) for _ in range(depth)]
    return nn.Sequential(first, *blocks, Output(nn.RMSNorm(dim, eps=1e-5), first.tokens, tied))
