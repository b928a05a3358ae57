"""`paceline watch`: what it tells of runs that go on, from files alone. Bars and lines of progress."""

import io
import json
import os
import re
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from rich.console import Console

import paceline
from kit.cli import MLP, call, scenario
from paceline.algorithms.plan import Plan
from paceline.algorithms.rounds import Interval, State
from paceline.analysis.following import SILENT, Follower, is_place, runs_in
from paceline.config.scenario import load
from paceline.job import resolve
from paceline.looking import Looked, Looking, looking
from paceline.program.errors import ProtocolError
from paceline.progress import bar_column, draws, progress, where
from paceline.records.live import LiveFile, Now, here, read_now, tell
from paceline.watching import watch


@pytest.fixture
def path(tmp_path):
    made = scenario(2, MLP, {"preset": "local_sgd", "H": 4}, 6)
    (tmp_path / "s.yaml").write_text(json.dumps(made))
    return tmp_path / "s.yaml"


def going_on(directory: Path, **fields: object) -> Path:
    """A directory with a run that goes on in this process."""
    directory.mkdir(exist_ok=True)
    (directory / "scenario.yaml").write_text("recorded: {}")
    given = {
        "engine": "mpi",
        "round": 3,
        "step": 14,
        "H": 4,
        "done": 2,
        "progress": 3.5,
        "budget": 6.0,
        "unit": "rounds",
    }
    LiveFile(directory).write(Now(**here() | given | {"seconds": 2.0, "samples": 100} | fields))
    return directory


def test_a_run_that_goes_on(tmp_path, capsys):
    run = going_on(tmp_path / "run", left=90.0, idle=0.25)
    lines = [{"round": 2, "train_loss": 0.5, "test_loss": 0.4, "accuracy": 0.75}, {"round": 3, "train_loss": 0.3}]
    (run / "metrics.jsonl").write_text("".join(f"{json.dumps(line)}\n" for line in lines) + '{"round": 4, "tra')
    (run / ".alive").mkdir()
    (run / ".alive" / "0").write_text(json.dumps(["host", 1, None, 0.1, 0.25]))
    (run / ".alive" / "1").write_text(json.dumps(["host", 2, "AllReduce of 4 KB (parameters)", 4.2, 0.5]))
    assert watch([run], once=True) == 0
    out = capsys.readouterr().out
    for text in (
        "running",
        "3 of 6 rounds (58%)",
        "round 4 (step 2 of 4), 14 steps, 2 s  50 samples/s  idle 25%  1.5 min left",
        "training loss 0.3000, test loss 0.4000, accuracy 0.7500 (round 3)",
        "worker 0 idle 25%, worker 1 idle 50% (in AllReduce of 4 KB (parameters) for 4.2 s)",
    ):
        assert text in out
    assert "\x1b" not in out


def test_states(tmp_path):
    run = tmp_path / "run"
    follower = Follower(run)
    assert follower.look().state == "none", "there is no directory yet"
    going_on(run)
    assert follower.look().state == "running"
    going_on(run, waiting="AllReduce of 4 KB (parameters)", waits=30.0)
    assert (follower.look().state, follower.look().since) == ("stalled", 30.0)
    tell(run, "restarting", "rank 1 is lost")
    assert (follower.look().state, follower.look().why) == ("restarting", "rank 1 is lost")
    tell(run, "failed", "no more restarts")
    assert follower.look().over
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    going_on(run, process=ended.pid)
    assert follower.look().state == "silent", "whoever started it may say that it is started again"
    going_on(run, host="another")
    old = time.time() - 3 * SILENT
    os.utime(run / ".now", (old, old))
    seen = Follower(run).look()
    assert seen.state == "silent"
    assert seen.since > SILENT
    going_on(run, process=ended.pid)
    os.utime(run / ".now", (old, old))
    assert Follower(run).look().state == "lost"
    (run / ".now").write_text("half of a")
    (run / "summary.json").write_text(json.dumps({"finished": False}))
    assert Follower(run).look().state == "stopped"


