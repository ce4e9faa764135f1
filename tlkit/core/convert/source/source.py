"""Load the PyTorch module that a SOURCE text names: a callable, TorchScript, an exported program, a model folder.

Code is run only where the user names code: a ``.pt`` is opened as TorchScript, never unpickled.
"""

from __future__ import annotations

import hashlib
import importlib
import importlib.util
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, redirect_stdout, suppress
from dataclasses import dataclass, replace
from difflib import get_close_matches
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

from tlkit.core.convert.source.hub import is_model_folder, load_folder
from tlkit.errors import LoadError, UsageError, reason
from tlkit.formats.base import sniff
from tlkit.host.interrupt import check, held
from tlkit.host.quiet import quiet
from tlkit.host.where import where
from tlkit.models import BUILTINS
from tlkit.types import TensorSpec

if TYPE_CHECKING:
    from torch import nn
    from torch.export import ExportedProgram

_FORMS = "SOURCE is file.py:callable, package.module:callable, a TorchScript .pt, a .pt2, "
_FORMS += "a Hugging Face model folder or a built-in: " + ", ".join(BUILTINS)


@dataclass(frozen=True, slots=True)
class Source:
    """A module to convert, the text that named it, and the inputs it comes with (built-ins do).

    ``program`` is the graph of a ``.pt2``, ``module`` then the same to be run. ``notes`` say what was done to load it.
    ``stored`` is the size in bytes of a file whose program is run untrusted, None for the user's own code.
    """

    module: nn.Module
    text: str
    ports: tuple[TensorSpec, ...] = ()
    program: ExportedProgram | None = None
    notes: tuple[str, ...] = ()
    stored: int | None = None


def load_source(
    source: str | Path | nn.Module,
    kwargs: Mapping[str, Any] | None = None,
    checkpoint: str | Path | None = None,
    trust: bool = False,
    strip_prefix: str | None = None,
) -> Source:
    """Return the module that ``source`` names, or is, with the weights of ``checkpoint``.

    ``kwargs`` are arguments for the callable that makes it; ``strip_prefix`` is cut from the checkpoint's names.
    ``trust`` opens a ``.pt`` or ``.pt2`` as torch does, even one whose code could do more than compute.

    Raises :class:`UsageError` for a text of no known form, :class:`LoadError` for anything that cannot be loaded.
    What the user's own code prints goes to stderr: stdout is the answer's.
    """
    with held(), quiet():
        import torch
    loaded = (
        Source(source, type(source).__name__) if isinstance(source, torch.nn.Module) else _named(source, kwargs, trust)
    )
    if kwargs and not (_is_code(loaded.text) or Path(loaded.text).is_dir()):
        hint = "those are for file.py:callable, package.module:callable and Hugging Face folders"
        raise UsageError(f"{loaded.text}: takes no --kwargs", hint)
    if checkpoint is not None:
        if loaded.program is not None or isinstance(loaded.module, torch.jit.ScriptModule):
            raise UsageError(f"{loaded.text}: takes no --checkpoint", "it has its weights; name a Python callable")
        from tlkit.core.convert.source.checkpoint import load_checkpoint

        notes = load_checkpoint(loaded.module, Path(checkpoint), strip_prefix)
        loaded = replace(loaded, notes=(*loaded.notes, *notes))
    return loaded


def _is_code(text: str) -> bool:
    place, colon, attribute = text.rpartition(":")
    return bool(colon and attribute and place) and not Path(text).exists()


def _named(source: str | Path, kwargs: Mapping[str, Any] | None, trust: bool) -> Source:
    text = str(source)
    if text in BUILTINS:
        builtin = BUILTINS[text]
        return Source(builtin.build(), text, (TensorSpec(builtin.input_name, "float32", builtin.shape),))
    if _is_code(text):
        place, _, attribute = text.rpartition(":")
        return Source(_from_code(text, place, attribute, kwargs or {}), text)
    return _from_file(Path(text), text, kwargs, trust)


def _from_file(path: Path, text: str, kwargs: Mapping[str, Any] | None, trust: bool) -> Source:
    if is_model_folder(path):
        module, ports = load_folder(path, kwargs)
        return Source(module, text, ports)
    if path.suffix == ".pt2" and path.is_file():
        from tlkit.core.convert.source.opened import Runnable, open_program

        program, ports = open_program(path, trust)
        return Source(Runnable(program), text, ports, program, stored=None if trust else path.stat().st_size)
    module = _torchscript(path, trust)
    return Source(module, text, stored=None if trust else path.stat().st_size)


def _from_code(text: str, place: str, attribute: str, kwargs: Mapping[str, Any]) -> nn.Module:
    is_file = place.endswith(".py") or "/" in place or Path(place).is_file()
    # As Python does: a file imports from its folder, a module from the current one.
    with redirect_stdout(sys.stderr), _import_paths(Path(place).resolve().parent if is_file else Path.cwd()):
        namespace = _guard(text, lambda: _import_file(Path(place)) if is_file else _import_module(place))
        found = _attribute(text, namespace, attribute)
        return _module(text, found, kwargs)


