"""Every notebook runs from top to bottom in its own folder, as a user opens it, and its figures show what they should.

A figure could show the wrong scenario. So a cell added at the end prints numbers from its figures and tables. Simulated
times must be equal; for accuracies, which other processors round differently, only bounds are checked.
"""

import base64
import copy
import io
import json
import math

import matplotlib
import nbformat
import pytest

from kit.notebooks import SMALL, differences, execute, rewrite
from kit.paths import ROOT
from paceline.config.profile import load_profile, save_profile

matplotlib.use("Agg")
import matplotlib.pyplot as plt

NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))
LINES = "[[float(y) for y in line.get_ydata()] for line in {ax}.lines]"
EXACT = {
    "01_first_simulation": {
        LINES.format(ax="ax"): [  # by latency, the ratios of speed from 1 to 16
            [1.38, 2.10, 3.59, 6.69, 9.49],
            [1.52, 2.20, 3.65, 6.71, 9.48],
            [2.65, 2.98, 4.17, 6.87, 9.40],
        ],
        "[local.summary['seconds'], sync.summary['seconds'], sync.summary['idle_share'][0]]": [0.64, 2.29, 0.76],
    },
    "02_heterogeneity": {
        "(sync / local).T.to_numpy().tolist()": [  # by slow workers, the ratios of speed from 1 to 32
            [1.12, 2.00, 3.77, 7.30, 14.38, 28.53],
            [1.12, 1.91, 3.49, 6.67, 13.04, 25.77],
            [1.13, 1.77, 3.08, 5.73, 11.03, 21.64],
            [1.13, 1.59, 2.57, 4.55, 8.53, 16.48],
        ],
        "(sync / alone['synchronous']).iloc[0].tolist()": [
            8 / 9,
            8 / 10,
            8 / 12,
            8 / 16,
        ],  # equal workers: their number
        "(alone['local'] / local).iloc[:2].to_numpy().tolist()": [
            [9 / 8, 10 / 8, 12 / 8, 16 / 8],
            [8.5 / 8, 9 / 8, 10 / 8, 12 / 8],
        ],
        "pd.DataFrame(rows).to_numpy().tolist()": [[39.0, 25.8], [25.73, 25.6]],
        "[run.summary['rounds'] for run in runs.values()]": [288, 360, 23, 23, 23],
    },
    "03_qsr": {
        "table['syncs'].tolist()": [93_600, 23_400, 14_372, 9711, 4785],
        "table['hours'].tolist()": [26.70, 21.26, 20.56, 20.20, 19.81],
        "[float(bottom.lines[1].get_ydata()[i]) for i in (0, 2500, -1)]": [4, 4, 8142],
        "results['syncs'].tolist()": [400, 100, 50, 25, 13, 121, 59, 31, 24],
        "results['MB sent'].tolist()": [237.10, 59.50, 29.90, 15.10, 7.99, 71.93, 35.22, 18.65, 14.50],
    },
    "04_data_parallel": {
        "table.T.to_numpy().tolist()": [  # by mode, the bandwidths from 0.5 to 100 Gbit/s
            [15.98, 8.67, 5.02, 2.83, 2.10, 1.66, 1.51, 1.44],
            [15.08, 7.79, 4.15, 1.96, 1.40, 1.38, 1.37, 1.37],
            [21.59, 10.81, 5.42, 2.19, 1.38, 1.36, 1.36, 1.36],
            [15.40, 8.11, 4.47, 2.29, 1.72, 1.68, 1.67, 1.66],
            [21.68, 10.90, 5.51, 2.30, 1.50, 1.45, 1.44, 1.43],
        ],
        "gain.loc[[1, 100]].to_numpy().tolist()": [[1.11, 1.04, 1.00, 1.04, 1.00], [2.55, 2.76, 2.75, 2.08, 2.52]],
        "batches": [19, 18, 7, 4],
        "[row['at Gbit/s'] for row in rows.values()]": ["2.5", "23.8", "never", "9.4", "4.2"],
        "hours.to_numpy().tolist()": [
            [2.51, 2.26, 1.39],
            [4.62, 4.37, 2.65],
            [1.98, 1.97, 1.26],
            [1.72, 1.72, 1.22],
            [1.35, 1.25, 0.90],
        ],
    },
    "05_predicted_and_measured": {  # nothing is said of how long the real runs took
        "table.index.tolist()": ["sync_sgd", "hdp", "fsdp", "local_sgd"],
        "[paceline.compare(numbers, run).same for run in runs['local_sgd']]": [True, True],
        "[run.summary['engine'] for pair in runs.values() for run in pair]": ["mpi"] * 8,
        "[len(figure.axes[0].get_yticklabels()), len(by_h), SEEDS - len(seconds['fsdp'])]": [
            4,
            7,
            0,
        ],
    },
    "06_language": {
        "networks.T.to_numpy().tolist()": [  # by method, the bandwidths from 0.1 to 100 Gbit/s
            [14.31, 1.83, 0.58, 0.45],
            [2.04, 0.57, 0.42, 0.41],
            [1.14, 0.48, 0.41, 0.41],
        ],
        "large.T.to_numpy().tolist()": [
            [1167.15, 120.06, 15.35, 7.11],
            [31.99, 9.29, 7.02, 6.79],
            [10.99, 7.11, 6.72, 6.68],
        ],
    },
}
EXACT |= {
    "07_relatives": {
        "[found['rounds'] for found in clocks.values()]": [225, 29, 127, 29, 29],
        "[found['seconds'] for found in clocks.values()]": [0.815, 0.317, 0.566, 0.321, 0.321],
        "[run.summary['seconds'] for run in unequal.values()]": [2.70, 0.93, 0.95],
        "[path[-1] for path in paths.values()]": [0.58, -0.03],
        "paceline.compare(simulate('DiLoCo', *SMALL), real).same": True,
    },
    "08_planning": {
        "[found.frame['seconds_per_epoch'].iloc[0] for found in answers.values()]": [783.5, 738.0, 998.6],
        "[found.frame['method'].iloc[0] for found in answers.values()]": ["local_sgd", "hdp", "local_sgd"],
        "[found.rows[0].batches['rtx-a6000'] > found.rows[0].batches.get('rtx2080ti', 0) for found in answers.values()]"
        "": [True] * 3,
        "[paceline.compare(simulated, real).same, real.summary['engine']]": [True, "mpi"],
        "len(figures['communication'].axes[0].get_yticklabels()) > 5": True,
    },
}
BOUNDS = {  # (least, most)
    "01_first_simulation": {"[run.summary['accuracy'] for run in (local, sync)]": (0.95, 1.0)},
    "02_heterogeneity": {
        "table['final accuracy'].tolist()": (0.95, 1.0),
        "[float(table['seconds to 96 %'].iloc[0] / table['seconds to 96 %'].iloc[2])]": (3, 20),
        "found['uniform'][1][:, -1].tolist() + found['biased'][1][:, -1].tolist()": (0.65, 0.75),
    },
    "03_qsr": {"results['accuracy'].tolist()": (0.57, 0.7)},
    "05_predicted_and_measured": {
        "(order / order.min()).min().tolist()": (1, 1),
        "(order / order.min()).max().tolist() + table['A'].tolist()": (1e-9, math.inf),
        "[max(s) / min(s) for s in seconds.values()]": (1.0001, 100),  # the noise is drawn
    },
    "06_language": {
        "[float(run.metrics['perplexity'].iloc[0]) for run in runs.values()]": (150, 600),  # 256 knows nothing
        "[runs[name].summary['perplexity'] for name in ('every step', 'QSR')]": (4, 12),
        "[runs['DiLoCo, H = 20'].summary['perplexity']]": (10, 16),
        "[runs['QSR'].summary['seconds'] / runs['every step'].summary['seconds']]": (0.31, 0.32),
    },
    "07_relatives": {
        "[run.accuracy for run in runs if run.label != 'DiLoCo']": (0.95, 1.0),
        "[seconds_to(runs[0], 0.95) / seconds_to(runs[1], 0.95)]": (2, 6),
        "[run.accuracy for run in unequal.values()]": (0.95, 1.0),
        "[real.summary['seconds']]": (1e-9, math.inf),
    },
    "08_planning": {"[real.summary['seconds']]": (1e-9, math.inf)},
    "04_data_parallel": {"[float(h) for h in hours.loc['LSDP'] / hours.loc['DDP (flat)']]": (0.5, 0.7)},
}


