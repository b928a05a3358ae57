"""The command line with a chosen MPI: python -m benchmarks.kills.command {openmpi|mpich} train ...

`paceline` takes Open MPI's mpirun where both are installed. This hides the other one from it.
"""

from __future__ import annotations

import sys
from typing import cast

from paceline.__main__ import main
from paceline.runtime import launcher
from paceline.runtime.mpirun import Mpirun, find_mpirun
from paceline.runtime.ranks import MpiKind

if __name__ == "__main__":
    chosen = cast(MpiKind, sys.argv.pop(1))

    def find(kind: MpiKind | None = None) -> Mpirun:
        return find_mpirun(chosen)

    vars(launcher)["find_mpirun"] = find
    main()
