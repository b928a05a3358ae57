"""A function in a thread of its own that can be paused within: it goes on only when it is told to.

Of the two threads only one runs at a time, so nothing is computed at once. A generator would not do: what is paused
here is in the midst of a user's forward pass or of torch's backward pass, whose frames are not ours.
"""

from __future__ import annotations

import threading
import weakref
from collections.abc import Callable
from contextlib import ExitStack

import torch
from torch.utils._python_dispatch import _get_current_dispatch_mode_stack

Body = Callable[[], None]


class Abandoned(BaseException):
    """Unwinds a paused function that is not wanted any more."""


class _Thread:
    """What the two threads share. It does not refer to its `Paused`, so that the thread ends when that is dropped."""

    def __init__(self) -> None:
        self.go, self.stopped = threading.Lock(), threading.Lock()
        self.go.acquire()
        self.stopped.acquire()
        self.body: Body | None = None
        self.error: BaseException | None = None
        self.abandoned = False
        threading.Thread(target=self._serve, name="paceline-units", daemon=True).start()

    def _serve(self) -> None:
        while True:
            self.go.acquire()
            if self.body is None:
                return
            try:
                self.body()
            except Abandoned:
                pass
            except BaseException as error:  # raised again in the thread that waits
                self.error = error
            self.body = None
            self.stopped.release()

    def end(self) -> None:
        """Let the thread end, which has no function to run."""
        self.go.release()


class Paused:
    """Runs functions, one after the other, in one thread."""

    def __init__(self) -> None:
        self._thread: _Thread | None = None

    @property
    def running(self) -> bool:
        """Whether a function has begun and has not ended."""
        return self._thread is not None and self._thread.body is not None

    def begin(self, body: Body) -> None:
        """Run `body` up to its first pause, or to its end. It has this thread's gradient mode and dispatch modes."""
        assert not self.running
        if self._thread is None:
            self._thread = _Thread()
            weakref.finalize(self, self._thread.end).atexit = False
        modes, gradients = _get_current_dispatch_mode_stack(), torch.is_grad_enabled()

        def within() -> None:
            with ExitStack() as stack:
                stack.enter_context(torch.set_grad_enabled(gradients))
                # On a GPU torch runs backward in one thread of its own for each device of the process. A backward that
                # is paused there would keep those of other workers waiting for ever. So it runs in the calling thread.
                stack.enter_context(torch.autograd.set_multithreading_enabled(False))
                for mode in modes:
                    stack.enter_context(mode)
                body()

        self._thread.abandoned = False
        self._thread.body = within
        self.resume()

    def pause(self) -> None:
        """Called from within the function: wait until it is told to go on."""
        assert self._thread is not None
        if not self._thread.abandoned:
            self._thread.stopped.release()
            self._thread.go.acquire()
        if self._thread.abandoned:
            raise Abandoned

    def resume(self) -> None:
        """Let the function run up to its next pause, or to its end. What it raises is raised here."""
        assert self._thread is not None
        self._thread.go.release()
        self._thread.stopped.acquire()
        error, self._thread.error = self._thread.error, None
        if error is not None:
            raise error

    def abandon(self) -> None:
        """End the function where it is, if it is running."""
        if self.running:
            assert self._thread is not None
            self._thread.abandoned = True
            self.resume()
