"""Bad input: one line of at most 400 characters, no control characters, status 2, nothing written, nothing slow."""

from __future__ import annotations

import copy
import json
import subprocess
import sys
import unicodedata
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from kit.cli import call
from paceline.config import yaml
from paceline.config.profile import load_profile
from paceline.config.scenario import validate
from paceline.job import resolve
from paceline.program.errors import PacelineError, ScenarioError, brief, one_line

BASE: dict[str, Any] = {
    "workload": {"model": "mlp", "data": {"name": "synthetic", "train": 256}, "batch": 32, "optimizer": {"lr": 0.1}},
    "cluster": {
        "workers": [{"step_time": "2 ms", "max_batch": 64}, {"device": "gpu", "step_time": "4 ms", "max_batch": 64}],
        "network": {"bandwidth": "1 Gbit/s", "latency": "50 us"},
    },
    "strategy": {"preset": "sync_sgd"},
    "budget": {"steps": 20},
}
LONG = "x" * 38_000
BOMB = "a: &a [x]\n" + "".join(f"{b}: &{b} [{', '.join([f'*{a}'] * 9)}]\n" for a, b in pairwise("abcdefghi"))


@pytest.fixture
def scenario(tmp_path, monkeypatch) -> Path:
    """A small scenario in the working folder."""
    monkeypatch.chdir(tmp_path)
    Path("s.yaml").write_text(yaml.dump(BASE))
    return Path("s.yaml")


def is_one_line(text: str) -> bool:
    return len(text) <= 400 and all(unicodedata.category(c) not in ("Cc", "Cf", "Cs", "Zl", "Zp") for c in text)


def refused(*settings: str) -> str:
    """The error of the scenario with these settings."""
    with pytest.raises(ScenarioError) as error:
        resolve(validate(document(*settings), "s.yaml"), Path())
    assert is_one_line(str(error.value))
    return str(error.value)


def document(*settings: str) -> dict[str, Any]:
    from paceline.config.scenario import apply

    made = copy.deepcopy(BASE)
    for setting in settings:
        apply(made, setting)
    return made


# --- how an error is shown --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "text", [LONG, "a\n\n  b", "\x1b[31mred\x07", "\u202egnp.exe", "a\u2028b", "\udcff", "tab\t.", ""]
)
def test_whatever_an_error_quotes_it_is_one_short_line(text):
    """An error's text is cut and cleaned where the error is made, once; SimPy rebuilds errors from their args."""
    error = PacelineError(f"{text}: write something else")
    assert is_one_line(str(error))
    assert str(error).endswith("write something else")
    assert str(PacelineError(*error.args)) == str(error)


def test_a_value_is_quoted_without_being_written_out():
    """What is quoted of a value takes no time that grows with it, not even where lists hold each other many times."""
    nested: Any = ["x"]
    for _ in range(60):  # written out, 2^60 texts
        nested = [nested, nested]
    for value in (nested, LONG, {"a": nested}, 10**5000, list(range(10**6))):
        assert len(brief(value)) <= 60
    assert brief([1, "a", None]) == "[1, 'a', None]"
    assert one_line("kept as it is") == "kept as it is"


# --- YAML -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (BOMB, "F:2: not valid YAML: *a repeats a list or a mapping"),
        ("a: &a {b: 1}\nc: {<<: *a}", "*a repeats a list or a mapping"),
        ("a: &a [*a]", "*a repeats"),
        ("[" * 500 + "]" * 500, "more than 40 levels of nested lists and mappings"),
        ("{a: " * 500, "more than 40"),
        ("a: !!int x", "tags like !!int are not allowed"),
        ("a: !!set {b}", "tags like !!set"),
        ("a: !!binary aGk=", "tags like !!binary"),
        ("a: !!timestamp x", "tags like !!timestamp"),
        ("a: !!python/object/apply:os.system [ls]", "tags like !!python/object/apply:os.system"),
        ("a: !mine 3", "tags like !mine"),
        ("a: " + "9" * 5000, "cannot be read: Exceeds the limit"),
        ("a: 0x" + "f" * 5000, "is a number of 20000 bits"),
        ("a: b\0c", "F:1: not valid YAML: character #x0000"),
        ('a: "\\e[31m"', "holds a control character"),
        ('a: "\\uD800"', "holds a control character, or half of one"),
        ("a:\n\t- b", "F:2: not valid YAML: found character"),
        ("a: 1\n---\nb: 2", "found another document"),
    ],
)
def test_yaml_that_is_not_plain_is_refused(text, message):
    """What makes much of little, runs code or means another thing than it looks like; in whatever YAML is read."""
    with pytest.raises(ScenarioError) as error:
        yaml.parse(text, "F")
    assert message in str(error.value)
    assert is_one_line(str(error.value))


