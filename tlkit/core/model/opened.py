"""An opened model file: what it holds, and which engine runs it. :class:`~tlkit.core.model.load.Model` predicts."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from tlkit.core.model.agreement import check_ports
from tlkit.core.model.engines import check_refusals, choose
from tlkit.engines.classic.kind import RUN_BY, refuse_unrun
from tlkit.engines.engine import Can, Engine, HowToRun, Loadable
from tlkit.engines.pipeline import PipelineEngine
from tlkit.errors import LoadError, UnavailableError
from tlkit.formats.coreml.legacy import NETWORKS
from tlkit.types import Metadata, ModelInfo, TensorSpec, Unit
from tlkit.words import Told

if TYPE_CHECKING:
    from tlkit.core.model.known import Known
    from tlkit.formats.base.tensors import TensorFile, Tensors
    from tlkit.formats.coreml.package import Package
    from tlkit.frontends.network.network import NeuralNetwork
    from tlkit.mil.program import Function, Program

_LINKS = 8
"""How many linked models may lead to one another."""


class ModelFile(Told, ABC):
    """An opened model: its file and what that says, and the engine that runs it, loaded on first use."""

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
                f"{self.path}: {self.info.metadata.format} files do not run by themselves, except language models",
                "a language model takes --prompt TEXT, --chat or --embed; `tlkit compare` runs ONNX, .pt2 and .pt",
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

    def _stage(self, package: Package) -> Self:
        from tlkit.formats.coreml.describe import describe_package

        settings = replace(self._settings, part=True)
        return type(self)(
            self.path, package, describe_package(package), settings, custom=self._custom, links=self._links
        )

    def _linked(self, package: Package) -> Self:
        from tlkit.formats.coreml.describe import describe_package
        from tlkit.formats.coreml.open import open_linked

        if self._links >= _LINKS:
            raise LoadError(f"{self.path}: models link to each other without end", "one of them has to compute")
        found, links = open_linked(package), self._links + 1
        return type(self)(found.root, found, describe_package(found), self._settings, custom=self._custom, links=links)

    @abstractmethod
    def predict_rows(self, rows: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
        """Run one inference for each of ``rows``, as a stage of a pipeline does; return their outputs."""

    def prepare(self) -> None:
        """Load the engine now, so that errors appear here and not at the first prediction."""
        _ = self.engine
