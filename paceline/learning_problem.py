"""What is learned: the model, data, loss and optimizer of a scenario, and the workers made of them.

Rule: a model with a table is described without torch, which is loaded with the first real worker.
"""

from __future__ import annotations

import gc
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from .algorithms.costs import ModelCost
from .algorithms.phantom import Phantoms
from .algorithms.plan import Plan
from .config.measured_cost import MeasuredCost
from .config.metrics import named_metrics
from .config.profile import model_key
from .config.recorded import RecordedFile
from .config.scenario import Scenario
from .folders import find, folders_of, of_this_host
from .program.errors import ScenarioError
from .program.import_paths import named

if TYPE_CHECKING:
    from torch import nn

    from .config.timing import Timing
    from .learning.dataset import Dataset, DataShape
    from .learning.optimizer_state import Carried
    from .learning.recipe import Recipe
    from .learning.weights import Weights
    from .learning.worker import TorchWorker

T = TypeVar("T")


@dataclass(eq=False)
class LearningProblem:
    """The learning problem of a scenario."""

    scenario: Scenario
    folder: Path  # where the scenario lies, for the paths in it
    timing: Timing | None = None  # of the cluster, as soon as it is known
    notes: list[str] = field(default_factory=list)  # warnings for readers of the results, found when workers are built
    counted: Mapping[str, MeasuredCost] = field(default_factory=dict)  # what the profile knows of users' models
    began_with: RecordedFile | None = None  # the file with the initial weights, known when workers are built
    hosts: tuple[str, ...] = ()  # the host of each worker's rank, in a real run

    @cached_property
    def shape(self) -> DataShape:
        """The shape of the data, without its images."""
        from .learning.data import shape_of

        return _named("workload.data", lambda: shape_of(*self._data))

    @cached_property
    def cost(self) -> ModelCost:
        """The model's cost, from its table or the profile. Others are built with torch and measured or counted."""
        from .learning.works import cost_of

        if self.counted and self.cost_key in self.counted:
            return self.counted[self.cost_key].read()
        model = self.scenario.workload.model
        return _named("workload.model", lambda: cost_of(model.name, model.args, self.shape))

    @property
    def cost_key(self) -> str:
        """The key under which profiles keep the cost of a user's model; empty for a model by name."""
        shape, workload = self.shape, self.scenario.workload
        if not named(workload.model.name):
            return ""
        return f"{model_key(workload)} on {shape.input_shape} ({shape.kinds}), {shape.classes} classes"

    @cached_property
    def data(self) -> Dataset:
        """The data, which is loaded once for all workers of this process."""
        from .learning.data import load

        return _named("workload.data", lambda: load(*self._data))

    def take_over(self, other: LearningProblem) -> None:
        """Take over what another problem has loaded and measured, if it has the same data and model."""
        ours, theirs = self.scenario.workload, other.scenario.workload
        if (ours.data, self.folders) == (theirs.data, other.folders):
            kept = ("shape", "data", "cost") if ours.model == theirs.model else ("shape", "data")
            self.__dict__.update((name, other.__dict__[name]) for name in kept if name in other.__dict__)

    def sample(self, share: float) -> None:
        """From here on, know a share of the training examples only. Loads the data."""
        from .learning.sampled import sampled

        self.data = sampled(self.data, share)
        self.shape = self.data.shape

    def check(self) -> None:
        """ScenarioError where model, loss or metrics cannot be loaded. Built-in ones are checked without torch."""
        from .learning.loss_arguments import check_loss
        from .learning.recipe import check

        _ = self.cost
        _named("workload.loss", lambda: check_loss(self.scenario.workload.loss.name, self.scenario.workload.loss.args))
        _named("workload", lambda: check(self.recipe, self.shape))
        _named("workload.metrics", lambda: self.reported)

    def check_trainable(self) -> None:
        """ScenarioError where the model is for timing-only runs."""
        from .learning.architectures import check_trainable

        _named("workload.model", lambda: check_trainable(self.scenario.workload.model.name))

    @property
    def optimizer(self) -> dict[str, Any]:
        """The optimizer's settings, and the names in its state: `moments` and `others`; see Carried."""
        settings, state = self.scenario.workload.optimizer.model_dump(), self.optimizer_state
        return settings | {"moments": state.moments, "others": state.others}

    @cached_property
    def optimizer_state(self) -> Carried:
        """What the optimizer carries from step to step. One with an import path is tried, with torch."""
        from .learning.optimizer_by_name import carried

        return _named("workload.optimizer", lambda: carried(self.scenario.workload.optimizer.model_dump()))

    @property
    def recipe(self) -> Recipe:
        """How a step is computed."""
        from .learning import recipe

        w = self.scenario.workload
        augment = recipe.augmentation(**w.augment.model_dump()) if w.augment else None
        metrics = None if w.metrics is None else tuple(named_metrics(w.metrics))
        others = w.micro_batch, w.precision, augment, w.loss_scale, metrics, w.loss.args
        return recipe.Recipe(w.loss.name, w.label_smoothing, *others)

    @property
    def reported(self) -> list[str]:
        """The names of the test loss and the metrics, as reports have them."""
        from .learning.metrics import described

        return [metric.name for metric in described(self.recipe, self.shape)]

    def load_libraries(self, plan: Plan) -> None:
        """Import what a worker that computes needs: torch, and what loads the data."""
        collecting = gc.isenabled()
        gc.disable()  # imports leave no garbage, and looking for it takes a tenth of their time
        try:
            self._load_libraries(plan)
        finally:
            if collecting:
                gc.enable()

    def _load_libraries(self, plan: Plan) -> None:
        import numpy.random  # noqa: F401 - 6 MB, which NumPy loads when it is first used

        from .learning import build  # noqa: F401
        from .learning.data import load_libraries

        strategy, units = plan.strategy, len(self.phantoms(plan)[0].works.units)
        if strategy.placement.by_units(strategy.aggregation.synchronous, units):
            # Autograd imports this when it is first given a gradient to go on from: 36 MB of SymPy.
            import torch.fx.experimental.symbolic_shapes  # noqa: F401

        _named("workload.data", lambda: load_libraries(self.scenario.workload.data.name))

    @property
    def data_bytes(self) -> float:
        """Bytes of the data set in the memory of a process that trains, mapped files included."""
        return self.shape.nbytes

    def phantoms(self, plan: Plan) -> Phantoms:
        """All workers as phantoms, which know only their work and bytes."""
        from .learning.phantoms import build_phantoms

        w = self.scenario.workload
        return _named(
            "workload",
            lambda: build_phantoms(
                plan,
                self.shape,
                model=w.model.name,
                cost=self.cost,
                optimizer=w.optimizer.model_dump(),
                recipe=self.recipe,
                staged=self._staged,
            ),
        )

    def check_initial(self) -> None:
        """ScenarioError where the file with the initial weights is missing."""
        path = self._init
        if path is not None and not find(path, self.folders).is_file():
            raise ScenarioError(f"workload.init: {path}: no such file; its path is relative to the scenario")

    def fresh_model(self) -> nn.Module:
        """The model with random initial parameters, on the CPU."""
        from .learning.build import fresh_model

        w = self.scenario.workload
        seed = self.scenario.seed if w.model_seed is None else w.model_seed
        return _named("workload", lambda: fresh_model(w.model.name, w.model.args, self.shape, seed, self.recipe))

    def _initial(self, resumed: bool) -> Weights | None:
        """The weights in the scenario's file, if it names one. ScenarioError where the run began with another file.

        resumed: a checkpoint replaces them, and the record goes on to tell what the run began with.
        """
        from . import weights_file
        from .learning.weights import Weights

        path, kept = self._init, self.scenario.recorded
        if resumed:
            self.began_with = kept.init if kept else None
        if resumed or path is None:
            return None
        self.check_initial()
        tensors, sha256 = _named(f"workload.init: {path}", lambda: weights_file.read(find(path, self.folders)))
        self.began_with = RecordedFile(path=str(path), sha256=sha256)
        if kept and kept.init and kept.init.path == str(path) and kept.init != self.began_with:
            raise ScenarioError(
                f"workload.init: {path}: is not the file that the run began with: its SHA-256 is {sha256[:16]}..., "
                f"and was {kept.init.sha256[:16]}...; put the file of then there"
            )
        return Weights(str(path), tensors)

    def workers(
        self,
        plan: Plan,
        indexes: Sequence[int],
        shared_process: bool,
        seat: int | None = None,
        resumed: bool = False,
    ) -> list[TorchWorker]:
        """Workers that compute. Sets torch's number of threads to the scenario's.

        shared_process: whether the workers share this process, and with it torch's random stream, as in a simulation.
        seat: the worker on whose device the worker of a rank computes, if that is not its own device.
        resumed: whether a checkpoint will replace what the workers begin with, so that no file of weights is read.
        """
        from .learning.build import build_workers, notes
        from .learning.process import prepare

        w, staged = self.scenario.workload, self._staged
        if seat is not None:
            staged = [staged[seat]] * plan.workers
        prepare(w.threads)
        initial = self._initial(resumed)
        made = _named(
            "workload",
            lambda: build_workers(
                plan,
                self.data,
                model=w.model.name,
                model_args=w.model.args,
                optimizer=w.optimizer.model_dump(),
                seed=self.scenario.seed,
                model_seed=w.model_seed,
                data_seed=w.data_seed,
                loaders=w.loaders,
                shared_process=shared_process,
                recipe=self.recipe,
                indexes=indexes,
                cost=self.cost,
                device="cpu" if shared_process else self.device(indexes[0] if seat is None else seat),
                staged=staged,
                health=self.scenario.health == "stop",
                initial=initial,
            ),
        )
        self.notes = [*self.data.notes, *notes(plan, made[0], w.model.name, w.loss.name)]
        return made

    @property
    def _staged(self) -> list[bool]:
        """For each worker, whether its device has memory of its own."""
        return [device.torch_device != "cpu" for device in self.timing.devices] if self.timing else []

    def device(self, index: int) -> str:
        """The torch device of a worker in this process. The workers of a host take its GPUs in turn.

        Where hosts are not known, the scenario's nodes count.
        """
        assert self.timing
        if not self._staged[index]:
            return "cpu"
        import torch

        if not torch.cuda.is_available():
            raise ScenarioError(
                "cluster: torch_device is cuda, but torch finds no CUDA device here; write torch_device: cpu"
            )
        nodes: Sequence[str | int] = self.hosts or self.timing.nodes
        before = sum(self._staged[other] and nodes[other] == nodes[index] for other in range(index))
        return f"cuda:{before % torch.cuda.device_count()}"

    @property
    def folders(self) -> tuple[Path, ...]:
        """The folders in which relative paths and modules are looked for, in this order."""
        return folders_of(self.scenario, self.folder)

    @property
    def _data(self) -> tuple[str, dict[str, Any]]:
        """The data's name and arguments, with paths that can be opened from the working folder."""
        name, args = self.scenario.workload.data.name, self.scenario.workload.data.args
        own = ":" in name
        if "path" in args:
            args["path"] = of_this_host(args["path"], "workload.data.path", own)
            args["path"] = args["path"] if own else self._found(args["path"])
        if name.endswith(".npz"):
            name = args.pop("path", str(find(Path(name), self.folders)))
        return name, args

    def _found(self, path: Any) -> Any:
        """A path, or several by name, that can be opened from the working folder."""
        if isinstance(path, dict):
            return {name: self._found(each) for name, each in path.items()}
        return str(find(Path(path), self.folders)) if isinstance(path, str) else path

    @property
    def _init(self) -> Path | None:
        """The file with the initial weights, as the scenario names it for this host."""
        path = of_this_host(self.scenario.workload.init, "workload.init")
        return None if path is None else Path(path)


def _named(key: str, action: Callable[[], T]) -> T:
    """What `action` returns; its ValueErrors become ScenarioErrors that begin with the key."""
    try:
        return action()
    except ValueError as error:
        raise ScenarioError(f"{key}: {error}") from error
