"""Hypothesis strategies for what the command line is fed: scenarios, settings, profiles, sweeps, runs, checkpoints.

They begin with files that are right and spoil them: a value of the wrong kind, an extreme number, YAML that few have
seen, a flipped byte. Most budgets are a few steps, so that what is right ends soon.
"""

from __future__ import annotations

import copy
import gzip
import json
from pathlib import Path
from typing import Any, Protocol, TypeVar

from hypothesis import strategies as st

from kit.fuzz.runner import Case
from kit.paths import ROOT, SCENARIOS, TESTS
from paceline.config import yaml
from paceline.config.sections import Section

T = TypeVar("T")


class Draw(Protocol):
    """Hypothesis's `draw`."""

    def __call__(self, strategy: st.SearchStrategy[T], /) -> T: ...


class Raw(str):
    """Text that stands in a YAML file as it is."""


def bases() -> list[dict[str, Any]]:
    """The scenarios of the repository. Their profile is profile.yaml."""
    found = []
    for path in [TESTS / "whole" / "every_option.yaml", *sorted(SCENARIOS.glob("*.yaml"))]:
        document = yaml.read_mapping(path)
        if "profile" in document["cluster"]:
            document["cluster"]["profile"] = "profile.yaml"
        found.append(document)
    return found


BASES = bases()
PROFILE = (ROOT / "profiles" / "quickstart.yaml").read_text()
QUICK = next(base for base in BASES if "profile" in base["cluster"])

NUMBERS = [
    *("0", "-1", "1", "2", "3", "7", "0.5", "1e-3", "64", "1000", "1e5", "1000000", "1e9", "1000000000", "1e18"),
    *("1e300", "1e308", "-1e308", "5e-324", "1e-300", ".nan", ".inf", "-.inf", "2147483648", "4611686018427387904"),
    *("9007199254740993", "9223372036854775807", "9223372036854775808", "1e400", "1" + "0" * 400, "1" + "0" * 5000),
    *("0x10", "1:30", "1_0", "0o17", "+1", "-0.0"),
]
UNITS = [
    *("s", "ms", "ns", "h", "B", "GB", "GiB", "bit/s", "Gbit/s", "Tflop/s", "samples/s", "epochs", "steps", "rounds"),
    *("epoch", "GHz", "furlong", ""),
]
TEXTS = [
    *("", " ", "auto", "slow", "all", "none", "nowhere.npz", "profile.yaml", "scenario.yaml", ".", "..", "/", "a:b"),
    *("json:loads", "[/x]", "[red]7", "x" * 5000, "é\u202e\u200b", "a\nb\nc", "\x1b[31mred", "a\x00b", "\x7f\x85"),
    *("{}", "%s", "{0}", "NaN s", "inf s", "-1 s", "s", "1", "1 s s", "1e-12 epochs", "1e-300 epochs", "5e-324 s"),
    *("1e308 s", "3 GiB", "٣ s", "worker 9", "0 to 1"),
]
PLAIN = [
    *("true", "false", "null", "~", "[]", "{}", "[[]]", "[1, x, null]", "{a: {b: {c: 1}}}", "{1: 2}", "{null: 1}"),
    "[0, 0]",
]
ODD_YAML = [
    *("!!int x", "!!float x", "!!set {a, b}", "!!omap [a: 1]", "!!pairs [a: 1]", "!!binary aGk=", "!!binary '*'"),
    *("!!bool x", "!!null x", "!!timestamp x", "!!str 1", "!!python/object/apply:os.getpid []", "!x 1", "2020-13-45"),
    *("2020-01-01", "2020-01-01 25:61:61", "2020-01-01T00:00:00Z", "&a [*a]", "&a {b: *a}", "*nowhere", "{<<: 5}"),
    *("{<<: {a: 1}}", "{? [a] : b}", "[" * 2000 + "]" * 2000, "{a: " * 400 + "1" + "}" * 400, "[" * 50, "\x00"),
    *("\ufeff", "a: b: c", "@", "`", "%", "\t", "'", '"\\x"', '"\\ud800"', "=", "{1e400: 1}", "{true: 1, yes: 2}"),
]


def bomb() -> str:
    """Aliases of aliases: a few hundred bytes that stand for a thousand million words."""
    levels = ["&a0 [" + ", ".join(["lol"] * 9) + "]"]
    levels += [f"&a{k} [" + ", ".join([f"*a{k - 1}"] * 9) + "]" for k in range(1, 9)]
    return "[" + ", ".join(levels) + "]"


ODD_YAML.append(bomb())