def test_dates_and_merge_keys_are_text_and_aliases_of_values_stay():
    found = yaml.parse("\ufeffa: 2020-13-45\nb: 2020-01-01\nc: &c 3\nd: *c\n<<: 1\ne: =\nf: !!str 5", "F")
    assert found == {"a": "2020-13-45", "b": "2020-01-01", "c": 3, "d": 3, "<<": 1, "e": "=", "f": "5"}


def test_what_is_written_is_read_again():
    shared = [1, "2020-01-01", "1e-4", "<<", "="]
    again = {"a": shared, "b": shared}
    assert yaml.parse(yaml.dump(again), "F") == again


@pytest.mark.parametrize("content", [b"", b"\xff\xfe\x00", b"- 1", b"5", BOMB.encode(), b"a: !!set {b}", b"[" * 500])
def test_every_file_of_yaml_is_read_in_the_same_way(content, scenario, monkeypatch, capsys):
    """A scenario, a profile, a sweep's list: what is not a mapping, not text or not plain YAML is one line."""
    Path("bad.yaml").write_bytes(content)
    for arguments in (
        ["simulate", "bad.yaml", "--out", "run"],
        ["simulate", "s.yaml", "--timing-only", "--out", "run", "--set", "cluster.profile=bad.yaml"],
        ["sweep", "s.yaml", "--list", "bad.yaml", "--out", "run.csv"],
    ):
        status, out, err = call(monkeypatch, capsys, *arguments)
        assert (status, out) == (2, "")
        assert is_one_line(err.removesuffix("\n")), err
    assert sorted(path.name for path in Path().iterdir()) == ["bad.yaml", "s.yaml"]


# --- values -----------------------------------------------------------------------------------------------------------

VALUES = ["true", "text", "[]", "{}", "[1]", "{a: 1}", "-1", "5e-324", "1e308", ".inf", ".nan", "1" + "0" * 300]
QUANTITIES = ["5e-324 {}", "1e308 {}", "-1 {}", "1 parsec", "nan {}", "{}"]
GROUP = "cluster.workers.0"


@pytest.mark.parametrize(
    "key",
    [
        *("seed", "workload.batch", "workload.micro_batch", "workload.optimizer.lr", "workload.optimizer.clip"),
        *("workload.label_smoothing", "workload.threads", "workload.loaders", "workload.model_seed", "budget.steps"),
        *(f"{GROUP}.{name}" for name in ("count", "slowdown", "efficiency", "max_batch", "step_time", "memory")),
        *("cluster.network.bandwidth", "cluster.network.latency", "cluster.network.efficiency", "cluster.noise.sigma"),
        *("report.every", "checkpoint.every", "checkpoint.at", "faults", "cluster.background", "cluster.workers"),
    ],
)
def test_a_value_of_another_kind_or_beyond_all_bounds_is_refused(key):
    """Every key is tried with truth values, texts, lists, and numbers that are tiny, huge, negative or none at all."""
    for value in VALUES:
        if (key, value) in HARMLESS:
            continue
        assert key.split(".")[-1] in refused(f"{key}={value}"), value


HARMLESS = {("checkpoint.at", "[]"), ("faults", "[]"), ("cluster.background", "[]")}
HARMLESS |= {("workload.label_smoothing", "5e-324"), ("cluster.noise.sigma", "5e-324")}


