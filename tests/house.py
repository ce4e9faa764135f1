"""The tree as a graph: modules, what they import, what they define. Read from the sources; nothing is imported."""

from __future__ import annotations

import ast
from collections.abc import Iterable, Iterator, Mapping
from functools import cache
from pathlib import Path

Graph = Mapping[str, set[str]]
VERSION = "tlkit.__version__"


@cache
def trees(root: Path) -> dict[str, ast.Module]:
    """Each module's syntax tree by its path from the root, packages' own ``__init__`` among them."""
    return {str(path.relative_to(root)): ast.parse(path.read_text()) for path in sorted((root / "tlkit").rglob("*.py"))}


def imported(tree: ast.AST) -> Iterator[str]:
    """Dotted names that a module imports, inside functions too; ``from a import b`` is ``a.b``. For types only: not."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.dump(node.test):
            continue
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield from (f"{node.module}.{alias.name}" for alias in node.names)
        else:
            yield from imported(node)


def file_graph(root: Path) -> dict[str, set[str]]:
    """Which of tlkit's modules each imports."""
    names = {path.removesuffix(".py").removesuffix("/__init__").replace("/", "."): path for path in trees(root)}
    graph: dict[str, set[str]] = {}
    for path, tree in trees(root).items():
        # The package's own name and version are everybody's.
        found = {names.get(name) or names.get(name.rpartition(".")[0]) for name in imported(tree) if name != VERSION}
        graph[path] = {target for target in found if target and target != path}
    return graph


def folder_graph(root: Path) -> dict[str, set[str]]:
    """Which folders the modules of each folder import from. Modules at the top stand for themselves."""
    graph: dict[str, set[str]] = {}
    for path, targets in file_graph(root).items():
        here = _room(path)
        graph.setdefault(here, set()).update(there for target in targets if (there := _room(target)) != here)
    return graph


def _room(path: str) -> str:
    return path if path.count("/") == 1 else str(Path(path).parent)


def circles(graph: Graph) -> list[list[str]]:
    """The strongly connected components of more than one node (Tarjan 1972), each sorted."""
    index: dict[str, int] = {}
    low: dict[str, int] = {}
    stack: list[str] = []
    found: list[list[str]] = []

    def visit(node: str) -> None:
        index[node] = low[node] = len(index)
        stack.append(node)
        for target in graph.get(node, ()):
            if target not in index:
                visit(target)
                low[node] = min(low[node], low[target])
            elif target in stack:
                low[node] = min(low[node], index[target])
        if low[node] == index[node]:
            component = stack[stack.index(node) :]
            del stack[stack.index(node) :]
            if len(component) > 1:
                found.append(sorted(component))

    for node in graph:
        if node not in index:
            visit(node)
    return found


def private_imports(root: Path) -> list[str]:
    """Imports of ``_private`` modules from another folder than theirs."""
    return [
        f"{path} imports {target}"
        for path, targets in file_graph(root).items()
        for target in targets
        if Path(target).name.startswith("_") and Path(target).name != "__init__.py"
        and Path(target).parent != Path(path).parent
    ]  # fmt: skip


def classes(root: Path) -> dict[str, list[str]]:
    """Names of top-level classes and the modules that define them."""
    found: dict[str, list[str]] = {}
    for path, tree in trees(root).items():
        for node in tree.body:
            if isinstance(node, ast.ClassDef):
                found.setdefault(node.name, []).append(path)
    return found


def untested(root: Path) -> list[str]:
    """Modules without a test file of their name that no test's head says it covers (``covers tlkit/…``)."""
    heads = "\n".join(head(path) for path in sorted((root / "tests").rglob("test_*.py")))
    return [path for path in trees(root) if Path(path).name[:2] != "__" and not _tested(root, path, heads)]


def head(path: Path) -> str:
    """A module's docstring."""
    return ast.get_docstring(ast.parse(path.read_text())) or ""


def _tested(root: Path, path: str, heads: str) -> bool:
    inside = Path(path).relative_to("tlkit")
    return (root / "tests" / inside.parent / f"test_{inside.stem.lstrip('_')}.py").exists() or path in heads


