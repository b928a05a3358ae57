"""Each method against numbers from its paper or its released code, and identities between methods."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from kit.paths import SCENARIOS
from kit.plans import plan, run
from kit.toy import ToyWorker
from paceline import simulate
from paceline.algorithms.aggregations import Gradients, Parameters, Until
from paceline.algorithms.costs import TAIL
from paceline.algorithms.learning_rates import Constant, Cosine, CosineStep, Linear, WarmUp
from paceline.algorithms.loop import train
from paceline.algorithms.outer import FedNova, OuterSGD, SlowMo, normaliser
from paceline.algorithms.plan import Plan
from paceline.algorithms.presets import qsr
from paceline.algorithms.rounds import NEVER, Interval, Moment, State
from paceline.algorithms.sampling import TopLoss
from paceline.algorithms.schedules import Every, Fixed, Qsr, Schedule, Then
from paceline.algorithms.scores import Scores
from paceline.algorithms.splits import ByClass, Shares
from paceline.algorithms.strategy import Strategy
from paceline.config.timing import Device
from paceline.program.errors import ScenarioError
from paceline.program.lockstep import lockstep
from paceline.program.outcome import Hooks


def at(lr: float, step: int = 0) -> Moment:
    return Moment(0, step, 0.0, lr)


def params(strategy: Strategy, momentum: float = 0.0, **given: object) -> np.ndarray:
    return run(plan(strategy, **given), momentum)[0][0].params[:-TAIL]


# -- QSR --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("h_base", "syncs"), [(4, 9711), (8, 6461)])
def test_qsr_counts_the_papers_syncs(h_base, syncs):
    """ViT-B at B = 4096: 300 epochs of 312 steps, cosine to 1e-6, peak 0.008, 10,000 steps of warm-up, alpha 0.0175."""
    rate = WarmUp(10_000, 1e-6, 0.008, Cosine(0.008, 93_600, 1e-6, 10_000))
    strategy = warmed(qsr(0.0175, h_base), Interval(10_000, "steps"))
    p = Plan(strategy, Shares((256,) * 16, (1.0,) * 16), rate, 1_281_167, Interval(93_600, "steps"))
    state = State()
    while not p.finished(state):
        state.after(p.next_round(state), 0.0)
    assert (state.round, state.step) == (syncs, 93_600)


def warmed(strategy: Strategy, warm_up: Interval | None) -> Strategy:
    """The strategy with what follows from the learning rate's warm-up."""
    return dataclasses.replace(strategy, schedule=strategy.schedule.resolve((1.0, 1.0), warm_up))


def test_qsr_in_two_stages_counts_the_same():
    """The released ViT run: alpha 0 to step 12,480, then QSR."""
    rate = WarmUp(10_000, 1e-6, 0.008, Cosine(0.008, 93_600, 1e-6, 10_000))
    schedule = Then(Interval(12_480, "steps"), Qsr(0.0, 4), Qsr(0.0175, 4))
    p = Plan(
        Strategy(schedule=schedule, aggregation=Parameters()),
        Shares((1,), (1.0,)),
        rate,
        10**6,
        Interval(93_600, "steps"),
    )
    state = State()
    while not p.finished(state):
        state.after(p.next_round(state), 0.0)
    assert state.round == 9711


def test_qsr_rule():
    assert Qsr(0.2).steps(at(0.8 * 0.1**2)) == 625, "floating point alone gives 624"
    assert Qsr(0.2, power=3).steps(at(0.02)) == 1000
    assert Qsr(0.2, h_base=4).steps(at(10.0)) == 4
    assert Qsr(0.0, h_base=4).steps(at(1e-9)) == 4
    assert Qsr(0.2).steps(at(0.0)) == Qsr(0.2).steps(at(1e-300)) > 1e18, "the plan caps it"


def first_rounds(strategy: Strategy, warm_up: float, rounds: int = 4) -> list[int]:
    """H of the first rounds of 40 steps whose rate rises from 1e-6 to 0.1 in the first `warm_up`, then falls to 0."""
    rate = WarmUp(warm_up, 1e-6, 0.1, Cosine(0.1, 40, 0.0, warm_up))
    p = plan(warmed(strategy, Interval(warm_up, "steps")), rate=rate, budget=Interval(40, "steps"))
    state, found = State(), []
    while not p.finished(state) and len(found) < rounds:
        found.append(p.next_round(state).H)
        state.after(p.next_round(state), 0.0)
    return found


