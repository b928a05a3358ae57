"""The synchronous virtual-time driver of appfl (its package vsim), with clients that do nothing.

appfl is not a dependency: `pip install --no-deps appfl colorama` is enough for its driver. Its published releases:
https://pypi.org/project/appfl.
"""

from __future__ import annotations

from importlib.util import find_spec
from typing import Any

STEP = 0.008  # seconds
MEASURED = "on 2 cores of an AMD EPYC, its release 1.12 took 2.8 to 3.0 us a client and round"


def missing() -> str | None:
    """Why it cannot run here; None if it can."""
    absent = [name for name in ("appfl", "colorama") if find_spec(name) is None]
    return f"{', '.join(absent)} not installed (pip install --no-deps appfl colorama); {MEASURED}" if absent else None


class Silent:
    """A logger of nothing."""

    def log_title(self, *_: Any, **__: Any) -> None: ...

    log_content = log_banner = info = warning = log_title


class Server:
    """Aggregates nothing. It is its own scheduler."""

    num_clients = 0

    @property
    def scheduler(self) -> Server:
        return self

    def set_num_clients(self, count: int) -> None:
        self.num_clients = count

    def get_parameters(self, **_: Any) -> dict[str, Any]:
        return {}

    def global_update(self, **_: Any) -> None: ...

    def training_finished(self) -> bool:
        return False


class Client:
    """Trains nothing, and says that it took one step."""

    def __init__(self, number: int) -> None:
        self.number = number

    def get_id(self) -> str:
        return str(self.number)

    def load_parameters(self, parameters: Any) -> None: ...

    def train(self) -> None: ...

    def get_parameters(self) -> tuple[dict[str, Any], dict[str, Any]]:
        return {}, {"current_local_steps": 1}


def rounds(workers: int, count: int) -> None:
    """So many rounds of clients in two classes of unequal speed, all of which are waited for."""
    from appfl.vsim import ClientProfile, SyncSimDriver

    profiles = {str(w): ClientProfile(1.0 if w % 2 else 2.7, bandwidth=0) for w in range(workers)}
    clients = [Client(w) for w in range(workers)]

    driver = SyncSimDriver(Server(), clients, profiles, workers, Silent(), base_step_time=STEP, target_rounds=count)
    driver.run()
    assert abs(driver.virtual_time - count * 2.7 * STEP) < 1e-9 * count
