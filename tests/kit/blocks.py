"""Models of repeated blocks as torchvision, Hugging Face and users write them. Named by import path.

Each takes digits, as images or as 64 numbers, and has dropout where its model has.
"""

from __future__ import annotations

from collections import OrderedDict, UserDict
from dataclasses import dataclass

import torch
from torch import nn
from torch.nn import functional

DIM, DEPTH = 16, 3


class Encoder(nn.Module):
    """torchvision's block of a VisionTransformer."""

    def __init__(self) -> None:
        super().__init__()
        self.ln_1, self.ln_2 = nn.LayerNorm(DIM), nn.LayerNorm(DIM)
        self.self_attention = nn.MultiheadAttention(DIM, 2, dropout=0.1, batch_first=True)
        self.mlp = nn.Sequential(nn.Linear(DIM, 2 * DIM), nn.GELU(), nn.Dropout(0.1), nn.Linear(2 * DIM, DIM))

    def forward(self, x):
        y = self.ln_1(x)
        x = x + self.self_attention(y, y, y, need_weights=False)[0]
        return x + self.mlp(self.ln_2(x))


class ViT(nn.Module):
    """Its list is an nn.Sequential of named members; positions and class token are parameters of the model itself."""

    def __init__(self, classes: int) -> None:
        super().__init__()
        self.conv_proj, self.class_token = nn.Conv2d(1, DIM, 4, 4), nn.Parameter(torch.zeros(1, 1, DIM))
        self.pos_embedding = nn.Parameter(torch.randn(1, 5, DIM) * 0.02)
        self.layers = nn.Sequential(OrderedDict((f"encoder_layer_{i}", Encoder()) for i in range(DEPTH)))
        self.ln = nn.LayerNorm(DIM)
        self.heads = nn.Sequential(OrderedDict(head=nn.Linear(DIM, classes)))

    def forward(self, x):
        x = self.conv_proj(x.view(-1, 1, 8, 8)).flatten(2).permute(0, 2, 1)
        x = torch.cat([self.class_token.expand(len(x), -1, -1), x], 1) + self.pos_embedding
        return self.heads(self.ln(self.layers(x))[:, 0])


class Layer(nn.Module):
    """A Hugging Face layer: other arguments by name, a tuple as its answer."""

    def __init__(self) -> None:
        super().__init__()
        self.norm, self.qkv, self.out = nn.LayerNorm(DIM), nn.Linear(DIM, 3 * DIM), nn.Linear(DIM, DIM)
        self.drop = nn.Dropout(0.1)

    def forward(self, hidden, past=None, attention_mask=None, position_embeddings=None):
        q, k, v = self.qkv(self.norm(hidden)).chunk(3, -1)
        if position_embeddings is not None:
            q, k = q * position_embeddings[0], k * position_embeddings[1]
        weights = (q @ k.transpose(1, 2) / 4 + attention_mask).softmax(-1)
        return hidden + self.drop(self.out(weights @ v)), weights


class GPT(nn.Module):
    """The mask is made before the loop and passed to each layer. tied: the output layer has the embedding's weights."""

    def __init__(self, classes: int, tied: bool = False) -> None:
        super().__init__()
        modules = {"wte": nn.Embedding(17, DIM), "wpe": nn.Embedding(64, DIM), "drop": nn.Dropout(0.1)}
        self.transformer = nn.ModuleDict(modules | {"h": nn.ModuleList(Layer() for _ in range(DEPTH))})
        self.ln_f, self.lm_head, self.classes = nn.LayerNorm(DIM), nn.Linear(DIM, 17, bias=False), classes
        if tied:
            self.lm_head.weight = self.transformer["wte"].weight

    def forward(self, x):
        ids = x.view(len(x), -1).long()
        hidden = self.transformer["wte"](ids) + self.transformer["wpe"](torch.arange(64, device=x.device))
        hidden = self.transformer["drop"](hidden)
        mask, every = torch.full((64, 64), -1e9, device=x.device).triu(1), ()
        for layer in self.transformer["h"]:
            every += (hidden,)
            hidden = layer(hidden, past=None, attention_mask=mask)[0]
        return self.lm_head(self.ln_f(hidden)).mean(1)[:, : self.classes]


class Llama(nn.Module):
    """Positions and a bias are learned, made before the loop and passed to each layer, as T5's are."""

    def __init__(self, classes: int) -> None:
        super().__init__()
        self.embed, self.bias = nn.Linear(8, DIM), nn.Parameter(torch.randn(8, 8) * 0.1)
        self.scale, self.layers = nn.Parameter(torch.ones(DIM)), nn.ModuleList(Layer() for _ in range(DEPTH))
        self.norm, self.head = nn.RMSNorm(DIM), nn.Linear(DIM, classes)

    def forward(self, x):
        angles = torch.arange(8, device=x.device)[:, None] * torch.linspace(0.1, 1, DIM, device=x.device)
        positions, bias = (angles.cos() * self.scale, angles.sin() * self.scale), self.bias * 2
        hidden = self.embed(x.view(-1, 8, 8))
        for layer in self.layers:
            hidden = layer(hidden, position_embeddings=positions, attention_mask=bias)[0]
        return self.head(self.norm(hidden).mean(1))


