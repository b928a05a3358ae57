"""`paceline report`: what it takes, what it refuses, and that its page works in a browser without a network."""

from __future__ import annotations

import base64
import hashlib
import json
import re
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

import paceline
from kit.cli import MLP, call, scenario
from paceline.analysis.plots import front_plot
from paceline.config import yaml

HOSTILE = "<img src=x onerror=alert(1)> <script>alert(2)<"  # the name of a run's directory
FAULT = {"name": "pause", "worker": 1, "at": "20 ms", "duration": "10 ms"}
PLAN: dict[str, Any] = {
    "decision": "use <b>both</b>",
    "reasons": [{"factor": 2.0, "text": "a reason </script><script>alert(3)</script>"}],
    "worth": {},
    "whole": True,
    "simulated": 2,
    "rows": [
        {
            "roles": role,
            "method": "local_sgd<i>",
            "steps_between_syncs": steps,
            "samples_between_syncs": 64 * steps,
            "seconds_per_epoch": 3.0 / steps,
            "placement": "replicated",
            "memory": {"cpu": 1e9},
            "idle": {"cpu": 0.1},
        }
        for role, steps in (("recommended", 8), ("front", 1))
    ],
}


SAID = {"seconds": 9.0, "low": 8.0, "high": 10.0, "samples": 64, "idle": [0.1], "sent": [1e6], "memory": [1e6]}
ROUND = {which: SAID | {"reports": [], "warnings": []} for which in ("predicted", "a", "b")}
KEPT = {"base": "x", "family": "local_sgd", "group": "g", "error": "", "rounds": [ROUND]}
VALIDATION = {"format": 2, "environment": {}, "cases": {"a <case>": KEPT}}


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a simulated run, one that stands for the real one, a sweep's table and a plan's answer."""
    folder = tmp_path_factory.mktemp("report")
    document = scenario(2, MLP, {"preset": "local_sgd", "H": 4}, 12)
    document |= {"faults": [FAULT], "report": {"every": "2 rounds", "trace": True}}
    (folder / "s.yaml").write_text(yaml.dump(document))
    run = paceline.simulate(folder / "s.yaml", out=folder / HOSTILE)
    shutil.copytree(folder / HOSTILE, folder / "trained")
    summary = run.summary | {"engine": "mpi", "seconds": run.summary["seconds"] * 1.1}
    (folder / "trained" / "summary.json").write_text(json.dumps(summary))
    table = "strategy.H,seconds,bytes_per_worker,error,base\n" + "".join(
        f"{h},{1 / h},{1e6 / h},,x\n" for h in (10, 2, 9)
    )
    (folder / "sweep.csv").write_text(table)
    (folder / "validation").mkdir()
    (folder / "validation" / "validation.json").write_text(json.dumps(VALIDATION))
    (folder / "plan").mkdir()
    (folder / "plan" / "plan.json").write_text(json.dumps(PLAN))
    return folder


@pytest.fixture(scope="module")
def page(runs: Path) -> Path:
    """A report of all of them."""
    sources = [runs / HOSTILE, runs / "trained", runs / "plan", runs / "validation", runs / "sweep.csv"]
    return paceline.report(*sources, out=runs / "page.html", title=HOSTILE).path


def test_a_report_lies_in_the_run_and_is_replaced_with_it(runs, tmp_path, monkeypatch, capsys):
    shutil.copytree(runs / "trained", tmp_path / "run")
    status, out, _ = call(monkeypatch, capsys, "report", tmp_path / "run")
    assert (status, out.startswith(f"written to {tmp_path / 'run' / 'report.html'}")) == (0, True)
    status, _, _ = call(monkeypatch, capsys, "report", tmp_path / "run")
    assert status == 0, "an earlier report is replaced"
    paceline.simulate(runs / "s.yaml", out=tmp_path / "run", timing_only=True, force=True)
    assert not (tmp_path / "run" / "report.html").exists(), "it was about the earlier run"
    (tmp_path / "run" / "report.html").write_text("mine")
    paceline.simulate(runs / "s.yaml", out=tmp_path / "run", timing_only=True, force=True)
    assert (tmp_path / "run" / "report.html").read_text() == "mine"


def test_what_is_no_report_is_not_replaced(runs, tmp_path, monkeypatch, capsys):
    mine = tmp_path / "mine.html"
    mine.write_text("mine")
    for out, reason in ((mine, "is not a report"), (tmp_path, "is a folder")):
        status, _, err = call(monkeypatch, capsys, "report", runs / "trained", "--out", out)
        assert (status, err.count("\n")) == (2, 1)
        assert reason in err
    assert mine.read_text() == "mine"


def test_a_source_that_is_nothing_is_refused(runs, tmp_path, monkeypatch, capsys):
    (tmp_path / "empty").mkdir()
    (tmp_path / "list.json").write_text('["a"]')
    (tmp_path / "bad.json").write_text("{")
    (tmp_path / "plan").mkdir()
    (tmp_path / "plan" / "plan.yaml").write_text("# Made by `paceline plan`")
    (tmp_path / "plan.json").write_text(json.dumps(PLAN | {"rows": [{}]}))
    refused = {
        tmp_path / "none": "there is no such file",
        tmp_path / "empty": "it holds no run",
        tmp_path / "list.json": "is nothing that a report shows",
        tmp_path / "bad.json": "is not JSON",
        runs / "s.yaml": "is nothing that a report shows",
        tmp_path / "plan": "write the whole answer with plan --json FILE",
        tmp_path / "plan.json": "is not the answer of a plan",
    }
    for source, reason in refused.items():
        status, _, err = call(monkeypatch, capsys, "report", source, "--out", tmp_path / "new.html")
        assert (status, err.count("\n")) == (2, 1), err
        assert reason in err
    assert not (tmp_path / "new.html").exists()


def test_numbers_and_texts_that_no_page_can_hold_are_shown_somehow(tmp_path):
    row = PLAN["rows"][0] | {"seconds_per_epoch": 10**400, "method": "\ud800"}
    (tmp_path / "plan.json").write_text(json.dumps(PLAN | {"rows": [row, *PLAN["rows"]]}))
    (tmp_path / "table.json").write_text(json.dumps([{"a": 10**400, "b": 0.5}, {"a": "\udcff", "b": 1.5}]))
    shown = paceline.report(tmp_path / "plan.json", tmp_path / "table.json", out=tmp_path / "page.html")
    assert shown.html == (tmp_path / "page.html").read_text(encoding="utf-8")
    assert "<td>?</td>" in shown.html


def test_a_line_joins_the_front_alone(tmp_path):
    """A plainer way than the front's may be recommended: it is a cross next to the line."""
    off, on, alone = (PLAN["rows"][0] | {"roles": roles} for roles in ("recommended", "front", "sync on all, front"))
    line, marks = front_plot([off, on | {"samples_between_syncs": 9}, alone | {"samples_between_syncs": 2}])["data"]
    assert line["x"] == [2, 9]
    assert marks["marker"]["symbol"] == ["x", "circle", "circle"]