def test_qsr_takes_init_h_while_the_rate_warms_up_without_being_told_when_that_ends():
    """A preset's obvious use is the method: alpha and h_base alone follow the released rule. A warm-up's first rate is
    next to 0, which by the formula alone would make one round of the whole run.
    """
    assert first_rounds(qsr(0.2, 2), 5) == [2, 2, 2, 4], "(0.2 / 0.1)^2 is 4 after step 5, at step 6"
    assert first_rounds(qsr(0.2, 2, init_h=3), 5) == [3, 3, 4, 4], "a round begun in the warm-up runs past it"
    assert first_rounds(qsr(0.2, 2, init_t=Interval(8, "steps")), 5) == [2, 2, 2, 2], "what is given goes before"
    assert first_rounds(qsr(0.2, 2, init_t=Interval(0, "steps")), 5) == [40]
    assert first_rounds(qsr(0.0, 2, init_h=3), 5) == [3] * 4, "in the released rule alpha 0 is init_h throughout"


def test_qsr_refuses_an_init_h_that_no_round_would_take():
    with pytest.raises(ValueError, match="init_h is of the learning rate's warm-up, and there is none"):
        Qsr(0.2, init_h=3).resolve((1.0, 1.0))
    for schedule in (Qsr(0.2, init_h=3, init_t=Interval(5, "steps")), Qsr(0.0, init_h=3)):
        assert schedule.resolve((1.0, 1.0)) == schedule


def test_the_last_sync_falls_on_the_last_step_also_at_rate_zero():
    p = plan(
        Strategy(schedule=Qsr(0.01, 4), aggregation=Parameters()), rate=Linear(0.05, 40), budget=Interval(45, "steps")
    )
    assert run(p)[1][0].step == 45
    with pytest.raises(ValueError, match="rounds"):
        plan(Strategy(schedule=Qsr(0.01, 4), aggregation=Parameters()), budget=Interval(45, "rounds"))


def test_qsr_with_alpha_zero_is_fixed():
    a = params(Strategy(schedule=Qsr(0.0, 4), aggregation=Parameters()))
    assert np.array_equal(a, params(Strategy(schedule=Fixed(4), aggregation=Parameters())))


# -- learning rates ---------------------------------------------------------------------------------------------------


def test_rates():
    rate = WarmUp(10, 0.1, 1.0, Cosine(1.0, 110, 0.1, 10))
    assert [rate(t) for t in (0, 5, 10, 60, 110, 200)] == pytest.approx([0.1, 0.55, 1.0, 0.55, 0.1, 0.1])
    assert [Linear(1.0, 10, 0.2)(t) for t in (0, 5, 10, 20)] == pytest.approx([1.0, 0.6, 0.2, 0.2])
    assert [CosineStep(1.0, 100)(t) for t in (0, 50, 60)] == [1.0, 0.5, 0.25], "0.345 is nearer to 2**-2 in logarithms"
    assert CosineStep(1.0, 100)(100) == 0.0
    with pytest.raises(ValueError, match="not shorter"):
        Cosine(1.0, 10, 0.0, 10)


# -- post-local SGD ---------------------------------------------------------------------------------------------------


def test_post_local_never_is_synchronous():
    assert np.array_equal(params(Strategy(aggregation=Until(NEVER))), params(Strategy(aggregation=Gradients())))


def test_post_local_switches_at_t():
    t = Interval(10, "steps")
    strategy = Strategy(schedule=Then(t, Every(), Fixed(4)), aggregation=Until(t, Gradients(), Parameters()))
    _, states, lines = run(plan(strategy, report=Interval(1, "rounds")))
    assert [line["H"] for line in lines] == [1] * 10 + [4, 4, 2]
    assert states[0].step == 20


# -- outer optimizers, by hand ----------------------------------------------------------------------------------------

LOCAL = Strategy(schedule=Fixed(2), aggregation=Parameters())


def with_(aggregation: object) -> Strategy:
    return Strategy(schedule=Fixed(2), aggregation=aggregation)  # type: ignore[arg-type]


def test_outer_optimizers_that_do_nothing_are_parameter_averaging():
    expected = params(LOCAL, 0.9)
    for neutral in (OuterSGD(lr=1.0, momentum=0.0), SlowMo(beta=0.0, alpha=1.0)):
        np.testing.assert_allclose(params(with_(neutral), 0.9), expected, rtol=1e-5)