class Conv(nn.Module):
    def __init__(self, before: int, out: int) -> None:
        super().__init__()
        self.conv, self.norm = nn.Conv2d(before, out, 3, padding=1), nn.BatchNorm2d(out)

    def forward(self, x):
        return functional.relu_(self.norm(self.conv(x)))


class UNet(nn.Module):
    """What goes down is kept and joined again on the way up, past the blocks between."""

    def __init__(self, classes: int) -> None:
        super().__init__()
        self.downs, self.middle = nn.ModuleList([Conv(1, 4), Conv(4, 8)]), Conv(8, 16)
        self.ups, self.head = nn.ModuleList([Conv(24, 8), Conv(12, 4)]), nn.Conv2d(4, classes, 1)

    def forward(self, x):
        x, kept = x.view(-1, 1, 8, 8), []
        for down in self.downs:
            x = down(x)
            kept.append(x)
            x = functional.max_pool2d(x, 2)
        x = self.middle(x)
        for up in self.ups:
            x = up(torch.cat([functional.interpolate(x, scale_factor=2.0), kept.pop()], 1))
        return self.head(x).mean((2, 3))


class Basic(nn.Module):
    def __init__(self, size: int, out: int) -> None:
        super().__init__()
        self.conv, self.norm = nn.Conv2d(size, out, 3, out // size, 1), nn.BatchNorm2d(out)
        self.downsample = nn.Sequential(nn.Conv2d(size, out, 1, 2), nn.BatchNorm2d(out)) if out > size else None

    def forward(self, x):
        y = self.norm(self.conv(x))
        y += x if self.downsample is None else self.downsample(x)
        return functional.relu_(y)


class ResNet(nn.Module):
    """Lists in a list."""

    def __init__(self, classes: int) -> None:
        super().__init__()
        self.stem, self.fc = nn.Conv2d(1, 4, 3, 1, 1), nn.Linear(8, classes)
        stages = [[Basic(4, 4), Basic(4, 4)], [Basic(4, 8), Basic(8, 8)]]
        self.stages = nn.ModuleList(nn.ModuleList(stage) for stage in stages)

    def forward(self, x):
        x = functional.relu_(self.stem(x.view(-1, 1, 8, 8)))
        for stage in self.stages:
            for block in stage:
                x = block(x)
        return self.fc(x.mean((2, 3)))


class Residual(nn.Module):
    """Norms are frozen, blocks begin in place and the sum is outside of them; one layer is never used, one empty."""

    def __init__(self, classes: int) -> None:
        super().__init__()
        self.first, self.head = nn.Linear(64, DIM), nn.Linear(DIM, classes)
        blocks = [nn.Sequential(nn.ReLU(inplace=True), nn.Linear(DIM, DIM)) for _ in range(DEPTH)]
        self.blocks, self.norms = nn.ModuleList(blocks), nn.ModuleList(nn.LayerNorm(DIM) for _ in range(DEPTH))
        self.unused, self.empty = nn.Linear(3, 3), nn.Parameter(torch.zeros(0))
        self.norms.requires_grad_(False)

    def forward(self, x):
        x = self.first(x.view(-1, 64))
        for block, norm in zip(self.blocks, self.norms, strict=True):
            x = x + block(norm(x))
        return self.head(x)


@dataclass
class Outputs:
    logits: torch.Tensor


class Deep(nn.Module):
    """Equal linear blocks. how: what is unusual in the way they are called, or in what they give."""

    def __init__(self, classes: int, how: str = "", width: int = DIM, depth: int = DEPTH) -> None:
        super().__init__()
        self.first, self.head, self.how = nn.Linear(64, width), nn.Linear(width, classes), how
        self.blocks = nn.ModuleList(nn.Linear(width, width) for _ in range(depth))

    def forward(self, x):
        x, blocks = x.view(-1, 64), list(self.blocks)
        dark = self.how in ("skipping", "turning", "failing") and bool(x[0].mean() < 0.32)
        x = self.first(x)
        if self.how == "twice":
            blocks *= 2
        elif dark:
            blocks = blocks[::2] if self.how == "skipping" else blocks[::-1]
        for block in blocks:
            x = block(x.detach() if self.how == "detached" else x).relu()
            if dark and self.how == "failing":
                raise RuntimeError("no luck")
        x = self.head(x)
        return {"object": Outputs(x), "mapping": UserDict(logits=x), "number": x.detach()}.get(self.how, x)


KINDS = {"vit": ViT, "gpt": GPT, "llama": Llama, "unet": UNet, "resnet": ResNet, "residual": Residual, "deep": Deep}


def make(input_shape, classes, kind, **options):
    return KINDS[kind](classes, **options)
