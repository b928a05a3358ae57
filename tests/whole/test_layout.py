"""pyproject.toml, the links in paceline/ and the folders at the root name the same packages; sizes; light imports."""

import tomllib

from kit.paths import ROOT

SETUPTOOLS = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]
DATA = {"scenarios", "profiles"}


def test_map_links_and_folders_agree():
    mapped = {name.removeprefix("paceline."): folder for name, folder in SETUPTOOLS["package-dir"].items()}
    mapped.pop("paceline")
    assert set(SETUPTOOLS["packages"]) == {"paceline", *(f"paceline.{name}" for name in mapped)}
    links = {path.name: path for path in (ROOT / "paceline").iterdir() if path.is_symlink()}
    assert set(links) == set(mapped) | DATA
    for name, link in links.items():
        assert str(link.readlink()) == f"../{name}", "links are relative, so that a clone can lie anywhere"
    for name, folder in mapped.items():
        assert folder == name
        assert (ROOT / folder / "__init__.py").is_file()
    folders = {path.parent.name for path in ROOT.glob("*/__init__.py")} - {"paceline"}
    assert folders == set(mapped), "a source folder is missing from pyproject.toml"


def test_folder_under_its_bare_name_fails():
    import subprocess
    import sys

    done = subprocess.run(
        [sys.executable, "-c", "import config.scenario"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode != 0
    assert "relative import" in done.stderr


def test_import_and_help_load_neither_torch_nor_mpi():
    import subprocess
    import sys

    code = (
        "import sys, paceline; from typer.testing import CliRunner; from paceline.cli import app;"
        "assert CliRunner().invoke(app, ['--help']).exit_code == 0;"
        "bad = {'torch', 'mpi4py', 'pandas', 'matplotlib', 'sklearn', 'simpy'} & set(sys.modules); assert not bad, bad"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)


def test_timing_only_simulation_loads_what_it_needs(tmp_path):
    """A small scenario is simulated in less time than pandas or Matplotlib takes to be imported."""
    import subprocess
    import sys

    code = (
        "import sys; from paceline.cli import app;"
        f"app.run(['simulate', 'scenarios/quickstart.yaml', '--timing-only', '--out', {str(tmp_path / 'run')!r}]);"
        "bad = {'torch', 'mpi4py', 'sklearn', 'scipy', 'pandas', 'matplotlib'} & set(sys.modules); assert not bad, bad"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60, cwd=ROOT)


def test_the_launcher_of_a_training_loads_no_library_of_the_ranks(tmp_path):
    import subprocess
    import sys

    code = (
        "import sys; from paceline.runtime import launcher;"
        "launcher.run_job = lambda *_, **more: launcher.End(130, stopped=True);"
        "from paceline.cli import app;"
        f"status = app.run(['train', 'scenarios/quickstart.yaml', '--out', {str(tmp_path / 'run')!r}]);"
        "assert status == 130, 'no rank was started';"
        "assert 'paceline.rehearsal' in sys.modules, 'it has checked the scenario';"
        "bad = {'torch', 'mpi4py', 'sklearn', 'scipy', 'pandas', 'matplotlib', 'rich'} & set(sys.modules);"
        "assert not bad, bad"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60, cwd=ROOT)


def test_a_rank_loads_no_library_that_training_does_not_need():
    import subprocess
    import sys

    code = (
        "import sys, paceline.training_rank, paceline.runtime.engine; from pathlib import Path;"
        "from paceline.config.scenario import load; from paceline.job import resolve;"
        "path = Path('scenarios/quickstart.yaml'); job = resolve(load(path), path.parent);"
        "job.problem.load_libraries(job.plan); job.problem.workers(job.plan, [0], shared_process=False);"
        "assert len(job.problem.data.train_y) == 1437;"
        "bad = {'pandas', 'matplotlib', 'scipy', 'sklearn', 'torchvision', 'simpy', 'sympy', 'rich', 'torch._dynamo'};"
        "bad &= set(sys.modules); assert not bad, bad"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60, cwd=ROOT)


def test_heavy_places():
    """House rule: no file over 400 lines, no function over 60, the loop under 80."""
    import ast

    for name in ("paceline", *(p.removeprefix("paceline.") for p in SETUPTOOLS["packages"][1:])):
        for path in (ROOT / name).glob("*.py"):
            text = path.read_text()
            assert len(text.splitlines()) <= 400, path
            for node in ast.walk(ast.parse(text)):
                if isinstance(node, ast.FunctionDef) and node.end_lineno:
                    assert node.end_lineno - node.lineno < 60, f"{path}: {node.name}"
    assert len((ROOT / "algorithms" / "loop.py").read_text().splitlines()) < 80
