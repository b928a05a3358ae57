"""torchvision's models as lists of units, which share their parameters: its models themselves are not nn.Sequential.

Rule: the units are those of torchvision_tables, and one after the other they are the model's own forward pass. Other
models of torchvision are cut as a user's is (cutting).
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn


class Embedding(nn.Module):
    """A VisionTransformer up to its encoder's layers: patches, class token, positions, dropout."""

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.conv_proj, self.class_token = model.conv_proj, model.class_token
        self.pos_embedding, self.dropout = model.encoder.pos_embedding, model.encoder.dropout
        self._process = model._process_input

    def forward(self, x: Tensor) -> Tensor:
        """x: (batch, 3, height, breadth); returns (batch, tokens + 1, dim)."""
        tokens = self._process(x)
        tokens = torch.cat([self.class_token.expand(len(tokens), -1, -1), tokens], dim=1)
        out: Tensor = self.dropout(tokens + self.pos_embedding)
        return out


class ClassToken(nn.Module):
    """The first token of each example."""

    def forward(self, x: Tensor) -> Tensor:
        """x: (batch, tokens, dim)."""
        return x[:, 0]


def split(model: nn.Module) -> list[nn.Module] | None:
    """The units of a VisionTransformer or a ResNet, known by their parts; None of any other model."""
    found: Any = model
    if all(hasattr(model, part) for part in ("conv_proj", "class_token", "encoder", "heads", "_process_input")):
        return [Embedding(model), *found.encoder.layers, nn.Sequential(found.encoder.ln, ClassToken(), found.heads)]
    stem, layers = ("conv1", "bn1", "relu", "maxpool"), ("layer1", "layer2", "layer3", "layer4")
    if all(hasattr(model, part) for part in (*stem, *layers, "avgpool", "fc")):
        blocks = [block for layer in layers for block in getattr(model, layer)]
        head = nn.Sequential(found.avgpool, nn.Flatten(), found.fc)
        return [nn.Sequential(*(getattr(model, part) for part in stem)), *blocks, head]
    return None
