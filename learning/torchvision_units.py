"""torchvision's models as lists of units, which share their parameters: its models themselves are not nn.Sequential.

Rule: the units are those of torchvision_tables, and one after the other they are the model's own forward pass. Other
models of torchvision are cut as a user's is (cutting).
"""

from __future__ import annotations

from collections.abc import Callable
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


def _vision_transformer(model: Any) -> list[nn.Module]:
    return [Embedding(model), *model.encoder.layers, nn.Sequential(model.encoder.ln, ClassToken(), model.heads)]


def _resnet(model: Any) -> list[nn.Module]:
    stem = nn.Sequential(model.conv1, model.bn1, model.relu, model.maxpool)
    layers = (model.layer1, model.layer2, model.layer3, model.layer4)
    head = nn.Sequential(model.avgpool, nn.Flatten(), model.fc)
    return [stem, *(block for layer in layers for block in layer), head]


# By module and class. A class of one's own may have the same parts and another forward pass.
SPLITS: dict[tuple[str, str], Callable[[Any], list[nn.Module]]] = {
    ("torchvision.models.vision_transformer", "VisionTransformer"): _vision_transformer,
    ("torchvision.models.resnet", "ResNet"): _resnet,
}


def split(model: nn.Module) -> list[nn.Module] | None:
    """The units of torchvision's VisionTransformer or ResNet; None of any other model."""
    found = SPLITS.get((type(model).__module__, type(model).__qualname__))
    return None if found is None or "forward" in vars(model) else found(model)
