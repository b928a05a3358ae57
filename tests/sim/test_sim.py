"""The SimPy interpreter's clocks against closed forms: how long effects take, what waits, what is counted."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest

from kit.programs import Record
from paceline.config.timing import Device, Network, Noise, Timing
from paceline.program.effects import (
    AllGather,
    AllReduce,
    Array,
    Broadcast,
    Checkpoint,
    Compute,
    Log,
    Move,
    Phantom,
    Program,
    ReduceScatter,
    Start,
    Wait,
    Work,
    barrier,
    nothing,
)
from paceline.program.outcome import Hooks, Outcome, Span
from paceline.records.spool import BUFFERED
from paceline.sim.engine import simulate
from paceline.sim.noise import MOST_ROWS, ClassNoise

QUIET = Hooks()
NETWORK = Network("star", 1e6, 1e-3)


def work(seconds: float, phase: str = "step") -> Work:
    """Work that takes this long on `plain` devices."""
    return Work(phase, samples=1, flops=seconds)


class Plain(Device):
    """A device whose seconds are the work's flops."""

    def seconds(self, work: Work) -> float:
        return work.flops * self.slowdown


PLAIN = Plain("plain")


def cluster(workers: int, network: Network = NETWORK, host_link: float | None = None, **more: Any) -> Timing:
    return Timing(tuple(Plain(f"device {i}", host_link=host_link) for i in range(workers)), network, **more)


def run(timing: Timing, *programs: Program[Any], **options: Any) -> list[Outcome]:
    return simulate(list(programs), timing, options.pop("hooks", QUIET), **options)


def near(seconds: float) -> Any:
    return pytest.approx(seconds, rel=1e-9, abs=1e-12)


def ring(nbytes: float, members: int) -> float:
    """Seconds of a large all-reduce on NETWORK: two message steps, 2 (n - 1) / n of the bytes through each port."""
    return 2e-3 + 2 * (members - 1) / members * nbytes / 1e6


# --- collectives ------------------------------------------------------------------------------------------------------

SMALL, LARGE = 1000, 80_000  # bytes, below and above the limit of a gathered all-reduce


@pytest.mark.parametrize(
    ("effect", "messages", "sent"),
    [
        (lambda: AllReduce(Phantom(SMALL)), 1, 3 * SMALL),
        (lambda: AllReduce(Phantom(LARGE)), 2, 1.5 * LARGE),
        (lambda: ReduceScatter(Phantom(LARGE)), 1, 0.75 * LARGE),
        (lambda: AllGather(Phantom(SMALL)), 1, 0.75 * 4 * SMALL),
        (lambda: barrier(), 1, 0),
    ],
)
@pytest.mark.parametrize(("shape", "sharing"), [("star", 1), ("bus", 4)])
def test_collectives_take_their_formula(effect: Any, messages: int, sent: float, shape: str, sharing: int) -> None:
    def program() -> Program[None]:
        yield from effect()

    outcomes = run(cluster(4, Network(shape, 1e6, 1e-3)), *[program() for _ in range(4)])
    for outcome in outcomes:
        assert outcome.seconds == near(messages * 1e-3 + sharing * sent / 1e6)
        assert outcome.sent == {"sync": near(sent)}
        assert outcome.syncs == {"sync": 1}


def test_a_collective_starts_when_its_last_member_comes() -> None:
    def program(worker: int) -> Program[None]:
        yield from Compute(work(0.1 * worker), nothing)
        yield from barrier((0, 2) if worker != 1 else (1,))

    outcomes = run(cluster(3), *map(program, range(3)))
    assert [o.seconds for o in outcomes] == [near(0.201), near(0.1), near(0.201)]


def test_arrays_and_phantoms_take_the_same_time() -> None:
    def program(worker: int, full: bool) -> Program[None]:
        for size in (0, 10, 30_000):
            value: Any = np.zeros(size, np.float32) if full else Phantom(4 * size)
            yield from Compute(work(0.013 * worker), nothing)
            for effect in (AllReduce(value), AllGather(value), ReduceScatter(value), Broadcast(value, root=1)):
                yield from effect
            yield from Move(value, "host")

    timing = cluster(3, host_link=1e5)
    full, phantom = ([o.seconds for o in run(timing, *(program(i, f) for i in range(3)))] for f in (True, False))
    assert full == phantom


# --- while the program goes on ----------------------------------------------------------------------------------------


def meanwhile(*effects: Any, then: float) -> Program[float]:
    """Start the effects, compute for `then` seconds, wait for all."""
    handles = []
    for effect in effects:
        handles.append((yield from Start(effect)))
    yield from Compute(work(then), nothing)
    for handle in handles:
        yield from Wait(handle)
    return then