def test_slowmo_two_rounds_by_hand():
    lr, beta, alpha = 0.05, 0.5, 0.8
    x0 = np.zeros(5)
    x1_avg = params(LOCAL, budget=Interval(1, "rounds"))
    u1 = (x0 - x1_avg) / lr
    x1 = x0 - alpha * lr * u1
    one = params(with_(SlowMo(beta, alpha)), budget=Interval(1, "rounds"))
    np.testing.assert_allclose(one, x1, rtol=1e-5)
    x2_avg = local_from(x1)
    u2 = beta * u1 + (x1 - x2_avg) / lr
    two = params(with_(SlowMo(beta, alpha)), budget=Interval(2, "rounds"))
    np.testing.assert_allclose(two, x1 - alpha * lr * u2, rtol=1e-4)


def test_slowmo_uses_the_rate_at_the_sync():
    """A preset's obvious use is the method, also in a warm-up: the mean of x moved by some lr times the gradients, and
    divided by the first step's, which is next to 0, it would be a momentum that ends in NaN.
    """
    rate, slowmo = WarmUp(6, 1e-9, 0.05, Constant(0.05)), with_(SlowMo(0.5, 0.8))
    one, two = ({"rate": rate, "budget": Interval(steps, "steps")} for steps in (2, 4))
    u = -params(LOCAL, **one) / rate(1)
    np.testing.assert_allclose(params(slowmo, **one), -0.8 * rate(1) * u, rtol=1e-5)
    assert np.abs(params(slowmo, **two)).max() < 10 * np.abs(params(LOCAL, **two)).max()


def local_from(x: np.ndarray) -> np.ndarray:
    """The mean after the second round's local steps from x."""
    p = plan(LOCAL, budget=Interval(2, "rounds"))
    workers = [ToyWorker(w, p) for w in range(2)]
    for w in workers:
        w.params[:-TAIL] = x
    first = p.next_round(State())
    state = State()
    state.after(first, 0.0)
    return run(p, 0.0, state, workers)[0][0].params[:-TAIL].copy()


def test_diloco_two_rounds_by_hand():
    lr, beta = 0.7, 0.9
    x0 = np.zeros(5)
    g1 = x0 - params(LOCAL, budget=Interval(1, "rounds"))
    v1 = g1
    x1 = x0 - lr * (g1 + beta * v1)
    np.testing.assert_allclose(params(with_(OuterSGD(lr, beta)), budget=Interval(1, "rounds")), x1, rtol=1e-5)
    g2 = x1 - local_from(x1)
    v2 = beta * v1 + g2
    two = params(with_(OuterSGD(lr, beta)), budget=Interval(2, "rounds"))
    np.testing.assert_allclose(two, x1 - lr * (g2 + beta * v2), rtol=1e-4)


def test_slowmo_refuses_a_rate_of_zero():
    with pytest.raises(ScenarioError, match="divides by the learning rate"):
        run(plan(with_(SlowMo()), rate=Constant(0.0)))


# -- FedNova ----------------------------------------------------------------------------------------------------------


def test_fednova_normalisers():
    assert normaliser(1, 0.9, nesterov=True) == pytest.approx(1.9)
    assert normaliser(32, 0.9, nesterov=True) == pytest.approx(241.78, abs=5e-3)
    assert normaliser(32, 0.9) == pytest.approx(233.09, abs=5e-3)
    assert normaliser(7, 0.0) == 7.0


def test_fednova_with_equal_steps_is_parameter_averaging_with_reset():
    expected = params(with_(Parameters("samples", "reset")), 0.9)
    fednova = FedNova().resolve({"name": "sgd", "momentum": 0.9})
    np.testing.assert_allclose(params(with_(fednova), 0.9), expected, rtol=1e-5)


def test_fednova_is_the_formula():
    shares = Shares((4, 4), (1.0, 0.5))
    one_round = {"shares": shares, "budget": Interval(1, "rounds")}
    workers, *_ = run(plan(with_(FedNova((3.0, 1.0)).resolve({"name": "sgd", "momentum": 0.9})), **one_round), 0.9)
    locals_ = [run(plan(with_(Parameters(w)), **one_round), 0.9)[0][0].params[:-TAIL] for w in ((1.0, 0.0), (0.0, 1.0))]
    a = [normaliser(2, 0.9), normaliser(1, 0.9)]
    tau = 0.75 * a[0] + 0.25 * a[1]
    expected = tau * (0.75 * locals_[0] / a[0] + 0.25 * locals_[1] / a[1])
    np.testing.assert_allclose(workers[0].params[:-TAIL], expected, rtol=1e-5)
    assert not workers[0].velocity.any(), "momentum is zeroed in each round"


