"""Published architectures by name: their arguments, their sizes, and which inputs they take. Loads no torch.

What they cost is not written here: works.cost_of builds the torch module on the meta device, and torch's own counter
counts. Each function below checks an input and returns nothing. Its keyword-only arguments are those that a scenario
may give.
"""

from __future__ import annotations

from functools import partial

from .model_arguments import Shape, image, sequence
from .recipe import TIMING_ONLY


def resnet(
    input_shape: Shape,
    classes: int,
    *,
    blocks: tuple[int, ...] = (3, 4, 6, 3),  # in each stage
    bottleneck: bool = True,  # blocks of 1x1, 3x3 and 1x1 convolutions; otherwise of two 3x3
    groups: int = 1,  # of the 3x3 convolution, with bottleneck
    group_width: int = 64,  # its channels in a group of the first stage
) -> None:
    """Residual networks for large images (He et al., CVPR 2016, arXiv 1512.03385, table 1) and ResNeXt (Xie et al.,
    CVPR 2017, arXiv 1611.05431, table 1). The stride is in the 3x3 convolution ("v1.5"), as in torchvision."""
    image(input_shape, "resnet")
    if not bottleneck and (groups, group_width) != (1, 64):
        raise ValueError("model resnet: groups and group_width need bottleneck: true")


def vgg(
    input_shape: Shape,
    classes: int,
    *,
    convolutions: tuple[int, ...] = (2, 2, 3, 3, 3),  # in each stage
    batch_norm: bool = False,
    dropout: float = 0.5,  # of the first two classifier layers
) -> None:
    """VGG (Simonyan and Zisserman, ICLR 2015, arXiv 1409.1556, table 1)."""
    _, height, breadth = image(input_shape, "vgg")
    if len(convolutions) != 5:
        raise ValueError(f"model vgg: convolutions is {list(convolutions)}; write a number for each of the 5 stages")
    if min(height, breadth) < 32:
        raise ValueError(f"model vgg halves the image 5 times; {height}x{breadth} is too small")


def efficientnet(input_shape: Shape, classes: int, *, dropout: float = 0.2) -> None:
    """EfficientNet-B0 (Tan and Le, ICML 2019, arXiv 1905.11946, table 1), without stochastic depth."""
    image(input_shape, "efficientnet")


def bert(
    input_shape: Shape,
    classes: int,
    *,
    dim: int = 768,
    depth: int = 12,
    heads: int = 12,
    mlp_ratio: float = 4.0,
    vocabulary: int = 30522,
    positions: int = 512,  # the most tokens in a sequence
    predictions: int = 0,  # masked tokens of an example that a language-model head predicts; 0: there is no such head
    dropout: float = 0.1,  # none in the attention itself
) -> None:
    """BERT with its pooler (Devlin et al., NAACL 2019, arXiv 1810.04805)."""
    _fits("bert", input_shape, classes, dim, depth, heads, vocabulary, positions)
    if predictions > input_shape[0]:
        raise ValueError(
            f"model bert: predictions {predictions} are more than the {input_shape[0]} tokens of an example"
        )


def gpt(
    input_shape: Shape,
    classes: int,
    *,
    dim: int = 768,
    depth: int = 12,
    heads: int = 12,
    mlp_ratio: float = 4.0,
    vocabulary: int = 50257,
    positions: int = 1024,  # the most tokens in a sequence
    tied: bool = True,  # whether the output layer's weights are those of the embedding
    dropout: float = 0.0,  # none in the attention itself
) -> None:
    """GPT-2 (Radford et al., 2019); GPT-3 is the same with other sizes (Brown et al., arXiv 2005.14165, table 2.1)."""
    _fits("gpt", input_shape, classes, dim, depth, heads, vocabulary, positions)


