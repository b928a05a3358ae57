"""A language model of one's own, trained on bytes: the source of Python's argparse."""

import argparse
from pathlib import Path

import numpy as np
from torch import nn


def data(sequence=32, test=128):
    """Bytes, and for each of them the next one. The last sequences are for testing."""
    text = np.frombuffer(Path(argparse.__file__).read_bytes(), np.uint8).astype(np.int64)
    count = (len(text) - 1) // sequence
    x, y = (text[start : start + count * sequence].reshape(count, sequence) for start in (0, 1))
    return x[:-test], y[:-test], x[-test:], y[-test:]


class Language(nn.Module):
    """A small decoder: each place sees those before it."""

    def __init__(self, input_shape, classes, dim=32, depth=2, dropout=0.1):
        super().__init__()
        self.tokens, self.places = nn.Embedding(classes, dim), nn.Embedding(*input_shape, dim)
        options = {"batch_first": True, "norm_first": True}
        self.blocks = nn.ModuleList(
            nn.TransformerEncoderLayer(dim, 4, 4 * dim, dropout, **options) for _ in range(depth)
        )
        self.head = nn.Linear(dim, classes)

    def forward(self, tokens):
        """tokens: (batch, length), int64; returns (batch, length, classes)."""
        mask = nn.Transformer.generate_square_subsequent_mask(tokens.shape[1], device=tokens.device)
        x = self.tokens(tokens) + self.places.weight
        for block in self.blocks:
            x = block(x, src_mask=mask, is_causal=True)
        return self.head(x)
