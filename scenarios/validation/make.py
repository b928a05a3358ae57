"""Makes the scenarios of this folder, on which predictions are compared with real runs.

    python scenarios/validation/make.py

36 cases are chosen so that every pair of values of two of the five factors below occurs together in at least one case.
Four more have 8 and 16 workers, and four are predicted from the profile of another number of workers, period or batch.

With two workers the run is real, and a slow worker sleeps. More than two busy ranks would not fit two cores: there the
workers are phantoms, which sleep as long as the described devices compute. A star is laid on this machine.

More than two phantoms are slower in proportion, so that all their messages together fit two cores, too.
Of phantoms only the messages are measured. So all of one model and network are predicted from one profile, that of the
scenario in `profiled/` that has 4 of them.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from itertools import combinations, product
from pathlib import Path
from typing import NamedTuple

FOLDER = Path(__file__).parent
SECONDS = 4.0  # of training in each case, about
PORT = 125e6  # bytes/s


class Model(NamedTuple):
    """A model with its data."""

    text: str  # the scenario's lines
    batch: int
    step: float  # seconds of a step of this batch on one core, about
    size: float  # bytes of the parameters


class Method(NamedTuple):
    """A training method."""

    strategy: str  # the scenario's value; {total} is twice or more the batch
    syncs: float = 1.0  # in each step, about
    messages: float = 1.0  # model-sized exchanges in a sync, in units of an all-reduce
    even: bool = True  # whether a step lasts as long as the slowest worker's


class Case(NamedTuple):
    """A value for each factor."""

    method: str
    workers: int
    speeds: str
    model: str
    network: str

    @property
    def name(self) -> str:
        """The file's name without its suffix."""
        return f"{self.method}-{self.workers}-{self.speeds}-{self.model}-{self.network}"


class Lent(NamedTuple):
    """A case that is predicted from the profile of another scenario."""

    case: Case
    ending: str  # of its name
    profiled: str  # the other scenario's file
    batch: int = 0  # 0: the model's


MODELS = {
    "mlp": Model("  model: {name: mlp, hidden: [512, 256]}", 64, 1.2e-3, 0.67e6),
    "vit": Model("  model: {name: vit, patch: 2, dim: 64, depth: 4, heads: 4}", 32, 11e-3, 0.81e6),
    "resnet20": Model("  model: resnet20\n  data: {name: synthetic, train: 1000, test: 200}", 8, 20e-3, 1.09e6),
}
UNITS = "unit_bytes: 100 kB"
BY_BATCH = "total: {total}, max: {total}"
METHODS = {
    "sync_sgd_flat": Method("{preset: sync_sgd, placement: {replicated: {overlap: false}}}"),
    "sync_sgd": Method(f"{{preset: sync_sgd, placement: {{replicated: {{{UNITS}}}}}}}"),
    "local_sgd": Method("{preset: local_sgd, H: 8}", 1 / 8, even=False),
    "biased_local_sgd": Method("{preset: biased_local_sgd, H: 8}", 1 / 8, even=False),
    "diloco": Method("{preset: diloco, H: 16}", 1 / 16),
    "qsr": Method("{preset: qsr, alpha: 0.1, h_base: 4}", 1 / 16),
    "hdp": Method(f"{{preset: hdp, {BY_BATCH}, placement: {{replicated: {{{UNITS}}}}}}}", even=False),
    "fsdp": Method(f"{{preset: fsdp, placement: {{sharded: {{{UNITS}}}}}}}", messages=1.5),
    "lsdp": Method(f"{{preset: lsdp, placement: {{offloaded: {{{UNITS}}}}}}}"),
    "lshdp": Method(f"{{preset: lshdp, {BY_BATCH}, placement: {{offloaded: {{{UNITS}}}}}}}", even=False),
}
FACTORS = (tuple(METHODS), (2, 4), ("equal", "unequal"), tuple(MODELS), ("memory", "star"))
LARGE = (
    Case("sync_sgd", 8, "equal", "resnet20", "star"),
    Case("sync_sgd", 16, "equal", "resnet20", "memory"),
    Case("lshdp", 8, "unequal", "vit", "memory"),
    Case("lshdp", 16, "unequal", "resnet20", "star"),
)

# Cases that are so much faster than `steps` takes them to be, and would last less than 3 s.
FASTER = {
    "sync_sgd_flat-2-equal-mlp-memory": 1.5,
    "sync_sgd-2-equal-mlp-memory": 1.3,
    "fsdp-2-equal-vit-star": 1.3,
}
METHODS["local_sgd_32"] = Method("{preset: local_sgd, H: 32}", 1 / 32, even=False)  # a value of no factor
LENT = (
    Lent(Case("local_sgd_32", 2, "unequal", "vit", "star"), "from-8", "local_sgd-2-unequal-vit-star.yaml"),
    Lent(Case("sync_sgd_flat", 2, "equal", "mlp", "memory"), "batch-96", "sync_sgd_flat-2-equal-mlp-memory.yaml", 96),
    Lent(Case("lsdp", 4, "unequal", "mlp", "star"), "from-2", "profiled/2-mlp-star.yaml"),
    Lent(Case("sync_sgd", 4, "unequal", "vit", "star"), "from-2", "profiled/2-vit-star.yaml"),
)


