"""``load_model``: load a file as a :class:`Model` that predicts, with Core ML where it exists, else with torch."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from tlkit.core.emulate.choose import Emulated, Emulator, emulated, emulator
from tlkit.core.model.agreement import check_ports
from tlkit.core.model.custom import hooks
from tlkit.core.model.engines import check_refusals, check_settings, choose
from tlkit.engines.classic.kind import RUN_BY, refuse_unrun
from tlkit.engines.engine import Can, Checking, Engine, HowToRun, Loadable, Watching
from tlkit.engines.pipeline import PipelineEngine
from tlkit.errors import LoadError, UnavailableError, UsageError
from tlkit.formats.coreml.legacy import NETWORKS
from tlkit.formats.fetch import local
from tlkit.host import budget
from tlkit.mil.units.profiles import AUTO
from tlkit.types import Metadata, ModelInfo, TensorSpec, Unit
from tlkit.words import Told

if TYPE_CHECKING:
    from tlkit.core.model.known import Known
    from tlkit.engines.torch.finite import Stray
    from tlkit.engines.torch.state import State
    from tlkit.engines.torch.watch import Seen
    from tlkit.formats.base.tensors import TensorFile, Tensors
    from tlkit.formats.coreml.package import Package
    from tlkit.frontends.network.network import NeuralNetwork
    from tlkit.mil.program import Function, Program


_LINKS = 8
"""How many linked models may lead to one another."""


def inspect(path: str | os.PathLike[str], *, format: str | None = None) -> ModelInfo:
    """Describe the model file at ``path`` without loading its weights; imports neither torch nor coremltools.

    ``format`` (coreml, safetensors, gguf, pytorch, onnx, numpy) overrides what the content says.
    """
    from tlkit.formats.describe import describe

    return describe(Path(path), format)


def load_model(
    path: str | os.PathLike[str],
    *,
    precision: str = "f16",
    engine: str = "auto",
    unit: str | Unit = Unit.CPU,
    function: str | None = None,
    strict_mil: bool = False,
    stage: int | str | None = None,
    custom: Mapping[str, Any] | None = None,
    cache: bool = True,
    streams: int = 1,
    emulate: str | None = None,
    chip: str | None = None,
) -> Model:
    """Load the model at ``path``, whatever its format (told from the content, not the extension).

    ``path`` may be an address: ``hf://org/name[@revision][/file]``, ``https://...``, or ``-`` for stdin.

    ``precision="f16"`` runs the program as it is written, rounding what it declares fp16; ``"f32"`` skips the rounding.
    ``engine`` is ``"eager"`` (PyTorch, the reference), ``"compile"`` (``torch.compile``), ``"openvino"`` or
    ``"onnxruntime"`` (extras of those names), or ``"auto"``: PyTorch for the first inferences, and then the fastest of
    them that is installed and takes the program (``docs/engines.md``). With OpenVINO there is ``precision="bf16"``,
    which is fast and not faithful. ``cache=False`` keeps compiled models out of the user's cache folder.
    ``streams`` is how many inferences are going to run at once, from as many threads (0: the engine's own choice, see
    :meth:`Model.streams`); OpenVINO and ONNX Runtime then split their threads among them.
    ``function`` picks one of a multifunction package.
    On a Mac, ``unit`` is Core ML's own setting; elsewhere ``cpu`` or ``gpu``, run by torch. Where Core ML was measured
    to depart from MIL's specification, torch does what Core ML does; ``strict_mil`` asks for the specification (which
    is run by torch on a Mac, too). ``docs/fidelity.md`` lists those places. ``stage`` is one stage of a pipeline by its
    number, from 0, or its name, to be run by itself; with ``..`` after that it is the pipeline from there on.

    ``emulate`` runs f16 operations by what was published of a unit's arithmetic: ``"ane"``, ``"ane-m1"``, ``"cpu"``,
    ``"gpu"``, or ``"auto"``: each operation by the unit that is predicted for it under ``unit`` on ``chip``.
    :attr:`Model.emulated` says what that rested on.

    ``custom`` names what runs a neural network's custom layers: by their class, a function or its ``module:name``. It
    is called with an array for each input and ``parameters=`` (a dictionary) and ``weights=`` (a list of flat arrays),
    and returns an array for each output. Arrays have the shape that the network sees: [Seq, B, C, H, W] where its
    arrays are of rank 5.
    """
    unit = unit if isinstance(unit, Unit) else Unit.parse(unit)
    how = emulator(emulate, unit, chip)
    # What is emulated runs here, whatever unit is asked about; a GPU that is asked for by a profile's name is used.
    here = unit if how is None or (emulate != AUTO and unit is Unit.GPU) else Unit.CPU
    settings = HowToRun(
        precision, engine, here, strict_mil, part=stage is not None, cache=cache, streams=streams, emulate=how
    )
    check_settings(settings)
    model = _open(local(path), settings, function, stage, hooks(custom or {}))
    model.emulation = (emulate, unit, chip) if how is not None and emulate is not None else None
    return model


def _open(
    path: Path, settings: HowToRun, function: str | None, stage: int | str | None, custom: Mapping[str, Any]
) -> Model:
    from tlkit.formats.base.sniff import COREML
    from tlkit.formats.describe import describe_tensors, find_format, open_tensors

    if find_format(path) not in COREML:
        if stage is not None:
            raise UsageError(f"{path}: not a Core ML model, so it has no stages", "leave --stage out")
        source = open_tensors(path)
        return Model(path, source, describe_tensors(source), settings)
    from tlkit.formats.coreml.describe import describe_package
    from tlkit.formats.coreml.open import open_package

    package = open_package(path)
    if stage is not None:
        package = package.stage(stage)
    return Model(path, package, describe_package(package, function), settings, function, stage, custom)


class Model(Told):
    """A loaded model. ``predict`` takes and returns what Core ML's own ``MLModel.predict`` does."""

    def __init__(
        self,
        path: Path,
        opened: Package | TensorFile,
        info: ModelInfo,
        settings: HowToRun,
        function: str | None = None,
        stage: int | str | None = None,
        custom: Mapping[str, Any] | None = None,
        links: int = 0,
    ) -> None:
        from tlkit.formats.coreml.package import Package

        self.path = path
        self.info = info
        self._opened = opened
        self._package = opened if isinstance(opened, Package) else None
        self._settings = settings
        self._engines: dict[str, Engine] = {}
        self._which = stage
        self._custom, self._links = dict(custom or {}), links
        self.emulation: tuple[str, Unit, str | None] | None = None
        self._function = function or (self._package.default_function if self._package else None)

    def facts(self) -> list[tuple[str, object]]:
        """See :class:`~tlkit.words.Told`: what the model is, and what will run it."""
        how = self._settings
        return [*self.info.facts(), ("runs on", f"{how.unit}, {how.mode}, {how.precision}")]

    @property
    def metadata(self) -> Metadata:
        """The model's own metadata, including ``format`` and ``quantization``."""
        return self.info.metadata

    @property
    def inputs(self) -> tuple[TensorSpec, ...]:
        """The inputs, in order."""
        return self.info.inputs

    @cached_property
    def _ports(self) -> Mapping[str, TensorSpec]:
        return {spec.name: spec for spec in self.inputs}

    @cached_property
    def _network(self) -> NeuralNetwork | None:
        """The neural network of before mlprograms that the model is, if it is one."""
        if self._package is None or self.info.kind not in NETWORKS:
            return None
        from tlkit.frontends.espresso.model import network_of
        from tlkit.frontends.network.network import NeuralNetwork

        try:
            return NeuralNetwork(network_of(self._unpacked(self._package)), self._custom)
        except LoadError as error:
            raise self._blamed(error) from None

    @cached_property
    def known(self) -> Known:
        """What can be drawn for the inputs beyond what their ports say."""
        from tlkit.core.model.known import Known, known_values
        from tlkit.core.model.texts import tokenizer_of

        shapes = self._network.usual_shapes() if self._network is not None else {}
        return Known(known_values(self._package.model) if self._package else {}, shapes, tokenizer_of(self.path))

    @cached_property
    def stored(self) -> int:
        """The bytes that the model's files have on disk."""
        return sum(self.info.sizes.values())

    @property
    def outputs(self) -> tuple[TensorSpec, ...]:
        """The outputs, in order."""
        return self.info.outputs

    @property
    def program(self) -> Program | None:
        """The MIL program, or None for a model of another kind."""
        return self._package.program if self._package else None

    def function(self, shapes: Mapping[str, tuple[int, ...]] | None = None) -> Function:
        """Return the MIL function that runs; LoadError for models without one.

        A neural network's is made for inputs of ``shapes``, for its ports' own where they are left out.
        """
        if self._network is not None:
            try:
                return self._network.function(shapes)
            except LoadError as error:
                raise self._blamed(error) from error.__cause__
        if self.program is None:
            raise LoadError(f"{self.path}: a {self.info.kind} model has no MIL program", "this needs an mlprogram")
        return self.program.function(self._function)

    def tensors(self) -> Tensors:
        """Return the weights by name: each is read when its ``numpy()`` is called, and decoded if it has to be."""
        from tlkit.formats.base.tensors import Tensors
        from tlkit.formats.coreml.package import Package

        if self._package:
            from tlkit.formats.coreml.tensors import CoreMLTensors

            return Tensors(CoreMLTensors(self._unpacked(self._package)))
        assert not isinstance(self._opened, Package)
        return Tensors(self._opened)

    def _unpacked(self, package: Package) -> Package:
        """Return a package whose weights are files: a zipped one is unpacked, once."""
        from tlkit.formats.base.sniff import Format, detect
        from tlkit.formats.coreml.open import open_package

        # Once it is unpacked, the package's root is the folder.
        if detect(self.path) is Format.ZIPPED_MLPACKAGE and package.root == self.path:
            from tlkit.formats.coreml.zipped import ZippedPackage, unpack

            assert isinstance(package, ZippedPackage)
            self._archive = package  # the unpacked files live as long as the archive does
            self._package = package = open_package(unpack(package))
            # The stage was one of the archive's: take the same one of the files.
            if self._which is not None:
                self._package = package = package.stage(self._which)
        return package

    @cached_property
    def engine(self) -> Engine:
        """The engine that runs the model, created on first use: the first in the table that can."""
        if self._package is None:
            raise UnavailableError(
                f"{self.path}: running {self.info.metadata.format} comes later: tlkit runs Core ML mlprograms so far",
                "add --prompt to a language model; `tlkit inspect` shows what the file can be used for",
            )
        package = self._unpacked(self._package)
        # Core ML runs a pipeline by itself; elsewhere its stages run one after another.
        if choose(self._settings, self.info.kind) is None:
            if self.info.kind.startswith("pipeline"):
                return self._pipeline(package)
            if self.info.kind == "linkedModel":
                return PipelineEngine([self._linked(package)])
        return self._load(frozenset())

    def _pipeline(self, package: Package) -> Engine:
        try:
            refuse_unrun([stage.model for stage in package.stages()])
        except LoadError as error:
            raise self._blamed(error) from None
        stages = [self._stage(stage) for stage in package.stages()]
        outer = package.model.description
        # A pipeline may call a classifier's outputs otherwise than its last stage does.
        inner = stages[-1]._package.model.description if stages and stages[-1]._package else outer
        names = ("predictedFeatureName", "predictedProbabilitiesName")
        renamed = {getattr(inner, name): getattr(outer, name) for name in names if getattr(outer, name)}
        made = {spec.name for ports in (self.inputs, *(stage.outputs for stage in stages)) for spec in ports}
        lost = [spec.name for spec in self.outputs if spec.name not in made | set(renamed.values())]
        if lost:
            raise LoadError(
                f"{self.path}: no stage makes the output '{lost[0]}'", "the file is damaged: fetch it again"
            )
        return PipelineEngine(stages, renamed)

    def _load(self, needs: frozenset[Can]) -> Engine:
        """Return the first engine that can do ``needs``, with the model loaded; each is made once."""
        kind = choose(self._settings, self.info.kind, needs)
        if kind is None:
            check_refusals(self._settings, self.info.kind, needs)
            raise LoadError(
                f"{self.path}: a {self.info.kind} model, which tlkit does not run",
                "convert its source with `tlkit convert`",
            )
        if kind.name not in self._engines:
            try:
                self._engines[kind.name] = kind.load(self.loadable(), self._settings)
            except LoadError as error:
                raise self._blamed(error) from None
        return self._engines[kind.name]

    def loadable(self, path: Path | None = None) -> Loadable:
        """Return what an engine loads: the model, or what was compiled of it at ``path``."""
        package = self._unpacked(self._package) if self._package else None
        place = path or (package.root if package else self.path)
        if package is not None and self.info.kind in RUN_BY:
            package.require_weights()  # of a compiled model: that its form is known
        message = package.model if package else None
        shaped = None if self._network is None else self._network.function
        return Loadable(place, self.inputs, self.outputs, self._function, self._program_to_run, message, shaped)

    def _program_to_run(self) -> Function:
        if self._package is not None and self._package.program is not None:
            self._package.require_weights()
        function = self.function()
        if self._network is None:  # a network's layers are checked as its program is made
            check_ports(function, self.inputs, self.outputs)
        return function

    def _blamed(self, error: LoadError) -> LoadError:
        if str(self.path) in error.message:
            return error
        return LoadError(f"{self.path}: {error.message}", error.hint)

    def _stage(self, package: Package) -> Model:
        from tlkit.formats.coreml.describe import describe_package

        settings = replace(self._settings, part=True)
        return Model(self.path, package, describe_package(package), settings, custom=self._custom, links=self._links)

    def _linked(self, package: Package) -> Model:
        from tlkit.formats.coreml.describe import describe_package
        from tlkit.formats.coreml.open import open_linked

        if self._links >= _LINKS:
            raise LoadError(f"{self.path}: models link to each other without end", "one of them has to compute")
        found, links = open_linked(package), self._links + 1
        return Model(found.root, found, describe_package(found), self._settings, custom=self._custom, links=links)

    def prepare(self) -> None:
        """Load the engine now, so that errors appear here and not at the first prediction."""
        _ = self.engine

    def predict(self, inputs: Mapping[str, Any], state: State | None = None) -> dict[str, Any]:
        """Run one inference on numpy arrays, PIL images, paths or scalars; return the outputs by name.

        Tensors come back as float32, float64 or int32 arrays, images as PIL images, a classifier's result as its
        label and a dictionary of probabilities. ``state`` is one of :meth:`make_state`'s and is updated.

        In the fork of a process that had imported PyTorch its threads are missing, so the first prediction there sets
        PyTorch to one thread; a later ``torch.set_num_threads`` takes precedence. A CUDA device cannot be used in a
        fork.
        """
        from tlkit.core.model.outputs import from_ports

        with budget.drawn(_all_drawn(inputs)):
            raw = self.engine.run(self.arrays(inputs), state)
        return from_ports(self.outputs, raw)

    def predict_rows(self, rows: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
        """Run one inference for each of ``rows``, as :meth:`predict` does; return their outputs.

        Trees, linear models and the like compute all rows together, which is many times faster than one by one;
        OpenVINO is given all of them at once, which saves some of what is around an inference.
        """
        import numpy as np

        if getattr(self.engine, "run_rows", None) is None:
            return [self.predict(row) for row in rows]
        plain = all(spec.kind == "tensor" and spec.dtype and not spec.flexible for spec in self.inputs)
        wanted = {spec.name: (spec.shape, np.dtype(spec.dtype)) for spec in self.inputs} if plain else {}
        return self.run_rows([row if plain and _are_ready(wanted, row) else self.arrays(row) for row in rows])

    def run_rows(self, rows: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
        """Run one inference for each of ``rows``, which :meth:`arrays` returned; return outputs as :meth:`predict`."""
        from tlkit.core.model.outputs import from_ports

        together = getattr(self.engine, "run_rows", None)
        found = [self.engine.run(row) for row in rows] if together is None else together(rows)
        outputs = [spec for spec in self.outputs if found and spec.name in found[0]]
        return [from_ports(outputs, raw) for raw in found]

    def watch(self, inputs: Mapping[str, Any], seen: Seen, state: State | None = None) -> dict[str, Any] | None:
        """Run one inference operation by operation, with torch (on a Mac too), and show each to ``seen``.

        ``seen`` is called with the operation and a function that returns its values by name, and returns True to stop:
        None is returned then, otherwise the outputs as :meth:`predict` gives them.
        """
        from tlkit.core.model.outputs import from_ports

        engine = cast("Watching", self._load(frozenset({Can.WATCH})))
        raw = engine.watch(self.arrays(inputs), seen, state)
        # None where `seen` stopped it.
        return raw and from_ports(self.outputs, raw)

    @property
    def emulated(self) -> Emulated | None:
        """What the last runs rested on, where the model runs by the profile of a unit; None otherwise."""
        if self.emulation is None:
            return None
        how = self._settings.emulate
        return emulated(how.made, *self.emulation) if isinstance(how, Emulator) and how.made else None

    @property
    def checkable(self) -> bool:
        """Whether :meth:`check` runs it as :meth:`predict` does: eagerly, on PyTorch."""
        kind = choose(self._settings, self.info.kind)
        return kind is not None and kind.checks(self._settings)

    def check(self, inputs: Mapping[str, Any], state: State | None = None) -> tuple[dict[str, Any], Stray | None]:
        """Run one inference with torch; return what :meth:`predict` does, and the first operation that made something
        infinite or NaN of finite values."""
        from tlkit.core.model.outputs import from_ports

        engine = cast("Checking", self._load(frozenset({Can.CHECK})))
        raw, stray = engine.check(self.arrays(inputs), state)
        return from_ports(self.outputs, raw), stray

    def bind(self, inputs: Mapping[str, Any], state: State | None = None) -> Callable[[], Any]:
        """Convert ``inputs`` once; each call of what is returned runs exactly one inference on them."""
        return self.engine.bind(self.arrays(inputs), state)

    def streams(self, inputs: Mapping[str, Any]) -> int:
        """Return how many inferences on inputs like these the engine runs at once with the most throughput, compiling
        the model if that is needed: 1 unless the model was loaded with ``streams``."""
        told = getattr(self.engine, "streams", None)
        return int(told(self.arrays(inputs))) if told else 1

    def make_state(self) -> State | None:
        """Return a fresh state, all zeros, for a stateful model (an empty one otherwise, none for a pipeline)."""
        state: State | None = self.engine.make_state()
        return state

    def arrays(self, inputs: Mapping[str, Any]) -> dict[str, Any]:
        """Return ``inputs`` as the engine takes them: arrays of the ports' types and shapes, defaults filled in."""
        import numpy as np

        from tlkit.core.model.features import check_choice, listed
        from tlkit.core.model.inputs import port_named, to_port

        specs = self._ports
        for name in inputs:
            if name not in specs:
                port_named(self.inputs, name, str(self.path))
        asked = [spec for spec in self.inputs if spec.name in inputs or not self.may_lack(spec)]
        stored = self.stored
        arrays = {spec.name: to_port(spec, self._given(spec, inputs), stored=stored) for spec in asked}
        # Core ML's own restriction, which MIL does not have.
        if not self._settings.strict_mil:
            check_choice(self.inputs, {name: np.shape(arrays[name]) for name in inputs if listed(specs[name])})
        return arrays

    def may_lack(self, spec: TensorSpec) -> bool:
        """Whether a missing input stays missing: a pipeline's stages have their own values for it."""
        staged = self.info.kind.startswith("pipeline") or self.info.kind == "nonMaximumSuppression"
        return staged and spec.optional and spec.default is None

    def _given(self, spec: TensorSpec, inputs: Mapping[str, Any]) -> Any:
        if spec.name in inputs:
            return inputs[spec.name]
        if not spec.optional:
            raise UsageError(
                f"{self.path}: the input '{spec.name}' is missing", f"give it with --input {spec.name}=FILE"
            )
        import numpy as np

        said = budget.over(math.prod(spec.shape), budget.warranted(self.stored))
        if said:
            raise UsageError(f"input '{spec.name}': its shape has {said[0]}", said[1])
        # Some models leave the type of a port open; to_port then takes the same.
        return np.full(spec.shape, spec.default or 0, dtype=spec.dtype or "float32")


def _all_drawn(inputs: Mapping[str, Any]) -> bool:
    """Whether none of the values is the user's: those justify larger results than values from the file alone."""
    from tlkit.core.model.inputs import Drawn

    return all(isinstance(value, Drawn) for value in inputs.values()) or budget.is_drawn()


def _are_ready(wanted: Mapping[str, tuple[tuple[int, ...], Any]], row: Mapping[str, Any]) -> bool:
    """Whether each input is there, an array of the port's one shape, in its type."""
    return row.keys() == wanted.keys() and all(
        (getattr(value, "shape", None), getattr(value, "dtype", None)) == wanted[name] for name, value in row.items()
    )
