"""Published architectures by name: their sizes and operations as published, and what their modules compute."""

from __future__ import annotations

import re
from dataclasses import replace
from functools import cache

import pytest
import torch

from kit.learning import make, make_plan, train_in_lockstep
from kit.paths import DOCS
from paceline.algorithms.costs import ModelCost
from paceline.learning import architectures, cost_tables, data, language_models, measured_costs, models, user_code
from paceline.learning.dataset import DataShape
from paceline.learning.works import cost_of

IMAGES = DataShape((3, 224, 224), 1000, 1000, 10)
# Parameters, and 10^9 multiply-adds of a 224 x 224 image's forward pass, as torchvision's documentation of its models
# has both.
VISION = {
    "resnet18": (11_689_512, 1.81),
    "resnet34": (21_797_672, 3.66),
    "resnet50": (25_557_032, 4.09),
    "resnet101": (44_549_160, 7.80),
    "resnet152": (60_192_808, 11.51),
    "resnext50": (25_028_904, 4.23),
    "resnext101": (88_791_336, 16.41),
    "vgg11": (132_863_336, 7.61),
    "vgg16": (138_357_544, 15.47),
    "vgg19": (143_667_240, 19.63),
    "efficientnet-b0": (5_288_548, 0.39),
}
# Parameters of the published weights' files, without heads (BERT with its pooler).
LANGUAGE = {
    "bert-base": 109_482_240,
    "bert-large": 335_141_888,
    "gpt2": 124_439_808,
    "gpt2-medium": 354_823_168,
    "gpt2-large": 774_030_080,
    "gpt2-xl": 1_557_611_200,
    "llama2-7b": 6_738_415_616,
    "llama2-13b": 13_015_864_320,
    "llama2-70b": 68_976_648_192,
    "llama3-8b": 8_030_261_248,
    "llama3-70b": 70_553_706_496,
}
SMALL = {
    "resnet18": {"blocks": [1, 2]},
    "resnext50": {"blocks": [1, 1], "groups": 4, "group_width": 8},
    "bert-base": {"dim": 16, "depth": 2, "heads": 2, "vocabulary": 50, "predictions": 3},
    "gpt": {"dim": 16, "depth": 2, "heads": 2, "vocabulary": 50, "tied": False},
    "gpt2": {"dim": 16, "depth": 2, "heads": 2, "vocabulary": 50},
    "llama2-7b": {"dim": 16, "depth": 2, "heads": 4, "kv_heads": 2, "mlp_dim": 24, "vocabulary": 50},
}


def tokens(sequence: int, vocabulary: int = 256) -> DataShape:
    return data.shape_of("tokens", {"sequence": sequence, "vocabulary": vocabulary})


@cache
def image_cost(name: str) -> ModelCost:
    return cost_of(name, {}, IMAGES)


def built(name: str, input_shape: tuple[int, ...], device: str = "cpu", **args: object) -> torch.nn.Sequential:
    """A model with numbers, as only image models can be had through models.build."""
    options = cost_tables.resolve(name, args, input_shape, 10)
    torch.manual_seed(0)
    with torch.device(device):
        return models.MODELS[architectures.family(name)](input_shape, 10, **options)


def test_the_page_lists_every_model_and_its_arguments():
    _, page = (DOCS / "scenarios.md").read_text().split("### Models by name")
    rows = re.findall(r"^\| (`.*`.*?) \| (`.*) \|$", page.split("###")[0], re.M)
    words = [(re.findall(r"`([\w-]+)`", names), set(re.findall(r"`(\w+)", args))) for names, args in rows]
    listed = {name: args for names, args in words for name in names}
    known = {**cost_tables.TABLES, **architectures.NAMES}
    assert listed == {name: set(user_code.options(function, {}, "")) for name, function in known.items()}


def test_every_name_has_a_published_size():
    assert {*VISION, *LANGUAGE, "gpt"} == set(architectures.NAMES)


@pytest.mark.parametrize("name", VISION)
def test_image_models_have_their_published_sizes(name):
    found = image_cost(name)
    parameters, multiply_adds = VISION[name]
    assert found.parameters == parameters
    assert round(found.flops / 2e9, 2) == multiply_adds
    assert sum(unit.parameters for unit in found.units) == parameters