@contextmanager
def _import_paths(folder: Path) -> Iterator[None]:
    """Let the body import from ``folder``, without leaving a ``__pycache__`` there."""
    before, sys.dont_write_bytecode = sys.dont_write_bytecode, True
    sys.path.insert(0, str(folder))
    try:
        yield
    finally:
        sys.dont_write_bytecode = before
        if str(folder) in sys.path:
            sys.path.remove(str(folder))


def _import_file(path: Path) -> ModuleType:
    if not path.is_file():
        raise LoadError(f"{path}: no such file", _FORMS)
    # Two files may have the same name, so the path is hashed in.
    name = f"_tlkit_source_{path.stem}_{hashlib.sha1(bytes(path.resolve())).hexdigest()[:8]}"
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None or spec.loader is None:
        raise LoadError(f"{path}: not a Python file", _FORMS)
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # dataclasses and the like look their module up while it is being imported
    try:
        spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[name]
        raise
    return module


def _import_module(name: str) -> ModuleType:
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        # The module itself is missing, not one that it imports.
        if error.name and (name == error.name or name.startswith(f"{error.name}.")):
            raise LoadError(f"no module named '{error.name}'", _FORMS) from error
        raise


def _attribute(text: str, namespace: ModuleType, dotted: str) -> Any:
    found: Any = namespace
    for name in dotted.split("."):
        if not hasattr(found, name):
            close = get_close_matches(name, dir(found), n=1)
            public = [key for key, value in vars(namespace).items() if not key.startswith("_") and callable(value)]
            hint = f"did you mean {close[0]}?" if close else f"it has {', '.join(public[:8]) or 'no callable'}"
            raise LoadError(f"{text}: there is no '{name}' in it", hint)
        found = getattr(found, name)
    return found


def _module(text: str, found: Any, kwargs: Mapping[str, Any]) -> nn.Module:
    from torch import nn

    # An instance of a module is callable too, and is not to be called.
    made = isinstance(found, nn.Module) or not callable(found)
    if made and kwargs:
        raise UsageError(f"{text}: is {_kind(found)}, which takes no --kwargs", "name a class or a function")
    module = found if made else _guard(text, lambda: found(**kwargs))
    if not isinstance(module, nn.Module):
        what = f"returns {_kind(module)}" if callable(found) else f"is {_kind(module)}"
        hint = "name a class, an instance, or a function without arguments that returns a torch.nn.Module"
        raise LoadError(f"{text} {what}, not a torch.nn.Module", hint)
    return module


def _kind(value: Any) -> str:
    return "None" if value is None else f"of type {type(value).__name__}"


def _guard(text: str, call: Callable[[], Any]) -> Any:
    """Run the user's code; an exception in it becomes one line with its reason and place."""
    try:
        return call()
    except LoadError:
        raise
    except (Exception, SystemExit) as error:
        check()  # a SIGTERM is a SystemExit too, and none of the user's
        said = reason(error, whole=True, named=True)
        hint = "run it with TLKIT_DEBUG=1 for the traceback"
        raise LoadError(f"{text}: {said}{_place(error)}", hint) from error


def _place(error: Exception | SystemExit) -> str:
    return "" if isinstance(error, SyntaxError) else where(error, __file__)  # a SyntaxError's message holds it


def _torchscript(path: Path, trust: bool) -> nn.Module:
    if not path.exists():
        raise _nothing_there(str(path))
    if path.is_dir() or path.suffix == ".py":
        raise UsageError(f"{path}: a {'folder' if path.is_dir() else 'Python file'} does not name a model", _FORMS)
    _refuse_other_formats(path)
    from tlkit.core.convert.source.torchscript import open_script

    return open_script(path, trust)


def _refuse_other_formats(path: Path) -> None:
    """Raise LoadError for files of other formats, saying what tlkit can do with them."""
    found: sniff.Format | None = None
    with suppress(LoadError):  # not known by sight: damaged, perhaps, which the archive tells better
        found = sniff.detect(path)
    if found in (sniff.Format.SAFETENSORS, sniff.Format.GGUF):
        hint = f"name the module that they are for: file.py:callable --checkpoint {path}"
        hint += "; two language models are compared by `tlkit run --perplexity FILE`"
        raise LoadError(f"{path}: {found} weights without the module that they are for", hint)
    if found is sniff.Format.ONNX:
        raise LoadError(f"{path}: ONNX, which coremltools does not convert", "convert the PyTorch model behind it")


def _nothing_there(text: str) -> UsageError | LoadError:
    close = get_close_matches(text, BUILTINS, n=1)
    if close:
        return UsageError(f"no built-in or file '{text}'", f"did you mean {close[0]}?")
    if Path(text).suffix in (".pt", ".pt2", ".pth", ".ts", ".py"):
        return LoadError(f"{text}: no such file", _FORMS)
    return UsageError(f"'{text}' names no model", _FORMS)