@pytest.mark.parametrize("then", [0.01, 0.5])
def test_a_started_collective_runs_next_to_the_program(then: float) -> None:
    outcomes = run(cluster(2), *[meanwhile(AllReduce(Phantom(LARGE)), then=then) for _ in range(2)])
    assert [o.seconds for o in outcomes] == [near(max(ring(LARGE, 2), then))] * 2


def test_a_port_carries_one_collective_at_a_time() -> None:
    outcomes = run(
        cluster(2), *[meanwhile(*[AllReduce(Phantom(LARGE)) for _ in range(3)], then=0.01) for _ in range(2)]
    )
    assert [o.seconds for o in outcomes] == [near(3 * ring(LARGE, 2))] * 2


@pytest.mark.parametrize(
    ("effects", "seconds"),
    [
        ([Compute(work(0.3), nothing)], 0.5),  # the device does one after the other
        ([Compute(work(0.3), nothing, on="host")], 0.3),
        ([Compute(work(0.3), nothing, on="host")] * 2, 0.6),
        ([Move(Phantom(1000), "host")], 0.25),
        ([Move(Phantom(1000), "host")] * 2, 0.5),
        ([Move(Phantom(1000), "host"), Move(Phantom(1000), "device")], 0.25),  # a link has two directions
        ([Move(Phantom(1000), "host"), Compute(work(0.3), nothing, on="host")], 0.3),
    ],
)
def test_lanes_run_at_the_same_time(effects: list[Any], seconds: float) -> None:
    (outcome,) = run(cluster(1, host_link=4000.0), meanwhile(*effects, then=0.2), trace=True)
    assert outcome.seconds == near(seconds)
    on_device = [e for e in effects if isinstance(e, Compute) and e.on == "device"]
    assert outcome.computing == near(0.2 + 0.3 * len(on_device))
    assert_disjoint(outcome)


def test_moves_take_no_time_where_memory_is_shared() -> None:
    (outcome,) = run(cluster(1), meanwhile(Move(Phantom(10**9), "host"), then=0.0))
    assert outcome.seconds == 0.0


# --- what is counted --------------------------------------------------------------------------------------------------


def test_evaluation_is_kept_apart() -> None:
    def program(worker: int) -> Program[None]:
        yield from Compute(work(1.0), nothing)
        yield from Log(n=0)
        yield from Compute(work(3.0 + worker, "evaluate"), nothing)
        yield from AllReduce(Phantom(24), phase="evaluate")
        yield from Log(n=1)
        handle = yield from Start(Compute(work(2.0, "evaluate"), nothing, on="host"))
        yield from Compute(work(1.5), nothing)
        yield from Wait(handle)  # only what the program waits for is left out: 0.5 s
        yield from Log(n=2)

    lines: list[tuple[int, float, dict[str, Any]]] = []
    hooks = Hooks(lambda *line: lines.append(line), lambda *_: None)
    outcomes = run(cluster(2), *map(program, range(2)), hooks=hooks)
    for outcome in outcomes:
        assert outcome.seconds == near(2.5)
        assert outcome.computing == near(2.5)
        assert outcome.evaluating == near(4.0 + 1e-3 + 24 / 1e6 + 0.5)
    assert [(worker, seconds, fields["n"]) for worker, seconds, fields in lines] == [
        (worker, near(seconds), n) for n, seconds in ((0, 1.0), (1, 1.0), (2, 2.5)) for worker in (0, 1)
    ]


def test_stop_comes_with_the_answer_so_that_all_agree() -> None:
    # The collective ends at 0.122 s: after worker 0's first checkpoint and before worker 1's, if the clock decided.
    def program(worker: int) -> Program[list[bool]]:
        handle = yield from Start(AllReduce(Phantom(120_000)))
        yield from Compute(work(0.1 + 0.1 * worker), nothing)
        early = yield from Checkpoint(0, dict)
        yield from Wait(handle)
        return [early, (yield from Checkpoint(1, dict))]

    record = Record(stop_after=1)
    outcomes = run(cluster(2), *map(program, range(2)), hooks=record.hooks())
    assert [o.result for o in outcomes] == [[False, True]] * 2
    assert record.asked == 1
    assert [(worker, state) for worker, state, _ in record.checkpoints] == [(0, 1), (1, 1)]


def assert_disjoint(outcome: Outcome) -> None:
    """Every lane's spans follow one another, within the run."""
    for lane, spans in outcome.lanes.items():
        last = 0.0
        for _, start, stop in spans:
            assert last <= start + 1e-12, lane
            assert start <= stop, lane
            last = stop
        assert last <= outcome.seconds + outcome.evaluating + 1e-12