def test_fednova_refuses_adam():
    with pytest.raises(ValueError, match="no normaliser for adamw"):
        FedNova().resolve({"name": "adamw"})


# -- splits, optimizer state ------------------------------------------------------------------------------------------


def test_steps_by_class_of_device():
    shares = ByClass({"gpu": 32, "cpu": 1}).shares(64, [Device("cpu"), Device("gpu"), Device("gpu")])
    assert shares.paces == (1 / 32, 1.0, 1.0)
    with pytest.raises(ValueError, match="not tpu, which is in the cluster"):
        ByClass({"gpu": 32}).shares(64, [Device("tpu")])


def test_averaged_optimizer_state_is_equal_on_all_workers():
    workers, *_ = run(plan(with_(Parameters("equal", "averaged"))), 0.9)
    assert np.array_equal(workers[0].velocity, workers[1].velocity)
    workers, *_ = run(plan(with_(Parameters("equal", "local"))), 0.9)
    assert not np.array_equal(workers[0].velocity, workers[1].velocity)


@pytest.mark.parametrize("around", [lambda a: a, lambda a: SlowMo(inner=a), lambda a: Until(b=a)])
def test_moments_that_the_optimizer_does_not_have_are_refused(around):
    aggregation = around(Parameters(optimizer_state=("exp_avg",)))
    with pytest.raises(ValueError, match="optimizer_state: sgd has no exp_avg to average; it has momentum"):
        aggregation.resolve({"name": "sgd", "moments": ("momentum",)})
    with pytest.raises(ValueError, match="it has no vectors; write local"):
        aggregation.resolve({"name": "sgd", "moments": ()})
    assert aggregation.resolve({"name": "adamw", "moments": ("exp_avg", "exp_avg_sq")}) == aggregation
    assert aggregation.averages_state


# -- Biased Local SGD -------------------------------------------------------------------------------------------------

SLOW = {"shares": Shares((4, 4), (1.0, 0.25)), "examples": 100, "budget": Interval(6, "rounds")}


def biased(schedule: Schedule | None = None, budget: Interval = SLOW["budget"], **sampling: object) -> Plan:
    strategy = Strategy(schedule=schedule or Fixed(8), sampling=TopLoss(**sampling), aggregation=Parameters())
    strategy = dataclasses.replace(strategy, sampling=strategy.sampling.resolve(SLOW["shares"]))
    return plan(strategy, **SLOW | {"budget": budget})


@pytest.mark.parametrize(
    ("cpus", "gpus", "rounds", "refresh", "each", "candidates"),
    [(1, 1, 12, 23, 1472, 5888), (2, 8, 2, 3, 192, 1536)],
)
def test_the_released_codes_counters(cpus, gpus, rounds, refresh, each, candidates):
    """N = 50,000, B = 64, H = 32 on GPUs and 1 on CPUs."""
    paces = (1 / 32,) * cpus + (1.0,) * gpus
    sampling = TopLoss().resolve(Shares((64,) * len(paces), paces))
    strategy = Strategy(schedule=Fixed(32), sampling=sampling, aggregation=Parameters())
    shares = Shares((64,) * len(paces), paces)
    p = Plan(strategy, shares, Constant(0.1), 50_000, Interval(3, "epochs"), accounting="reference")
    assert p.rounds_per_epoch == rounds
    assert sampling.interval(p) == refresh
    used = p.used((0, 0, 0), p.ahead(State(), refresh))
    assert used[:cpus] == [each] * cpus
    assert round(sampling.ratio * sum(used[:cpus])) == candidates
    state = State()
    while not p.finished(state):
        state.after(p.next_round(state), 0.0)
    assert state.round == 3 * rounds
    assert p.progress(state) == 3.0


def test_slow_workers_get_the_examples_of_highest_loss():
    p = biased(refresh=2, ratio=2)
    workers, states, _ = run(p)
    assert states[0].refreshed[0] == 4
    table = workers[0].scores
    assert np.array_equal(table.losses, workers[1].scores.losses), "all workers know the same"
    drawn = np.concatenate(workers[1].drawn)
    assert len(set(drawn[:16])) == 16, "without replacement between refreshes"
    unseen = set(range(100)) - set(np.concatenate(workers[0].drawn[:16] + workers[1].drawn[:4]).tolist())
    second = drawn[16:32]
    assert sum(int(at) in unseen for at in second) >= min(len(unseen), 8) // 2, "unseen examples come first"