@pytest.mark.parametrize("name", ["resnet50", "resnet101", "resnet152"])
def test_resnets_cost_what_torchvisions_cost_and_one_copy(name):
    """The stem's output is copied to another order of memory."""
    found, known = image_cost(name), cost_of(f"torchvision:{name}", {}, IMAGES)
    stem, *rest = found.units
    assert [replace(stem, activations=stem.activations - 4 * 64 * 112 * 112), *rest] == list(known.units)


@pytest.mark.parametrize("name", LANGUAGE)
def test_language_models_have_their_published_sizes(name):
    found = models.on_meta(name, {}, (512,), 256)
    assert sum(p.numel() for p in found.parameters()) == LANGUAGE[name]


@pytest.mark.parametrize(("dim", "depth", "sequence"), [(12288, 96, 2048), (768, 12, 1024), (64, 3, 100)])
def test_gpts_operations_by_formula(dim, depth, sequence):
    """Narayanan et al., arXiv 2104.04473, appendix: the matrix products of a forward pass."""
    args = {"dim": dim, "depth": depth, "heads": dim // 64, "positions": sequence}
    found = cost_of("gpt", args, tokens(sequence))
    blocks = depth * (24 * sequence * dim**2 + 4 * sequence**2 * dim)
    assert found.flops == blocks + 2 * sequence * dim * 50257
    if dim == 768:  # GPT-2: the tied output's weights count once
        assert found.parameters == LANGUAGE["gpt2"]
    if dim > 10_000:  # GPT-3: the rule of 6 operations a parameter and token, 2 of them forward
        assert found.parameters / 1e9 == pytest.approx(175, rel=0.003)
        assert found.flops == pytest.approx(2 * found.parameters * sequence, rel=0.03)


def test_llamas_operations_by_formula():
    found, sequence, dim = cost_of("llama3-8b", {}, tokens(8192)), 8192, 4096
    block = 2 * sequence * (2 * dim**2 + 2 * dim * dim // 4 + 3 * dim * 14336) + 4 * sequence**2 * dim
    assert found.flops == 32 * block + 2 * sequence * dim * 128256


def test_berts_head_predicts_the_words_at_some_places():
    shape = tokens(128)
    whole, head = cost_of("bert-base", {}, shape), cost_of("bert-base", {"predictions": 20}, shape)
    assert head.parameters - whole.parameters == 768 * 768 + 768 + 2 * 768 + 30522 + 2 * 768 + 2
    assert head.flops - whole.flops == 2 * 20 * 768 * (768 + 30522) + 2 * 768 * 2
    assert whole.parameters == LANGUAGE["bert-base"]
    assert len(whole.units) == 12 + 2


@pytest.mark.parametrize("name", SMALL)
def test_the_meta_device_finds_what_a_forward_pass_on_the_cpu_finds(name):
    is_language = architectures.takes_tokens(name)
    shape = (12,) if is_language else (3, 40, 40)
    own = built(name, shape, **SMALL[name])
    data_shape = DataShape(shape, 10, 100, 10, kinds="int64" if is_language else "float32")
    measured = measured_costs.measured_cost(own, data_shape, list(own))
    assert measured == cost_of(name, SMALL[name], data_shape)
    assert measured.flops > 0
    assert measured.activations > 0


@pytest.mark.parametrize(("model", "shape"), [("mlp", (64,)), ("resnet20", (3, 32, 32)), ("vit", (3, 32, 32))])
def test_the_meta_device_finds_what_the_tables_say(model, shape):
    table = cost_tables.total(cost_tables.cost(model, {}, shape, 10))
    assert (
        measured_costs.measured_cost(models.build(model, {}, shape, 10, seed=0).to("meta"), DataShape(shape, 10, 9, 9))
        == table
    )


@pytest.mark.parametrize(("name", "causal"), [("gpt", True), ("llama2-7b", True), ("bert-base", False)])
def test_a_token_is_seen_by_those_after_it_alone_where_a_model_is_causal(name, causal):
    model = built(name, (12,), **SMALL[name]).eval()
    model = model if causal else model[:-1]  # BERT's blocks, before its heads
    x = torch.randint(0, 50, (2, 12))
    changed = x.clone()
    changed[:, 7] = (x[:, 7] + 1) % 50
    with torch.no_grad():
        before, after = model(x), model(changed)
    assert torch.allclose(before[:, :7], after[:, :7], atol=1e-6) == causal
    assert not torch.allclose(before[:, 7:], after[:, 7:], atol=1e-6)


def test_rotary_positions_depend_on_the_distance_alone():
    turns = language_models.rotations(10, 8, torch.device("cpu"))
    q, k = torch.randn(1, 1, 1, 8), torch.randn(1, 1, 1, 8)
    found = [
        (language_models.rotated(q, turns[t : t + 1]) * language_models.rotated(k, turns[t + 3 : t + 4])).sum()
        for t in range(7)
    ]
    assert torch.allclose(torch.stack(found), found[0], atol=1e-5)
    assert torch.allclose(language_models.rotated(q, turns[:1]), q)


def test_a_tied_output_is_the_embedding():
    tied = built("gpt", (12,), **SMALL["gpt"] | {"tied": True})
    assert tied[-1].linear.weight is tied[0].tokens.weight


@pytest.mark.parametrize(("name", "args"), [("resnet18", {"blocks": [1, 1]}), ("resnet50", {"blocks": [1, 1]})])
def test_residual_networks_learn_in_an_epoch(name, args):
    plan = make_plan((32, 32), H=4)
    _, lines = train_in_lockstep(plan, make(plan, name, args))
    assert lines[-1]["accuracy"] > 0.5


def test_vgg_gives_a_number_for_each_class():
    found = models.on_meta("vgg11", {"batch_norm": True}, (1, 32, 32), 7)
    assert found(torch.zeros(2, 1, 32, 32, device="meta")).shape == (2, 7)


@pytest.mark.parametrize(
    ("model", "args", "shape", "message"),
    [
        (
            "bert-base",
            {},
            (1, 8, 8),
            "takes sequences of tokens, and the data's examples are 1x8x8; write data: {name: tokens, sequence",
        ),
        (
            "bert-base",
            {},
            (513,),
            "takes up to 512 tokens, and the data's examples have 513; write data: {name: tokens, sequence: 512",
        ),
        ("bert-base", {"predictions": 99}, (64,), "predictions 99 are more than the 64 tokens"),
        ("bert-base", {"vocabulary": 9}, (64,), "vocabulary is 9, and the data's tokens need 10"),
        ("gpt", {"heads": 5}, (64,), "dim 768 must be a multiple of heads 5"),
        ("gpt", {"depth": 1001}, (64,), "model gpt: depth is 1001; write up to 1000"),
        ("resnet50", {"blocks": [1] * 9}, (3, 64, 64), "write a number for each stage"),
        ("gpt", {"tied": 1}, (64,), "model gpt: tied is 1; write true or false"),
        ("llama3-8b", {"kv_heads": 5}, (64,), "heads 32 must be a multiple of kv_heads 5"),
        ("llama3-8b", {"heads": 4096}, (64,), "need an even number of channels in a head, not 1"),
        ("llama3-8b", {"size": 5}, (64,), "model llama3-8b has no argument 'size'; it takes dim, depth"),
        ("vgg16", {}, (3, 31, 40), "model vgg halves the image 5 times; 31x40 is too small"),
        ("vgg16", {"convolutions": [1]}, (3, 64, 64), "write a number for each of the 5 stages"),
        ("resnet50", {"blocks": []}, (3, 64, 64), "blocks is []; write a number for each stage, from 1 to 100"),
        ("resnet18", {"groups": 2}, (3, 64, 64), "groups and group_width need bottleneck: true"),
        ("resnet50", {}, (64,), "takes images, channels x height x width; the data's examples are 64"),
    ],
)
def test_what_does_not_fit_is_one_line(model, args, shape, message):
    for action in (cost_of, lambda m, a, s: models.build(m, a, s.input_shape, s.classes, seed=0)):
        with pytest.raises(ValueError) as caught:  # noqa: PT011 - the text is compared below
            action(model, args, DataShape(shape, 10, 100, 10))
        assert message in str(caught.value)
        assert "\n" not in str(caught.value)


def test_sizes_beyond_torchs_are_one_line():
    huge = {"dim": 2**31 - 1, "heads": 1, "depth": 1}
    with pytest.raises(ValueError, match=r"^model gpt failed: RuntimeError: .*$"):
        cost_of("gpt", huge, tokens(64))
