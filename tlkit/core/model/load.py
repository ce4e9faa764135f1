"""``load_model``: load a file as a :class:`Model` that predicts, with Core ML where it exists, else with torch."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from tlkit.core.emulate.choose import Emulated, Emulator, emulated, emulator
from tlkit.core.model.custom import hooks
from tlkit.core.model.engines import check_settings, choose
from tlkit.core.model.opened import ModelFile
from tlkit.engines.engine import Can, Checking, HowToRun, Watching
from tlkit.errors import UsageError
from tlkit.formats.fetch import local
from tlkit.host import budget
from tlkit.mil.units.profiles import AUTO
from tlkit.types import ModelInfo, TensorSpec, Unit

if TYPE_CHECKING:
    from tlkit.engines.torch.finite import Stray
    from tlkit.engines.torch.state import State
    from tlkit.engines.torch.watch import Seen


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


class Model(ModelFile):
    """A loaded model. ``predict`` takes and returns what Core ML's own ``MLModel.predict`` does."""

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