def crowded(root: Path, most: int = 15, excepted: Iterable[str] = ("tlkit/mil/ops",)) -> list[str]:
    """Folders with more modules than ``most``."""
    counts: dict[str, int] = {}
    for path in trees(root):
        if Path(path).name != "__init__.py":
            counts[str(Path(path).parent)] = counts.get(str(Path(path).parent), 0) + 1
    return [f"{folder}: {count}" for folder, count in counts.items() if count > most and folder not in excepted]


HEAVY = {"torch", "coremltools", "numpy", "PIL", "rich", "google", "transformers", "safetensors", "gguf"}
HEAVY |= {"onnx", "onnxruntime", "onnxscript", "torchvision"}
"""Packages whose import costs what ``--help`` and ``inspect`` do not have."""


def long_functions(root: Path, most: int = 60) -> list[str]:
    """Functions of more than ``most`` lines of code: without signature, docstring, comments and blank lines."""
    found = []
    for path, tree in trees(root).items():
        lines = (root / path).read_text().splitlines()
        for node in ast.walk(tree):
            if isinstance(node, ast.FunctionDef):
                body = node.body[1:] if ast.get_docstring(node) is not None else node.body
                code = lines[body[0].lineno - 1 : node.end_lineno] if body else []
                count = sum(not line.strip().startswith("#") and bool(line.strip()) for line in code)
                if count > most:
                    found.append(f"{path}:{node.lineno} {node.name}: {count} lines")
    return found


def late_imports(root: Path, excepted: Iterable[str] = ()) -> list[str]:
    """Imports inside functions that spare nobody a heavy package, and of which no comment beside them says why.

    ``excepted`` are paths, or beginnings of paths, whose reason stands elsewhere.
    """
    names = {path.removesuffix(".py").removesuffix("/__init__").replace("/", "."): path for path in trees(root)}
    packages = _packages(root, names)
    found = []
    for path, tree in trees(root).items():
        if path.startswith(tuple(excepted)):
            continue
        lines = (root / path).read_text().splitlines()
        for node in _inside_functions(tree):
            spared = {package for name in _named(node) for package in _brings(name, names, packages)} - packages[path]
            if not spared and not any("#" in line for line in lines[max(node.lineno - 2, 0) : node.end_lineno]):
                found.append(f"{path}:{node.lineno} {', '.join(_named(node))}")
    return found


def _named(node: ast.Import | ast.ImportFrom) -> list[str]:
    if isinstance(node, ast.Import):
        return [alias.name for alias in node.names]
    return [f"{node.module}.{alias.name}" for alias in node.names]


def _inside_functions(tree: ast.Module) -> Iterator[ast.Import | ast.ImportFrom]:
    functions = (node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef))
    inner = {id(item): item for node in functions for item in ast.walk(node)}
    yield from (item for item in inner.values() if isinstance(item, ast.Import | ast.ImportFrom))


def _brings(name: str, names: Mapping[str, str], packages: Mapping[str, set[str]]) -> set[str]:
    """Heavy packages that an import brings along. torch's private parts cost what torch itself does not."""
    first, _, rest = name.partition(".")
    if first == "torch" and rest.startswith(("_", "fx.experimental")):
        return {f"torch.{rest}"}
    path = names.get(name) or names.get(name.rpartition(".")[0])
    return packages[path] if path else {first} & HEAVY


def _packages(root: Path, names: Mapping[str, str]) -> dict[str, set[str]]:
    """The heavy packages that each module imports when it is imported itself, by way of others too."""
    direct: dict[str, set[str]] = {}
    for path, tree in trees(root).items():
        late = {id(node) for node in _inside_functions(tree)}
        direct[path] = {name for node in _outside(tree) if id(node) not in late for name in _named(node)}
    found: dict[str, set[str]] = {}
    for path in direct:
        seen, waiting = set[str](), [path]
        while waiting:
            here = waiting.pop()
            if here not in seen:
                seen.add(here)
                targets = (names.get(name) or names.get(name.rpartition(".")[0]) for name in direct[here])
                waiting += [target for target in targets if target]
        found[path] = {name.split(".")[0] for here in seen for name in direct[here]} & HEAVY
    return found


def _outside(tree: ast.AST) -> Iterator[ast.Import | ast.ImportFrom]:
    """Imports that are no type checker's only."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.dump(node.test):
            continue
        if isinstance(node, ast.Import | ast.ImportFrom):
            yield node
        else:
            yield from _outside(node)