def test_without_plotly_a_line_says_how_to_install_it(runs, tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "plotly", None)
    status, _, err = call(monkeypatch, capsys, "report", runs / "trained", "--out", tmp_path / "new.html")
    assert (status, err) == (2, "paceline: a report needs plotly; install it with: pip install 'paceline[report]'\n")


def test_a_folder_of_runs_stands_for_them_and_runs_of_python_are_taken(runs, tmp_path):
    found = paceline.simulate(runs / "s.yaml", timing_only=True)
    shown = paceline.report(runs, found, pd.read_csv(runs / "sweep.csv"), out=tmp_path / "page.html")
    assert "predicted less measured" in shown.html
    assert "timing only" in shown.html
    assert "<h2>Table: table</h2>" in shown.html
    assert shown._repr_html_().startswith("<iframe sandbox")


def test_scripts_and_policy_agree_and_nothing_is_fetched(page):
    """Only the two scripts of the page may run: the policy has their hashes, and forbids what is not in the page."""
    text = page.read_text()
    policy = re.search(r'http-equiv="Content-Security-Policy" content="([^"]*)"', text)[1]
    scripts = re.findall(r"<script>(.*?)</script>", text, re.S)
    hashes = [base64.b64encode(hashlib.sha256(script.encode()).digest()).decode() for script in scripts]
    assert re.findall(r"'sha256-([^']*)'", policy) == hashes
    assert len(hashes) == 2
    assert policy.startswith("default-src 'none';")
    assert "http" not in policy
    outside = re.sub(r"<(script|style)[^>]*>.*?</\1>", "", text, flags=re.S)
    assert not re.findall(r"<(?:script|img|link|iframe|object|b|i)\b", outside), "what users wrote is text"
    assert not re.findall(r"\s(?:src|on\w+)=", re.sub(r">[^<]*<", "><", outside)), "and no attribute"


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    """Headless Chromium; one for all tests of this file."""
    sync = pytest.importorskip("playwright.sync_api", reason="playwright is not installed: pip install playwright")
    found = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    if found is None:
        pytest.skip("there is no Chromium: apt-get install chromium")
    arguments = ["--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-component-update"]
    with sync.sync_playwright() as playwright:
        started = playwright.chromium.launch(executable_path=found, args=arguments, timeout=120_000)
        yield started
        started.close()


DRAWN = """() => [...document.querySelectorAll('.drawing')].map(drawing => {
    const box = drawing.getBoundingClientRect();
    const paths = [...drawing.querySelectorAll('.plot path')].filter(path => path.getBBox().width > 0);
    return [box.width, box.height, paths.length];
})"""