MEASURES = "05_predicted_and_measured"  # the notebook that profiles and trains, which takes a minute or two
# 06 trains a language model three times, 07 five methods, 08 plans for four labs.
LONG = (MEASURES, "06_language", "07_relatives", "08_planning")


@pytest.mark.parametrize(
    "path", [pytest.param(p, id=p.stem, marks=pytest.mark.long if p.stem in LONG else ()) for p in NOTEBOOKS]
)
@pytest.mark.filterwarnings("default")  # the kernel's own machinery warns now and then
def test_notebook(path, request):
    """Its numbers are as they should be, and its stored outputs are those of this run."""
    stored, notebook = (nbformat.read(path, as_version=4) for _ in range(2))
    check(path, notebook)
    notebook.cells.pop()
    if request.config.getoption("--rewrite-notebooks"):
        rewrite(notebook, path)
    elif any(cell.get("outputs") for cell in stored.cells):  # the one that measures is stored from a quiet machine
        assert not differences(stored, notebook)


@pytest.mark.parametrize("path", [path for path in NOTEBOOKS if path.stem != MEASURES], ids=lambda path: path.stem)
def test_outputs_are_stored_and_small(path):
    assert path.stat().st_size < SMALL
    notebook = nbformat.read(path, as_version=4)
    shown = [cell for cell in notebook.cells if cell.cell_type == "code" and cell.outputs]
    assert len(shown) >= 4
    assert any("image/png" in output.get("data", {}) for cell in shown for output in cell.outputs)
    assert str(ROOT) not in path.read_text()
    assert "/tmp/" not in path.read_text()