def test_nothing_is_told_of_a_run_that_was_not_going_on(tmp_path):
    tell(tmp_path, "failed", "a mistake in the scenario")
    assert [*tmp_path.iterdir()] == []


def test_a_folder_of_runs(tmp_path):
    assert runs_in(tmp_path) == [tmp_path]
    made = [going_on(tmp_path / name) for name in ("b", "a")]
    (tmp_path / "notes").mkdir()
    assert runs_in(tmp_path) == sorted(made)
    assert runs_in(made[0]) == [made[0]]


def test_what_holds_no_run_is_refused(tmp_path, monkeypatch, capsys):
    (tmp_path / "notes").mkdir()
    (tmp_path / "notes" / "a.txt").write_text("a")
    for path in (tmp_path, tmp_path / "notes", tmp_path / "notes" / "a.txt"):
        status, out, err = call(monkeypatch, capsys, "watch", path)
        assert (status, out) == (2, "")
        assert err == f"paceline: {path}: holds no run; name a run's directory, or a folder of runs\n"
    (tmp_path / "begins").mkdir()
    assert is_place(tmp_path / "begins")
    (tmp_path / "begins" / ".lock").touch()
    assert is_place(tmp_path)
    assert is_place(tmp_path / "begins")


def test_it_waits_for_the_run_and_ends_with_it(path, tmp_path, capsys):
    """Another thread simulates the run meanwhile; the lines are those for a pipe."""
    out = tmp_path / "run"
    thread = threading.Thread(target=lambda: paceline.simulate(path, out=out))
    threading.Timer(0.2, thread.start).start()
    assert watch([out], once=False) == 0
    thread.join()
    printed = capsys.readouterr().out
    assert printed.startswith(f"{out}  waiting for the run to begin\n")
    assert "finished" in printed.splitlines()[-1]
    assert not (out / ".now").exists()


def test_a_run_that_fails_says_so(path, tmp_path, monkeypatch, capsys):
    out = tmp_path / "run"
    with pytest.raises(ProtocolError):
        paceline.simulate(path, out=out, limit=1e-6)
    assert read_now(out).state == "failed"
    status, printed, _ = call(monkeypatch, capsys, "watch", out, "--once")
    assert status == 1
    assert "failed: " in printed


def test_ctrl_c_ends_it_with_130(tmp_path):
    code = "import signal, sys; signal.signal(signal.SIGINT, signal.default_int_handler)\n"
    code += f"sys.argv = ['paceline', 'watch', {str(tmp_path / 'none')!r}]\nfrom paceline.__main__ import main\nmain()"
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True) as process:
        assert "waiting" in process.stdout.readline()
        process.send_signal(2)
        assert process.wait(timeout=60) == 130


class Losses:
    """A worker, of which only the losses of its steps are looked at."""

    def __init__(self, index: int) -> None:
        self.index, self.step_losses = index, list[float]()


def looked(path: Path) -> tuple[Plan, State, list[Losses], Looked]:
    job = resolve(load(path), path.parent)
    state, workers = State(), [Losses(0), Losses(1)]
    return job.plan, state, workers, Looked(job.plan, state, workers, lambda: {"seconds": 1.5}, {"engine": "mpi"})


def test_it_moves_within_a_round(path):
    plan, state, workers, part = looked(path)
    assert part.now()["progress"] == 0, "no round is planned yet"
    round = plan.next_round(state)
    assert (part.now()["done"], part.now()["H"]) == (0, 4)
    workers[0].step_losses += [0.1, 0.1]
    workers[1].step_losses += [0.1]
    seen = part.now()
    assert (seen["done"], seen["step"]) == (2, 2), "half of the six steps of both workers"
    assert seen["progress"] == pytest.approx(0.5)
    workers[0].step_losses += [0.1, 0.1]
    workers[1].step_losses += [0.1]
    state.after(round, 0.1)
    second = plan.next_round(state)
    assert (part.now()["done"], part.now()["step"]) == (0, 4), "the losses are still those of the round before"
    workers[0].step_losses[:] = [0.1, 0.1, 0.1]
    assert (part.now()["done"], part.now()["round"]) == (2, 1), "worker 1 has not begun"
    workers[0].step_losses += [0.1]
    workers[1].step_losses[:] = [0.1]
    assert part.now()["done"] == 3, "five of the six steps"
    assert second.start.steps == 4