@pytest.mark.parametrize(
    ("key", "unit"),
    [
        *((f"{GROUP}.step_time", "s"), (f"{GROUP}.speed", "samples/s"), (f"{GROUP}.flops", "flop/s")),
        *((f"{GROUP}.memory", "B"), (f"{GROUP}.host_link", "B/s"), (f"{GROUP}.port", "B/s"), ("report.every", "steps")),
        *(("cluster.network.bandwidth", "bit/s"), ("cluster.network.latency", "s"), ("budget.epoch", "steps")),
    ],
)
def test_quantities_stay_within_what_can_be_computed_with(key, unit):
    """A unit does not make a number finite: what is computed from a quantity must be, too."""
    for value in QUANTITIES:
        assert key.split(".")[-1] in refused(f"{key}='{value.format(unit)}'"), value


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (["faults=[{name: slowdown, worker: 0, factor: 2, start: 0 rounds, end: 5 s}]"], "must be in the same unit"),
        (["budget={epochs: 1, epoch: reference}", "workload.batch=256"], "reference epoch has no round"),
        (["strategy={preset: hdp, max: 9223372036854775808}"], "max"),
        (["strategy={preset: biased_local_sgd, sampling: {top_loss: {workers: pad}}}"], "workers: 'pad': write a list"),
        ([f"{GROUP}={{speed: 5e-324 samples/s}}"], "must lie between 1e-30 and 1e+30 samples/s"),
        (["strategy={preset: biased_local_sgd, sampling: {top_loss: {workers: [1, 1]}}}"], "0 to 1, each once"),
        (["cluster.background=[{from: true, to: 0, bandwidth: 1 kB/s}]"], "from is True; write a number"),
        (["seed=2020-13-45"], "seed: input should be a valid integer"),
        (["strategy.split={given: {batches: []}}"], "batches"),
        (["workload.optimizer={name: adamw, lr: 0.1, betas: [true, false]}"], "betas is [True, False]; write a number"),
        ([f"{GROUP}.step_time={{16: true}}"], "step_time is {16: True}; write a number"),
        (["a.b.c" + ".d" * 100 + "=1"], " nested keys; 40 at most"),
        (["cluster.workers.²=1"], "is not a place in a list of 2"),
        ([f"{LONG}=1"], "unknown key"),
        ([f"seed=[{LONG}]"], "seed"),
    ],
)
def test_combinations_that_make_no_sense_are_refused_at_load(settings, message):
    """What could only fail later, in a computation, is found before anything runs or is written."""
    assert message in refused(*settings)


@pytest.mark.parametrize(
    "weights", ["[1, 2, 3]", "[1]", "[.nan, 1]", "[.inf, 1]", "[-1, 2]", "[true, true]", "[1e300, 1]", "[]"]
)
@pytest.mark.parametrize(
    "wrapped", ["{}", "{{until: {{t: 1 step, b: {}}}}}", "{{slowmo: {{inner: {}}}}}", "{{outer_sgd: {{inner: {}}}}}"]
)
def test_weights_are_checked_wherever_they_stand(wrapped, weights):
    """Weights for another number of workers, or that are not weights, inside of a member that wraps another."""
    inner = wrapped.format(f"{{parameters: {{weights: {weights}}}}}")
    assert "weights" in refused("strategy={schedule: {fixed: 2}}", f"strategy.aggregation={inner}")


def test_a_profile_without_times_is_refused(tmp_path):
    """A table without a row has no times to interpolate between."""
    path = tmp_path / "p.yaml"
    path.write_text("devices: {cpu: {a workload: {step: {}}}}")
    with pytest.raises(ScenarioError, match="step"):
        load_profile(path)


# --- the command line -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "arguments",
    [
        ["simulate", "s.yaml", "--limit", "0 s"],
        ["simulate", "s.yaml", "--set", f"seed=a\nb\x1b[31m{LONG}"],
        ["simulate", "s.yaml", "--set", LONG],
        ["simulate", "s.yaml", f"--{LONG}"],
        ["simulate", "s.yaml", "--out", LONG, "--timing-only"],
        ["simulate", f"no\x1b[31m\nsuch{'x' * 200}.yaml"],
        ["sweep", "s.yaml", "--grid", f"seed=\x1b[31m\n{LONG}"],
        ["sweep", "s.yaml", "--grid", f"\n\x1b{LONG}"],
        ["sweep", "s.yaml", "--grid", f"{LONG}=1,2"],
        ["sweep", "s.yaml", "--grid", "seed=1", "--out", f"{LONG}.csv"],
        ["sweep", "s.yaml", "--list", LONG],
        ["batch-sizes", "s.yaml", "--memory", "5e-324 GB"],
        ["\x1b[31m"],
    ],
)
def test_what_a_user_types_is_quoted_short_and_harmless(arguments, scenario, monkeypatch, capsys):
    """Line breaks, escape codes and 38,000 characters are not handed to the terminal, whatever option they stand in."""
    status, out, err = call(monkeypatch, capsys, *arguments)
    assert (status, out) == (2, "")
    assert is_one_line(err.removesuffix("\n")), err
    assert [path.name for path in Path().iterdir()] == ["s.yaml"]