def test_scores_merge():
    rows = np.array([[1, 0.5, 3], [1, 0.7, 5], [1, 0.6, 5], [2, 0.1, 1]]).ravel()
    latest, least = Scores(4, 0), Scores(4, 0)
    latest.merge(rows, "latest")
    least.merge(rows, "min")
    assert latest.losses.tolist() == pytest.approx([np.inf, 0.7, 0.1, np.inf])
    assert least.losses.tolist() == pytest.approx([np.inf, 0.5, 0.1, np.inf])
    latest.merge(np.array([1, 9.0, 4.0]), "latest")
    assert latest.losses[1] == pytest.approx(0.7), "older than what is known"
    latest.merge(np.array([1, 9.0, 6.0]), "latest")
    least.merge(np.array([1, 9.0, 6.0]), "min")
    assert (latest.losses[1], least.losses[1]) == (9.0, 0.5)


def test_top_loss_resumes_between_refreshes():
    p = biased(refresh=2, ratio=2)
    p.checkpoint = Interval(3, "rounds")
    saved: dict[int, tuple[State, dict]] = {}

    def checkpoint(w: int, seconds: float, state: State, arrays: dict) -> None:
        if state.round == 3:
            saved[w] = dataclasses.replace(state), arrays

    hooks = Hooks(lambda *_: None, checkpoint)
    straight = [ToyWorker(w, p, 0.9) for w in range(2)]
    lockstep([train(w, p, State()) for w in straight], hooks)
    again = [ToyWorker(w, p, 0.9) for w in range(2)]
    for worker in again:
        worker.restore(saved[worker.index][1])
    run(p, 0.9, saved[0][0], again)
    assert np.array_equal(again[0].params, straight[0].params)


def test_top_loss_of_everyone_with_ratio_one_draws_each_example_once():
    p = plan(
        Strategy(schedule=Fixed(5), sampling=TopLoss(1.0, 1, workers=(0, 1)), aggregation=Parameters()),
        budget=Interval(1, "rounds"),
    )
    workers, *_ = run(p)
    assert sorted(np.concatenate([at for w in workers for at in w.drawn])) == list(range(40))


def test_top_loss_at_equal_speeds_is_shuffled():
    sampling = TopLoss().resolve(Shares((4, 4), (1.0, 1.0)))
    a = params(Strategy(schedule=Fixed(4), sampling=sampling, aggregation=Parameters()))
    assert np.array_equal(a, params(Strategy(schedule=Fixed(4), aggregation=Parameters())))


def test_top_loss_refuses_more_candidates_than_examples():
    """What the plan shows to be impossible is refused before a run begins, with what is possible: in the first round as
    in one whose H has grown since."""
    growing = {"refresh": 2, "schedule": Then(Interval(50, "rounds"), Fixed(8), Fixed(80))}
    for fits in (biased(refresh=2, ratio=6.25), biased(**growing, budget=Interval(50, "rounds"))):
        fits.strategy.sampling.check(fits)
    for late, says in (
        (biased(refresh=2, ratio=8), r"8 times the 16 .* the 100 training examples; write ratio: 6\.25 or less"),
        (biased(refresh=14, ratio=1, budget=Interval(14, "rounds")), "the 112 .* examples; write a smaller refresh"),
        (biased(**growing, budget=Interval(52, "rounds")), "the 160 samples"),
    ):
        with pytest.raises(ScenarioError, match=says):
            late.strategy.sampling.check(late)
        with pytest.raises(ScenarioError, match=says):
            run(late)
    small = biased(Fixed(100))  # 500 samples in a round
    with pytest.raises(ScenarioError, match="a round uses 500 samples and there are 100 training examples; write a sm"):
        small.strategy.sampling.check(small)


def test_biased_sampling_that_cannot_be_is_refused_before_anything_is_written(tmp_path):
    settings = ["strategy.ratio=30"]
    with pytest.raises(ScenarioError, match=r"ratio 30 times .* write ratio: \d+\.\d+ or less"):
        simulate(SCENARIOS / "biased_local_sgd.yaml", settings=settings, out=tmp_path / "run", timing_only=True)
    assert not list(tmp_path.iterdir())
    with pytest.raises(ValueError, match=r"ratio is 0\.5"):
        TopLoss(0.5)