def llama(
    input_shape: Shape,
    classes: int,
    *,
    dim: int = 4096,
    depth: int = 32,
    heads: int = 32,
    kv_heads: int = 32,  # of keys and values
    mlp_dim: int = 11008,  # width of the hidden layer
    vocabulary: int = 32000,
    tied: bool = False,  # whether the output layer's weights are those of the embedding
) -> None:
    """Llama: pre-norm with RMSNorm, rotary positions, SwiGLU, grouped queries (Touvron et al., arXiv 2302.13971 and
    2307.09288; Llama 3: Grattafiori et al., arXiv 2407.21783)."""
    _fits("llama", input_shape, classes, dim, depth, heads, vocabulary)
    if heads % kv_heads:
        raise ValueError(f"model llama: heads {heads} must be a multiple of kv_heads {kv_heads}")
    if dim // heads % 2:
        raise ValueError(f"model llama: rotary positions need an even number of channels in a head, not {dim // heads}")


def _fits(
    model: str,
    input_shape: Shape,
    classes: int,
    dim: int,
    depth: int,
    heads: int,
    vocabulary: int,
    positions: int | None = None,
) -> None:
    """ValueError where the model cannot take such tokens."""
    tokens = sequence(input_shape, model)
    if depth > DEEPEST:
        raise ValueError(f"model {model}: depth is {depth}; write up to {DEEPEST}: its blocks are counted one by one")
    if dim % heads:
        raise ValueError(f"model {model}: dim {dim} must be a multiple of heads {heads}")
    if classes > vocabulary:
        raise ValueError(f"model {model}: vocabulary is {vocabulary}, and the data's tokens need {classes}")
    if positions is not None and tokens > positions:
        raise ValueError(
            f"model {model} takes up to {positions} tokens, and the data's examples have {tokens}; "
            f"write data: {{name: tokens, sequence: {positions}}}, or positions: {tokens} for another model"
        )


DEEPEST = 1000  # blocks
LANGUAGE = (bert, gpt, llama)
NAMES: dict[str, partial[None]] = {
    "resnet18": partial(resnet, blocks=(2, 2, 2, 2), bottleneck=False),
    "resnet34": partial(resnet, bottleneck=False),
    "resnet50": partial(resnet),
    "resnet101": partial(resnet, blocks=(3, 4, 23, 3)),
    "resnet152": partial(resnet, blocks=(3, 8, 36, 3)),
    "resnext50": partial(resnet, groups=32, group_width=4),
    "resnext101": partial(resnet, blocks=(3, 4, 23, 3), groups=32, group_width=8),
    "vgg11": partial(vgg, convolutions=(1, 1, 2, 2, 2)),
    "vgg16": partial(vgg),
    "vgg19": partial(vgg, convolutions=(2, 2, 4, 4, 4)),
    "efficientnet-b0": partial(efficientnet),
    "bert-base": partial(bert),
    "bert-large": partial(bert, dim=1024, depth=24, heads=16),
    "gpt": partial(gpt),
    "gpt2": partial(gpt),
    "gpt2-medium": partial(gpt, dim=1024, depth=24, heads=16),
    "gpt2-large": partial(gpt, dim=1280, depth=36, heads=20),
    "gpt2-xl": partial(gpt, dim=1600, depth=48, heads=25),
    "llama2-7b": partial(llama),
    "llama2-13b": partial(llama, dim=5120, depth=40, heads=40, kv_heads=40, mlp_dim=13824),
    "llama2-70b": partial(llama, dim=8192, depth=80, heads=64, kv_heads=8, mlp_dim=28672),
    "llama3-8b": partial(llama, kv_heads=8, mlp_dim=14336, vocabulary=128256),
    "llama3-70b": partial(llama, dim=8192, depth=80, heads=64, kv_heads=8, mlp_dim=28672, vocabulary=128256),
}


def family(name: str) -> str:
    """The architecture that a name is a size of: the name of its function here and of its factory."""
    return NAMES[name].func.__name__


def check_trainable(name: str) -> None:
    """ValueError where a model of that name cannot be trained."""
    if name == "sized":
        raise ValueError(f"model sized is for timing-only runs: it has no layers; {TIMING_ONLY}")
    if name in NAMES and NAMES[name].func is bert:
        raise ValueError(f"model {name} is for timing-only runs, since no data has masked words; {TIMING_ONLY}")


def takes_tokens(name: str) -> bool:
    """Whether a model of that name takes tokens instead of numbers."""
    return name in NAMES and NAMES[name].func in LANGUAGE