def test_spans_follow_one_another_and_add_up() -> None:
    def program(worker: int) -> Program[None]:
        for i in range(4):
            handles = []
            for _ in range(2):
                handles.append((yield from Start(AllReduce(Phantom(LARGE), phase="gradients"))))
            yield from Compute(work(0.05 + 0.01 * worker * i), nothing)
            yield from AllReduce(Phantom(LARGE), phase="parameters")
            for handle in handles:
                yield from Wait(handle)
            yield from Move(Phantom(100), "host")
            yield from Compute(Work("gradient", 1, 0.02, unit=3), nothing, on="host")

    outcomes = run(cluster(3, host_link=1e4), *map(program, range(3)), trace=True)
    for outcome in outcomes:
        assert_disjoint(outcome)
        assert sum(stop - start for _, start, stop in outcome.lanes["compute"]) == near(outcome.computing - 4 * 0.02)
        names = [name for name, _, _ in outcome.lanes["network"] if name != "wait"]
        assert names == ["gradients", "gradients", "parameters"] * 4
        assert outcome.lanes["to host"][0][0] == "move"
        assert outcome.lanes["host"][0][0] == "gradient 3"
    assert not any(o.lanes for o in run(cluster(3, host_link=1e4), *map(program, range(3))))


def test_spans_that_are_handed_on_in_time_are_those_of_every_lane() -> None:
    """Whoever takes spans while a run goes gets all of them, of a group's own lane, too."""

    def program(worker: int) -> Program[None]:
        pair = (0, 1) if worker < 2 else (2, 3)
        for _ in range(BUFFERED + 50):
            yield from Compute(work(0.01 * (1 + worker)), nothing)
            yield from AllReduce(Phantom(8), group=pair)
        yield from AllReduce(Phantom(8))

    kept = run(cluster(4), *map(program, range(4)), trace=True)
    taken: list[dict[str, list[Span]]] = [{} for _ in kept]
    held = 0

    def take(worker: int, lane: str, spans: Sequence[Span]) -> None:
        nonlocal held
        held = max(held, len(spans))
        taken[worker].setdefault(lane, []).extend(spans)

    hooks = Hooks(QUIET.log, QUIET.checkpoint, spans=take)
    outcomes = simulate([program(worker) for worker in range(4)], cluster(4), hooks, trace=True)
    assert taken == [outcome.lanes for outcome in kept]
    assert not any(outcome.lanes for outcome in outcomes)
    assert held <= BUFFERED + 2
    assert len(taken[0]["network (0, 1)"]) > BUFFERED


def test_waiting_for_others_is_a_span_of_its_own() -> None:
    def program(worker: int) -> Program[None]:
        yield from Compute(work(0.1 + 0.2 * worker), nothing)
        yield from AllReduce(Phantom(LARGE))

    first, last = run(cluster(2), *map(program, range(2)), trace=True)
    end = near(0.3 + ring(LARGE, 2))
    assert first.lanes["network"] == [("wait", near(0.1), near(0.3)), ("sync", near(0.3), end)]
    assert last.lanes["network"] == [("sync", near(0.3), end)]


# --- noise ------------------------------------------------------------------------------------------------------------


def computing(worker: int, count: int, seconds: float) -> Program[None]:
    for i in range(count):
        effect = Compute(work(seconds), nothing)
        if i % 3 == 0:  # started ones draw too
            yield from Wait((yield from Start(effect)))
        else:
            yield from effect


def test_noise_comes_from_the_blocks_of_the_class() -> None:
    noise, count = Noise(0.4, 11), 2 * MOST_ROWS + 10
    fast, slow = Plain("fast"), Plain("slow", slowdown=3.0)
    devices = (slow, fast, slow, fast, slow)
    outcomes = simulate([computing(i, count, 0.01) for i in range(5)], Timing(devices, noise=noise), QUIET)
    for device, number, seconds in ((slow, 0, 0.03), (fast, 1, 0.01)):
        blocks = ClassNoise(noise, number, devices.count(device), device)
        drawn: Array = np.concatenate([blocks.block(i) for i in range(4)])[:count]
        expected = (seconds * drawn).sum(axis=0)
        found = [o.seconds for o, d in zip(outcomes, devices, strict=True) if d is device]
        assert found == [near(s) for s in expected]


def test_noise_has_mean_one_and_a_block_is_always_the_same() -> None:
    blocks = ClassNoise(Noise(0.5, 2), 0, 40, PLAIN)
    first = blocks.block(0).copy()
    drawn = np.concatenate([blocks.block(i) for i in range(12)])
    assert drawn.mean() == pytest.approx(1.0, abs=3 * np.sqrt((np.exp(0.25) - 1) / drawn.size))
    assert np.log(drawn).std() == pytest.approx(0.5, rel=0.02)
    np.testing.assert_array_equal(blocks.block(0), first)  # dropped meanwhile, and made again
    assert not (ClassNoise(Noise(0.5, 2), 1, 40, PLAIN).block(0) == first).any()
    assert not (ClassNoise(Noise(0.5, 3), 0, 40, PLAIN).block(0) == first).any()