@pytest.mark.filterwarnings("default")
def test_the_quick_parts_of_long_notebooks_show_what_is_stored():
    """In one kernel, to save time: what is predicted, of notebooks that also train."""
    parts = nbformat.v4.new_notebook()
    for path in NOTEBOOKS:
        cells = nbformat.read(path, as_version=4).cells
        parts.cells += [cell for cell in cells if "quick" in cell.metadata.get("tags", ())]
    assert sum(bool(cell.outputs) for cell in parts.cells) >= 2
    stored = copy.deepcopy(parts)
    execute(parts, ROOT / "notebooks")
    assert not differences(stored, parts)


@pytest.mark.filterwarnings("default")
def test_the_notebook_that_measures_with_few_epochs_and_a_given_profile(tmp_path):
    path = next(path for path in NOTEBOOKS if path.stem == MEASURES)
    measured = load_profile(ROOT / "profiles" / "quickstart.yaml")
    varies = {device: dict.fromkeys(workloads, (0.9, 1.0, 1.1)) for device, workloads in measured.devices.items()}
    save_profile(tmp_path / "profile.yaml", measured.model_copy(update={"residuals": varies}))
    notebook = nbformat.read(path, as_version=4)
    (place,) = (i for i, cell in enumerate(notebook.cells) if "parameters" in cell.metadata.get("tags", ()))
    small = f"EPOCHS, SEEDS, PROFILE = 2, 5, {str(tmp_path / 'profile.yaml')!r}"
    notebook.cells.insert(place + 1, nbformat.v4.new_code_cell(small))
    check(path, notebook)


@pytest.mark.parametrize(
    ("tag", "text", "equal"),
    [
        ("", "seconds  0.815", True),
        ("", "seconds  0.816", False),
        ("trained", "seconds  0.83", True),
        ("trained", "seconds  0.9", False),
        ("measured", "seconds  12.25", True),
        ("measured", "minutes  0.815", False),
        ("measured", "seconds  1 2", False),
    ],
)
def test_a_stored_output_that_is_not_the_runs_is_noticed(tag, text, equal):
    stored, found = (nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell("x")]) for _ in range(2))
    for notebook, shown in ((stored, "seconds  0.815"), (found, text)):
        (cell,) = notebook.cells
        cell.metadata["tags"] = [tag]
        cell.outputs = [nbformat.v4.new_output("execute_result", {"text/plain": shown})]
    assert bool(differences(stored, found)) != equal
    found.cells[0].outputs = []
    assert differences(stored, found)


def test_a_stored_figure_that_is_not_the_runs_is_noticed():
    notebooks = []
    for high in (1.0, 1.0, 1.3):
        figure, ax = plt.subplots()
        ax.plot([0, 1], [0, high], linewidth=2)
        ax.set(ylim=(0, 2))
        file = io.BytesIO()
        figure.savefig(file)
        plt.close(figure)
        cell = nbformat.v4.new_code_cell("x")
        cell.outputs = [
            nbformat.v4.new_output("display_data", {"image/png": base64.b64encode(file.getvalue()).decode()})
        ]
        notebooks.append(nbformat.v4.new_notebook(cells=[cell]))
    assert not differences(*notebooks[:2])
    assert differences(*notebooks[1:])


def check(path, notebook):
    """Run a notebook, and compare the numbers of a cell that is added at its end."""
    exact, bounds = EXACT[path.stem], BOUNDS.get(path.stem, {})
    code = f"import json\nprint(json.dumps([{', '.join([*exact, *bounds])}]))"
    notebook.cells.append(nbformat.v4.new_code_cell(code))
    execute(notebook, path.parent)
    found = json.loads("".join(output.text for output in notebook.cells[-1].outputs if output.get("name") == "stdout"))
    for (what, expected), values in zip(exact.items(), found, strict=False):
        _close(values, expected, what)
    for (what, (least, most)), values in zip(bounds.items(), found[len(exact) :], strict=True):
        assert values, what
        assert all(least <= value <= most for value in values), (what, values)


def _close(found, expected, what):
    """The same to two decimals, in lists of lists alike."""
    if isinstance(expected, list):
        assert len(found) == len(expected), (what, found)
        for one, other in zip(found, expected, strict=True):
            _close(one, other, what)
    elif isinstance(expected, str):
        assert found == expected, what
    else:
        assert abs(found - expected) <= 0.0051 + 1e-3 * abs(expected), (what, found, expected)