def pairs(case: Case) -> Iterator[tuple[tuple[int, object], tuple[int, object]]]:
    """The pairs of values that occur in a case, each value with its factor's number."""
    return combinations(enumerate(case), 2)


def covering(count: int = 36) -> list[Case]:
    """So many cases in which every pair of values occurs; greedily, and always the same ones.

    Each next case has the most pairs that are still missing. Among equals, its pairs and values are those used least.
    """
    candidates = [Case(*values) for values in product(*FACTORS)]
    missing = {pair for case in candidates for pair in pairs(case)}
    used: Counter[object] = Counter()
    chosen: list[Case] = []

    def rank(case: Case) -> tuple[int, int, int]:
        found = list(pairs(case))
        return -sum(p in missing for p in found), sum(used[p] for p in found), sum(used[v] for v in enumerate(case))

    while len(chosen) < count:
        best = min((case for case in candidates if case not in chosen), key=rank)
        chosen.append(best)
        missing.difference_update(pairs(best))
        used.update([*pairs(best), *enumerate(best)])
    assert not missing, f"{count} cases are too few: {len(missing)} pairs do not occur"
    return sorted(chosen)


def text(case: Case, batch: int = 0, profiled: str = "", phantom: bool = False) -> str:
    """The case's scenario file.

    batch: another one than the model's.
    profiled: the file of the scenario that is profiled for it.
    phantom: whether two workers sleep as well; more always do.
    """
    method, model, n = METHODS[case.method], MODELS[case.model], case.workers
    batch, phantom = batch or model.batch, phantom or n > 2
    unequal, star = case.speeds == "unequal", case.network == "star"
    speed = f", speed: {model.batch / step(case):.4g} samples/s" if phantom else ""
    if unequal:
        half = f", count: {n // 2}" if n > 2 else ""
        workers = f"[{{device: fast{half}{speed}}}, {{device: slow{half}, slowdown: 4{speed}}}]"
    else:
        workers = f"[{{count: {n}{speed}}}]"
    count = steps(case)
    lines = [
        "workload:",
        model.text,
        *([f"  batch: {batch}"] if batch != 64 else []),
        "  optimizer: {name: sgd, lr: 0.05, momentum: 0.9}",
        *(["  lr_schedule: cosine"] if case.method == "qsr" else []),
        "cluster:",
        f"  workers: {workers}",
        *(["  network: {bandwidth: 1 Gbit/s}"] if star else []),
        f"strategy: {method.strategy.replace('{total}', str(n * batch))}",
        f"budget: {{steps: {count}}}",
    ]
    if case.model == "mlp" and not phantom:  # it reaches 96 % accuracy
        lines.append(f"report: {{every: {count // 20} steps}}")
    train = [("emulate", unequal and not phantom), ("phantom", phantom), ("emulate_network", star)]
    if said := ", ".join(f"{key}: true" for key, wanted in train if wanted):
        lines.append(f"train: {{{said}}}")
    if profiled:
        lines.append(f"validation: {{profile_of: {profiled}}}")
    return "\n".join(["# Made by make.py.", *lines]) + "\n"


def step(case: Case) -> float:
    """Seconds of a step of a fast worker, about.

    Workers of more than two are slower in proportion, so that their messages fit the machine's two cores.
    """
    return MODELS[case.model].step * case.workers / 2


def steps(case: Case) -> int:
    """As many steps as take about SECONDS, in two digits."""
    method, model, n = METHODS[case.method], MODELS[case.model], case.workers
    slowest = 4.0 if case.speeds == "unequal" else 1.0
    if slowest > 1 and not method.even:
        slowest = 1.0 if method.syncs < 1 else 2 / (1 + 1 / slowest)  # fewer steps, or smaller batches
    exchange = 2 * (n - 1) / n * model.size / (PORT if case.network == "star" else 8 * PORT) * method.messages
    count = SECONDS * FASTER.get(case.name, 1.0) / (slowest * step(case) + exchange * method.syncs)
    return int(float(f"{count:.1e}"))


def files() -> dict[str, str]:
    """All files by name."""
    found = {}
    for case in (*covering(), *LARGE):
        of = f"profiled/4-{case.model}-{case.network}.yaml" if case.workers > 2 else ""
        found[f"{case.name}.yaml"] = text(case, profiled=of)
        if of:
            found[of] = text(Case("sync_sgd", 4, "equal", case.model, case.network))
    for case, ending, profiled, batch in LENT:
        found[f"{case.name}-{ending}.yaml"] = text(case, batch, profiled)
        if profiled.startswith("profiled/"):
            found[profiled] = text(Case("sync_sgd", 2, "equal", case.model, case.network), phantom=True)
    return found


if __name__ == "__main__":
    (FOLDER / "profiled").mkdir(exist_ok=True)
    for name, content in files().items():
        (FOLDER / name).write_text(content, encoding="utf-8")