def keys() -> list[str]:
    """All keys of the scenario's sections, arguments of models and strategies, and some that do not exist."""
    found, waiting = dict[str, None](), [Section]
    while waiting:
        section = waiting.pop()
        waiting += section.__subclasses__()
        found.update(dict.fromkeys(section.model_fields))
    known = {key for base in BASES for path in paths(base) for key in path if isinstance(key, str)}
    more = "hidden depth dim heads patch mlp_ratio width channels dropout path verify train test noise size max total"
    odd = ["nonsense", "", "a.b", "[x]", "\x1b", "1", "k" * 500]
    return [*sorted(found | dict.fromkeys(known) | dict.fromkeys(more.split())), *odd]


def paths(value: Any, before: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """Where every value of a document is."""
    items: Any = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [path for key, inner in items for path in [(*before, key), *paths(inner, (*before, key))]]


KEYS = keys()

# Settings that are near to right, and so reach further in. N stands for a number.
EDITS = Path(__file__).with_name("edits.txt").read_text().splitlines()


def numbers() -> st.SearchStrategy[str]:
    """A number as text."""
    return st.one_of(st.sampled_from(NUMBERS), st.integers(-3, 300).map(str), st.floats().map(repr))


def usual() -> st.SearchStrategy[str]:
    """A number as text, mostly one that people write."""
    small = st.one_of(st.integers(0, 9).map(str), st.sampled_from(["0.5", "1e-3", "16", "64", "1000"]))
    return st.one_of(small, small, small, numbers())


def quantities() -> st.SearchStrategy[str]:
    """A number with a unit."""
    return st.tuples(numbers(), st.sampled_from(UNITS)).map(" ".join)


def values() -> st.SearchStrategy[Raw]:
    """Anything, as YAML text for one value."""
    texts, others = st.sampled_from(TEXTS).map(json.dumps), st.sampled_from([*PLAIN, *ODD_YAML])
    return st.one_of(numbers(), quantities(), texts, others).map(Raw)


@st.composite
def edits(draw: Draw) -> str:
    """A setting that is near to right."""
    first, *rest = draw(st.sampled_from(EDITS)).split("N")
    return first + "".join(f"{draw(usual())}{part}" for part in rest)


@st.composite
def settings(draw: Draw) -> str:
    """A setting of any kind: near to right, anything for a key that exists, or no setting at all."""
    kind = draw(st.integers(0, 9))
    if kind < 8:
        return draw(edits())
    if kind == 8:
        return draw(st.text(max_size=40)).replace("\x00", "").encode(errors="replace").decode()
    path = draw(st.sampled_from([p for base in BASES[:6] for p in paths(base)]))
    return f"{'.'.join(map(str, path))}={draw(values())}".replace("\x00", "")


def write(value: Any) -> str:
    """A document's value as YAML in flow style."""
    if isinstance(value, Raw):
        return value
    if isinstance(value, dict):
        return "{" + ", ".join(f"{write(key)}: {write(item)}" for key, item in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(map(write, value)) + "]"
    return json.dumps(value, ensure_ascii=False)


def document_text(document: dict[Any, Any]) -> str:
    """A document as YAML, a line per key."""
    return "".join(f"{write(key)}: {write(value)}\n" for key, value in document.items())


def at(document: Any, path: tuple[Any, ...]) -> Any:
    """The value of a document at a path."""
    for key in path:
        document = document[key]
    return document


def near(draw: Draw, key: Any, value: Any) -> Any:
    """Another value of about the same kind: a number, the unit kept; a text that stands under the key elsewhere."""
    if isinstance(value, str) and not isinstance(value, Raw):
        number, space, unit = value.partition(" ")
        if space and number[:1].isdigit():
            return f"{draw(usual())} {unit}"
        texts = {item[key] for base in BASES for item in holders(base) if isinstance(item.get(key), str)}
        return draw(st.sampled_from(sorted(texts | {value})))
    return Raw(draw(usual())) if isinstance(value, int | float) else draw(values())


def holders(value: Any) -> list[dict[Any, Any]]:
    """All mappings in a document."""
    return [value, *(inner for path in paths(value) if isinstance(inner := at(value, path), dict))]


def spoil(draw: Draw, document: Any) -> None:
    """Change one place of a document: another value, a missing key, one more, or another scenario's section."""
    path = draw(st.sampled_from(paths(document) or [()]))
    if not path:
        return
    holder, key, how = at(document, path[:-1]), path[-1], draw(st.integers(0, 8))
    if how < 4:
        holder[key] = near(draw, key, holder[key])
    elif how < 6:
        holder[key] = draw(values())
    elif how == 6:
        del holder[key]
    elif isinstance(holder, dict):
        holder[draw(st.sampled_from(KEYS))] = draw(values())
    else:
        holder.append(draw(values()))


OTHERS = [b"", b"5", b"[]", b"{}", b"null", b'"x"', b"\x00" * 40, b"\xff\xfe\x00", b"NaN", b"[" * 3000]


def garble(draw: Draw, data: bytes) -> bytes:
    """The bytes with some flipped, cut, put in or replaced."""
    how, place = draw(st.integers(0, 5)), draw(st.integers(0, max(0, len(data) - 1)))
    before, after = data[:place], data[place:]
    if how == 0:
        return before
    if how == 1 and data:
        return before + bytes([after[0] ^ (1 << draw(st.integers(0, 7)))]) + after[1:]
    if how == 2:
        return before + draw(st.binary(max_size=8)) + after
    if how == 3:
        return draw(st.sampled_from(OTHERS))
    return before + after[draw(st.integers(1, 40)) :]


def shorten(draw: Draw, document: dict[str, Any]) -> None:
    """Give the scenario a budget of a few steps, and what fits it."""
    document["budget"] = {"steps": draw(st.sampled_from([3, 1, 2, 10, 60]))}
    for section, key in (("report", "every"), ("checkpoint", "at"), ("workload", "lr_schedule")):
        document.get(section, {}).pop(key, None)


@st.composite
def scenarios(draw: Draw) -> bytes:
    """A scenario file, spoilt in up to three places."""
    document = copy.deepcopy(draw(st.sampled_from(BASES)))
    if not draw(st.integers(0, 3)):
        key = draw(st.sampled_from(["strategy", "cluster", "workload", "report", "budget", "checkpoint"]))
        other = draw(st.sampled_from(BASES))
        if key in other:
            document[key] = copy.deepcopy(other[key])
    if draw(st.integers(0, 9)):
        shorten(draw, document)
    for _ in range(draw(FEW)):
        spoil(draw, document)
    data = document_text(document).encode(errors="surrogatepass")
    return data if draw(st.integers(0, 9)) else garble(draw, data)


OPTIONS: list[list[str]] = [
    *[[]] * 10,
    *(["--engine", "simpy"], ["--engine", "cohort"], ["--debug"], ["--force"], ["--limit", "1 s"], ["--limit", "1 h"]),
    *(["--limit", "0 s"], ["--limit", "x\x1b"], ["--engine", "x\n"]),
]
OUTS = [*["run"] * 20, "new/run", "r[/x]", "r[red]7", "scenario.yaml", "a\nb", "x" * 300, "."]
FEW = st.sampled_from([1, 1, 1, 2, 3])


@st.composite
def simulations(draw: Draw) -> Case:
    """A spoilt scenario."""
    files = {"scenario.yaml": draw(scenarios()), "profile.yaml": PROFILE.encode()}
    out = draw(st.sampled_from(OUTS))
    return Case(files, ("simulate", "scenario.yaml", "--timing-only", "--out", out, *draw(st.sampled_from(OPTIONS))))


def right(draw: Draw) -> dict[str, bytes]:
    """A right scenario of a few steps, with its profile."""
    document = copy.deepcopy(draw(st.sampled_from(BASES)))
    shorten(draw, document)
    return {"scenario.yaml": document_text(document).encode(), "profile.yaml": PROFILE.encode()}


@st.composite
def set_on_command_line(draw: Draw) -> Case:
    """Settings of a right scenario."""
    found = [f"--set={draw(settings())}" for _ in range(draw(FEW))]
    options = draw(st.sampled_from(OPTIONS))
    return Case(right(draw), ("simulate", "scenario.yaml", "--timing-only", "--out", "run", *found, *options))


@st.composite
def profiles(draw: Draw) -> Case:
    """A spoilt profile."""
    document = yaml.parse(PROFILE, "profile")
    measured = document["devices"].items()
    document["residuals"] = {device: {name: [0.9, 1.0, 1.1] for name in known} for device, known in measured}
    for _ in range(draw(FEW)):
        spoil(draw, document)
    data = document_text(document).encode(errors="surrogatepass")
    scenario = QUICK | {"budget": {"steps": draw(st.sampled_from([3, 40]))}, "report": {}}
    if draw(st.booleans()):
        scenario["cluster"] = scenario["cluster"] | {"noise": {"source": "profile"}}
    files = {"scenario.yaml": document_text(scenario).encode(), "profile.yaml": data}
    if not draw(st.integers(0, 4)):
        files["profile.yaml"] = garble(draw, PROFILE.encode())
    return Case(files, ("simulate", "scenario.yaml", "--timing-only", "--out", "run"))


@st.composite
def sweeps(draw: Draw) -> Case:
    """A sweep over a grid, a CSV file or a YAML list."""
    files, given = right(draw), []
    kind = draw(st.integers(0, 2))
    if kind == 0:
        for _ in range(draw(st.integers(1, 2))):
            key, _, value = draw(settings()).partition("=")
            more = draw(st.lists(values(), max_size=2))
            given.append(f"--grid={key}={','.join([value, *more])}".replace("\x00", ""))
    elif kind == 1:
        points = [dict([draw(settings()).partition("=")[::2]]) for _ in range(draw(st.integers(1, 3)))]
        text = "".join(f"- {{{write(key)}: {value}}}\n" for point in points for key, value in point.items())
        files["points.yaml"], given = text.encode(errors="surrogatepass"), ["--list", "points.yaml"]
    else:
        known = st.sampled_from(["seed", "workload.batch", "cluster.network.latency", "", "x"])
        names = draw(st.lists(known, min_size=1, max_size=3))
        rows = draw(st.lists(st.lists(values(), min_size=1, max_size=3), min_size=1, max_size=3))
        text = "\n".join([",".join(names), *(",".join(row) for row in rows)])
        files["points.csv"], given = text.encode(errors="surrogatepass"), ["--list", "points.csv"]
    if kind and not draw(st.integers(0, 2)):
        files[given[1]] = garble(draw, files[given[1]])
    return Case(files, ("sweep", "scenario.yaml", "-j", "1", "--out", "table.csv", *given))


ODD = [
    *(None, True, -1, 0, 1e308, float("nan"), float("inf"), 10**400, "x", "\x1b", "y" * 3000),
    *([], {}, [1, "x"], {"a": 1}),
]


def spoilt_json(draw: Draw, data: bytes) -> bytes:
    """JSON with one value replaced, or its bytes garbled."""
    if draw(st.booleans()):
        return garble(draw, data)
    document = json.loads(data)
    found = paths(document)
    path = draw(st.sampled_from(found))
    at(document, path[:-1])[path[-1]] = draw(st.sampled_from(ODD))
    return json.dumps(document).encode()


def spoilt_run(draw: Draw, run: dict[str, bytes], names: list[str]) -> dict[str, bytes]:
    """A run's files with one spoilt, missing or misplaced."""
    files, name = dict(run), draw(st.sampled_from(names))
    how = draw(st.integers(0, 7))
    if how == 0:
        del files[name]
    elif how == 1:
        other = draw(st.sampled_from(["round_old", "round_", "round_99999999999999999999", "x"]))
        files[f"checkpoints/{other}/meta.json"] = b"{}"
    elif name.endswith(".jsonl"):
        lines = files[name].splitlines()
        number = draw(st.integers(0, len(lines) - 1))
        lines[number] = spoilt_json(draw, lines[number])
        files[name] = b"\n".join(lines)
    elif name.endswith(".json"):
        files[name] = spoilt_json(draw, files[name])
    elif name.endswith(".gz") and draw(st.booleans()):
        files[name] = gzip.compress(spoilt_json(draw, gzip.decompress(files[name])))
    elif name.endswith(".yaml") and draw(st.booleans()):
        document = yaml.parse(files[name].decode(), name)
        spoil(draw, document)
        files[name] = document_text(document).encode(errors="surrogatepass")
    else:
        files[name] = garble(draw, files[name])
    return files


def inside(folder: str, files: dict[str, bytes]) -> dict[str, bytes]:
    """Files in a folder."""
    return {f"{folder}/{name}": data for name, data in files.items()}


@st.composite
def comparisons(draw: Draw, run: dict[str, bytes]) -> Case:
    """A spoilt run compared with a right one; or with itself."""
    names = ["summary.json", "metrics.jsonl", "scenario.yaml", "trace.json.gz"]
    files = inside("a", spoilt_run(draw, run, names)) | inside("b", run)
    order = draw(st.sampled_from([("a", "b"), ("b", "a"), ("a", "a")]))
    return Case(files, ("compare", *order, *draw(st.sampled_from([[]] * 15 + [["--figures", "figures"]]))))


@st.composite
def resumptions(draw: Draw, run: dict[str, bytes]) -> Case:
    """A run to go on with whose scenario, lines or checkpoint are spoilt."""
    names = [name for name in run if "checkpoints" in name] * 2 + ["scenario.yaml", "metrics.jsonl", "summary.json"]
    if draw(st.booleans()):  # a checkpoint from before there were checksums, so that what is spoilt is read
        meta = next(name for name in run if name.endswith("meta.json"))
        run = run | {meta: json.dumps(json.loads(run[meta]) | {"sha256": {}}).encode()}
    more = [f"--set={draw(settings())}"] if not draw(st.integers(0, 4)) else []
    without = [f"--without={worker}" for worker in draw(st.sampled_from([[]] * 3 + [[0], [1], [0, 1], [7, 7]]))]
    return Case(inside("a", spoilt_run(draw, run, names)), ("train", "--resume", "a", *more, *without))


def cases(run: dict[str, bytes]) -> st.SearchStrategy[Case]:
    """Any input. run: a right run's files."""
    return st.one_of(simulations(), set_on_command_line(), profiles(), sweeps(), comparisons(run), resumptions(run))
