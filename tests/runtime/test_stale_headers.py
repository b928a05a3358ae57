"""Where a rank is lost, an all-gather that ends without its row must not pass off the row of last time as a new one."""

import numpy as np
import pytest

from paceline.program.errors import WorkerLost
from paceline.runtime import headers
from paceline.runtime.headers import HEADER, Members, make_headers
from paceline.runtime.ulfm import ENABLED


class EndsEarly:
    """A communicator of three of which the last one is lost after the first all-gather."""

    gathers = 0

    def Allgather(self, own, everyone):
        rows = everyone[0]
        for other in (1, 2)[: 2 - min(self.gathers, 1)]:
            rows[other] = rows[0]
        self.gathers += 1

    Iallgather = Allgather


@pytest.mark.parametrize("shrinks", [True, False])
def test_an_old_row_counts_as_a_loss(shrinks, monkeypatch):
    if shrinks:
        monkeypatch.setenv(ENABLED, "1")
    else:
        monkeypatch.delenv(ENABLED, raising=False)
    monkeypatch.setattr(headers, "soon_lost", lambda comm: (2,))
    made = make_headers(Members(EndsEarly(), (0, 1, 2), 0, True), 8, "a mean of 2 floats")
    made.values[0][:] = np.frombuffer(b"12345678", np.uint8)
    assert made.exchange(1.0, False)
    assert bytes(made.values[2]) == b"12345678"
    assert len(made._heads()) == 3 * HEADER.size
    if shrinks:
        with pytest.raises(WorkerLost, match="worker 2 is lost: a mean of 2 floats has ended without worker 2"):
            made.exchange(1.0, False)
    else:
        assert not made.exchange(1.0, False), "without ULFM a loss ends the job, and erasing would take time"