def test_the_page_works_in_a_browser(page, browser):
    """At 1280 and 400 px: no error, no request, figures with something in them, no scrolling of the page sideways."""
    tab = browser.new_page(viewport={"width": 1280, "height": 900})
    tab.set_default_timeout(120_000)
    said, asked = list[str](), list[str]()
    tab.on("console", lambda message: said.append(f"{message.type}: {message.text}"))
    tab.on("pageerror", lambda error: said.append(f"error: {error}"))
    tab.on("dialog", lambda dialog: (said.append(f"dialog: {dialog.message}"), dialog.dismiss()))

    def route(route: Any) -> None:
        asked.append(route.request.url)
        route.continue_() if route.request.url == page.as_uri() else route.abort()

    tab.route("**/*", route)
    tab.goto(page.as_uri())
    for width in (1280, 400):
        tab.set_viewport_size({"width": width, "height": 900})
        _until(tab, "document.querySelector('.drawing svg').getBoundingClientRect().width <= innerWidth")
        found = tab.evaluate(DRAWN)
        assert len(found) >= 8
        for across, down, paths in found:
            assert 200 < across <= width
            assert down > 100
            assert paths > 0
        assert tab.evaluate("document.documentElement.scrollWidth") <= width
    assert tab.title() == HOSTILE
    assert HOSTILE in tab.locator("table").first.inner_text()
    _switch(tab)
    _zoom(tab)
    _sort(tab)
    assert said == []
    assert asked == [page.as_uri()]
    tab.close()


def _until(tab: Any, condition: str) -> None:
    """Wait for a condition. The page's policy does not let Playwright do so within it."""
    for _ in range(600):
        if tab.evaluate(condition):
            return
        tab.wait_for_timeout(100)
    raise AssertionError(condition)


def _switch(tab: Any) -> None:
    """The x axis of all curves."""
    curve = "document.querySelector('.plots .drawing')"
    before = tab.evaluate(f"[...{curve}.data[0].x]")
    tab.locator("input[value=samples]").check()
    after = tab.evaluate(f"[...{curve}.data[0].x]")
    assert after == [96.0 * n for n in (1, 2, 3, 4, 5, 6)] != before, "two workers, 8 samples, 2 rounds of 6 steps"
    assert tab.evaluate(f"{curve}.layout.xaxis.title.text") == "samples of all workers"


def _zoom(tab: Any) -> None:
    """A timeline: to a round by its number, by dragging, and back; the other timeline follows."""
    timelines = tab.locator(".timeline")
    assert timelines.count() == 2
    window = "number => [...document.querySelectorAll('.timeline .drawing')][number].layout.xaxis.range"
    points = "[...document.querySelector('.timeline .drawing').data].reduce((sum, each) => sum + each.x.length, 0)"
    whole, many = tab.evaluate(window, 0), tab.evaluate(points)
    first = timelines.first
    number = first.locator("input[type=number]")
    number.fill("2")
    number.dispatch_event("change")
    second = tab.evaluate(window, 0)
    assert whole[0] < second[0] < second[1] < whole[1]
    assert tab.evaluate(window, 1) == second
    assert tab.evaluate(points) < many, "what is not in view is not drawn"
    first.get_by_role("button", name="whole run").click()
    assert tab.evaluate(window, 0) == whole
    first.locator(".drawing").scroll_into_view_if_needed()
    box = first.locator(".nsewdrag").bounding_box()
    middle = box["y"] + box["height"] / 4
    tab.mouse.move(box["x"] + 0.25 * box["width"], middle)
    assert "worker 0" in first.locator(".tip").inner_text()
    tab.mouse.down()
    tab.mouse.move(box["x"] + 0.5 * box["width"], middle, steps=4)
    tab.mouse.up()
    _until(tab, f"({window})(0)[0] > 0")
    start, stop = tab.evaluate(window, 0)
    assert start == pytest.approx(0.25 * whole[1], rel=0.05)
    assert stop == pytest.approx(0.5 * whole[1], rel=0.05)


def _sort(tab: Any) -> None:
    """A table, by a click on its heading: by value, and not by the text."""
    table = tab.locator("section", has=tab.locator("h2", has_text="sweep.csv"))
    column = table.locator("tbody tr td:first-child")
    assert column.all_inner_texts() == ["10", "2", "9"]
    table.get_by_role("button", name="strategy.H").click()
    assert column.all_inner_texts() == ["2", "9", "10"]
    table.get_by_role("button", name="strategy.H").click()
    assert column.all_inner_texts() == ["10", "9", "2"]
    drawn = "(([...all]) => [...all.at(-1).data[0].y])(document.querySelectorAll('.drawing'))"
    before = tab.evaluate(drawn)
    table.locator("select").nth(1).select_option("bytes_per_worker")
    assert (before, tab.evaluate(drawn)) == ([0.1, 0.5, 1 / 9], [1e5, 5e5, 1e6 / 9]), "readers choose what is drawn"