def test_what_is_seen_is_written_and_removed(path, tmp_path):
    *_, part = looked(path)
    seen = []
    with looking(tmp_path) as looks:
        looks.tell = seen.append
        looks.begin(part)
        now = read_now(tmp_path)
        assert (now.state, now.budget, now.unit, now.process) == ("running", 6.0, "rounds", os.getpid())
    assert seen[0] == now
    assert read_now(tmp_path) is None
    looks = Looking(tmp_path)
    looks.begin(part)
    part.state.after(part.plan.next_round(part.state), 0.1)
    looks.end(ZeroDivisionError("division by zero"))
    now = read_now(tmp_path)
    assert (now.state, now.why, now.round) == ("failed", "division by zero", 1)


def colours(completed: float | None, total: float | None) -> str:
    """A bar in the escape codes of a terminal of 16 colours."""
    from rich.progress import Progress

    file = io.StringIO()
    console = Console(file=file, force_terminal=True, color_system="standard", width=80, legacy_windows=False)
    shown = Progress(bar_column(), console=console)
    shown.add_task("", total=total, completed=completed or 0.0)
    console.print(shown.get_renderable())
    return file.getvalue()


def test_a_finished_bar_looks_finished_in_16_colours(monkeypatch):
    monkeypatch.delenv("NO_COLOR", raising=False)
    finished, half, unknown = colours(10.0, 10.0), colours(5.0, 10.0), colours(None, None)
    assert "\x1b[32m" in finished
    assert "\x1b[36m" not in finished
    assert "\x1b[36m" in half
    assert "\x1b[32m" not in half
    assert "\x1b[32m" not in unknown
    assert "\x1b[36m" not in unknown


def test_a_dumb_terminal_gets_lines(monkeypatch):
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True, raising=False)
    monkeypatch.setenv("TERM", "dumb")
    assert not draws()


def test_lines_where_there_is_no_terminal(path, capsys, monkeypatch):
    plan, *_ = looked(path)
    with progress("train s", plan.budget, quiet=False) as shown:
        shown.line(
            {"epoch": 1.0, "round": 2, "seconds": 3.0, "samples": 300, "H": 4, "train_loss": 0.5, "accuracy": None}
        )
        now = Now(engine="mpi", round=2, step=10, H=4, done=2, seconds=4.0, samples=400)
        shown.now(now)
        assert capsys.readouterr().out == (
            "train s: epoch    1.00  round      2        3 s  H 4  loss 0.5000  100 samples/s\n"
        ), "a report has just come"
        monkeypatch.setattr("paceline.progress.QUIET", -1.0)
        shown.now(now)
    assert capsys.readouterr().out == "train s: round 3 (step 2 of 4), 10 steps, 4 s  100 samples/s\n"


def test_virtual_time_is_called_so():
    assert (
        where(Now(engine="simulated", round=2, step=8, H=4, seconds=7200.0))
        == "round 2, H 4, 8 steps, 2 h of virtual time"
    )


def test_a_bar_is_one_line_and_keeps_its_title(monkeypatch, capsys):
    monkeypatch.setenv("COLUMNS", "72")
    monkeypatch.setenv("TERM", "xterm")
    with progress("train a_title", Interval(10.0, "rounds"), quiet=False, bar=True) as shown:
        shown.now(
            Now(engine="mpi", round=3, step=12345, H=4, done=2, progress=3.5, seconds=90.0, samples=10**7, left=99.0)
        )
    last = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", capsys.readouterr().out).split("\r")[-1].strip("\n")
    assert last.startswith("train a_title ━")
    assert " 35% 111 k samples/s" in last
    assert last.rstrip().endswith("…")
    assert "\n" not in last
