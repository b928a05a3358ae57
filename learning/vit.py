"""A small vision transformer as a list of units; see cost_tables.vit for its numbers."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class Patches(nn.Module):
    """Images to tokens: one linear map of each patch, and a learned position added."""

    def __init__(self, channels: int, tokens: int, patch: int, dim: int, dropout: float) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, dim, patch, patch)
        self.positions = nn.Parameter(torch.empty(1, tokens, dim))
        self.dropout = nn.Dropout(dropout)
        nn.init.trunc_normal_(self.positions, std=0.02)

    def forward(self, x: Tensor) -> Tensor:
        """x: (batch, channels, height, breadth); returns (batch, tokens, dim)."""
        tokens: Tensor = self.dropout(self.conv(x).flatten(2).transpose(1, 2) + self.positions)
        return tokens


class Encoder(nn.Module):
    """x += attention(norm(x)); x += mlp(norm(x)). Dropout after both, none in the attention itself."""

    def __init__(self, dim: int, heads: int, hidden: int, dropout: float) -> None:
        super().__init__()
        self.heads = heads
        self.norm1, self.norm2 = nn.LayerNorm(dim), nn.LayerNorm(dim)
        self.qkv, self.out = nn.Linear(dim, 3 * dim), nn.Linear(dim, dim)
        self.mlp = nn.Sequential(nn.Linear(dim, hidden), nn.GELU(), nn.Linear(hidden, dim))
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor) -> Tensor:
        """x: (batch, tokens, dim)."""
        batch, tokens, dim = x.shape
        q, k, v = self.qkv(self.norm1(x)).view(batch, tokens, 3, self.heads, dim // self.heads).permute(2, 0, 3, 1, 4)
        seen = nn.functional.scaled_dot_product_attention(q, k, v).transpose(1, 2).reshape(batch, tokens, dim)
        x = x + self.dropout(self.out(seen))
        added: Tensor = x + self.dropout(self.mlp(self.norm2(x)))
        return added


class Mean(nn.Module):
    """The mean of the tokens."""

    def forward(self, x: Tensor) -> Tensor:
        """x: (batch, tokens, dim)."""
        return x.mean(1)


def vit(
    input_shape: tuple[int, ...],
    classes: int,
    *,
    patch: int,
    dim: int,
    depth: int,
    heads: int,
    mlp_ratio: float,
    dropout: float,
) -> nn.Sequential:
    """See cost_tables.vit."""
    channels, height, breadth = input_shape
    tokens = (height // patch) * (breadth // patch)
    blocks = [Encoder(dim, heads, round(dim * mlp_ratio), dropout) for _ in range(depth)]
    head = nn.Sequential(nn.LayerNorm(dim), Mean(), nn.Linear(dim, classes))
    return nn.Sequential(Patches(channels, tokens, patch, dim, dropout), *blocks, head)
