"""The README's example prints what the README says."""

import re
import subprocess
import sys

from kit.paths import ROOT


def test_the_example_prints_what_it_says():
    text = (ROOT / "README.md").read_text()
    code, expected = re.search(r"```python\n(.*?)```\n\n```text\n(.*?)```", text, re.S).groups()
    assert len(code.splitlines()) <= 12
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=120, check=True
    )
    assert done.stdout == expected


def test_links_lead_somewhere():
    for name in ("README.md", "CONTRIBUTING.md"):
        for target in re.findall(r"\]\((?!https?:)([^)#]+)\)", (ROOT / name).read_text()):
            assert (ROOT / target).exists(), f"{name}: {target}"