@pytest.mark.parametrize("out", ["r[/x]", "r[red]7", "r:bug:", "r\x1b[31m"])
def test_a_folders_name_is_shown_as_it_is(out, scenario, monkeypatch, capsys):
    """A user's text is not markup for the library that draws the tables."""
    shown = out.replace("\x1b", "\\x1b")
    status, printed, _ = call(monkeypatch, capsys, "simulate", "s.yaml", "--timing-only", "--out", out)
    assert status == 0
    assert f"written to  {shown}" in printed
    status, printed, _ = call(monkeypatch, capsys, "compare", out, out)
    assert status == 0
    assert Path(shown).name in printed


ENDS = """
import os, sys
from paceline.__main__ import main
import paceline.printing, paceline.simulating, paceline.sim.engine, paceline.sim.cohort

for number, target in enumerate([None, "/dev/full", "pipe", "out"]):
    name = ("plain", "full", "pipe", "caf\\u00e9[red]")[number]
    if (child := os.fork()) == 0:
        if target is None:
            os.close(1)
            sys.stdout = None
        else:
            if target == "pipe":
                reader, writer = os.pipe()
                os.close(reader)
            else:
                writer = os.open(target, os.O_WRONLY | os.O_CREAT)
            os.dup2(writer, 1)
            sys.stdout = open(1, "w", encoding="ascii", closefd=False)
        sys.argv = ["paceline", "simulate", "s.yaml", "--timing-only", "--out", name]
        status = 99
        try:
            main()
        except SystemExit as end:
            status = end.code
        finally:
            os._exit(status)
    print(name, os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)
"""


def test_output_that_cannot_be_written_loses_no_run(scenario):
    """Standard output closed, full, without a reader, or without the letters: the run is complete all the same."""
    done = subprocess.run([sys.executable, "-c", ENDS], capture_output=True, text=True, timeout=120, encoding="utf-8")
    assert done.stdout.splitlines() == ["plain 0", "full 1", "pipe 141", "caf\u00e9[red] 0"], done.stderr
    assert done.stderr.splitlines() == [
        "paceline: standard output cannot be written: No space left on device; all files are written"
    ]
    assert "written to  caf\\xe9[red]" in Path("out").read_text()
    for name in ("plain", "full", "pipe", "caf\u00e9[red]"):
        assert json.loads((Path(name) / "summary.json").read_text())["finished"]


# --- tables of a sweep ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("suffix", ["csv", "json"])
def test_a_table_shows_rows_that_lack_what_others_have(suffix, scenario, monkeypatch, capsys):
    """Rows with a warning next to rows without one, rows with an error, and all of it read back from the file."""
    settings = ["--set", "cluster.workers=[{step_time: {16: 1 ms, 32: 2 ms}}]", "--set", "workload.data.train=512"]
    arguments = ["sweep", "s.yaml", *settings, "--grid", "workload.batch=16,64,true", "-j", "1", "--out", f"t.{suffix}"]
    shown = [call(monkeypatch, capsys, *arguments) for _ in range(2)]
    for status, out, err in shown:
        assert (status, err) == (0, "")
        assert "is extrapolated" in " ".join(out.split())
        assert "batch is True; write a number" in " ".join(out.split())
        assert "3 rows, 1 failed, 1 with a warning" in out
    assert shown[0][1].splitlines()[-8:] == shown[1][1].splitlines()[-8:]


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("t.csv", "a,b\n1,2,3\n"),
        ("t.csv", "a\0,b\n"),
        ("t.csv", "name,price\n"),
        ("t.csv", 'a\n"' + "x" * 200_000),
        ("t.json", "5"),
        ("t.json", "[" * 100_000),
        ("t.json", '[{"seed": 1, "seconds": "many"}]'),
    ],
)
def test_a_file_that_is_no_table_is_refused(name, content, scenario, monkeypatch, capsys):
    Path(name).write_text(content)
    status, _, err = call(monkeypatch, capsys, "sweep", "s.yaml", "--grid", "seed=1,2", "--out", name)
    assert status == 2
    assert is_one_line(err.removesuffix("\n")), err
    assert Path(name).read_text() == content


def test_a_list_of_points_that_is_no_csv_is_refused(scenario, monkeypatch, capsys):
    Path("p.csv").write_text('seed\n"' + "x" * 200_000)
    status, _, err = call(monkeypatch, capsys, "sweep", "s.yaml", "--list", "p.csv")
    assert status == 2
    assert "p.csv:" in err
    assert is_one_line(err.removesuffix("\n"))
