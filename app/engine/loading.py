"""From `./graphs/chat.py:graph` or `package.module:graph` to the object of that name.

A file gets a name in `sys.modules` that is the same in every process: the types of a thread's state are stored by the
name of their module and looked up by it after a restart. The name depends on the file's place and on the
configuration alone, never on how the server was started:

- in a package (directories with an `__init__.py`): the dotted name from the package's top, so relative imports work;
- otherwise in a directory that `dependencies` names: the dotted name from there, which other files import it by;
- where that name is not importable, or means another file: one below `runstream_graphs`, made from the file's path
  relative to the configuration.
"""

import hashlib
import importlib
import importlib.util
import inspect
import os
import re
import sys
import traceback
from collections.abc import Iterable, Iterator, Mapping, Sequence
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import ModuleType

from dotenv import load_dotenv
from langgraph.graph import StateGraph
from langgraph.pregel import Pregel

from app.errors import ConfigInvalid

NAMESPACE = "runstream_graphs"
MAX_REASON_CHARS = 500
_MISSING = object()


class LoadFailed(Exception):
    """A source that leads to no object; `str(error)` is a sentence with the file, the attribute and the reason."""


def load_env(env: str | Mapping[str, str], folder: Path) -> None:
    """Puts variables into the environment, never over one that is set.

    A file is relative to `folder`, and may be missing. Raises `ConfigInvalid` for what the system does not take.
    """
    try:
        if isinstance(env, str):
            load_dotenv(folder / env, override=False)
            return
        for name, value in env.items():
            os.environ.setdefault(name, value)
    except (OSError, ValueError) as error:
        raise ConfigInvalid(f"env can't be loaded: {reason(error)}") from error


def add_dependencies(dependencies: Sequence[str], folder: Path) -> tuple[Path, ...]:
    """Makes local directories ("." or "./x") importable, in front of what is installed; returns them.

    The names of packages are left to the installer. A project in src layout has its `src` added too, since that is
    where installing it would have made its packages importable from.
    """
    roots: list[Path] = []
    for dependency in dependencies:
        directory = (folder / dependency).resolve()
        if not dependency.startswith(".") or not directory.is_dir():
            continue
        if (directory / "src").is_dir() and any(
            (directory / name).is_file() for name in ("pyproject.toml", "setup.py")
        ):
            roots.append(directory / "src")
        roots.append(directory)
    missing = [str(root) for root in dict.fromkeys(roots) if str(root) not in sys.path]
    sys.path[:0] = missing
    importlib.invalidate_caches()  # a file written a moment ago is not in the finders' listings yet
    return tuple(roots)


def load_object(source: str, *, folder: Path, roots: Sequence[Path]) -> object:
    """Imports a source and returns its attribute.

    `folder` is what paths are relative to, `roots` what `add_dependencies` returned. Raises `LoadFailed`, whatever the
    user's code does, `SystemExit` included; the exception is its `__cause__`.
    """
    place, colon, attribute = source.rpartition(":")
    if not colon or not place or not attribute:
        raise LoadFailed(f"{source!r} must be a file or a module, a colon, and the name of an attribute of it.")
    is_file = place.endswith(".py") or "/" in place or "\\" in place
    file = (folder / place).resolve() if is_file else None
    if file is not None and not file.is_file():
        raise LoadFailed(f"{source}: there is no file {place}.")
    try:
        module = importlib.import_module(place) if file is None else _import_file(file, folder.resolve(), roots)
        found = getattr(module, attribute, _MISSING)
    except (Exception, SystemExit) as error:
        raise LoadFailed(f"{source}: {place} can't be imported: {reason(error, file)}") from error
    if found is _MISSING:
        raise LoadFailed(f"{source}: there is no {attribute!r} in {place}; {_graphs_in(module)}.")
    return found


def reason(error: BaseException, file: Path | None = None) -> str:
    """An exception as one line, `ImportError: no such thing`, with the line of `file` that it came from, if it did."""
    if isinstance(error, SyntaxError):
        return f"{type(error).__name__}: {error}"  # which names the file and the line by itself
    message = " ".join("".join(traceback.format_exception_only(error)).split()).removesuffix(":")
    if len(message) > MAX_REASON_CHARS:
        message = message[: MAX_REASON_CHARS - 1] + "…"
    line = None if file is None else _line(error, file)
    return message if line is None else f"{message} (line {line})"


def _line(error: BaseException, file: Path) -> int | None:
    frames = traceback.walk_tb(error.__traceback__)
    lines = [line for frame, line in frames if _is_same(Path(frame.f_code.co_filename), file)]
    return lines[-1] if lines else None


def _graphs_in(module: ModuleType) -> str:
    def is_candidate(value: object) -> bool:
        is_own_function = inspect.isfunction(value) and value.__module__ == module.__name__
        return isinstance(value, Pregel | StateGraph) or is_own_function

    names = [name for name, value in vars(module).items() if not name.startswith("_") and is_candidate(value)]
    return f"it has {', '.join(names)}" if names else "it has nothing that could be a graph"


def _import_file(file: Path, folder: Path, roots: Sequence[Path]) -> ModuleType:
    package = _package(file)
    if package is not None:
        _make_importable(package.parent)
        roots = [package.parent]
    for root in sorted(roots, key=lambda root: len(root.parts), reverse=True):
        name = _dotted(file, root)
        if name is not None and _means(name, file):
            return importlib.import_module(name)
    return _import_alias(file, package, folder)


def _package(file: Path) -> Path | None:
    """The top directory of the package that a file is in."""
    return next(reversed(list(_while_package(file.parent))), None)


def _while_package(directory: Path) -> Iterator[Path]:
    while (directory / "__init__.py").is_file():
        yield directory
        directory = directory.parent


def _make_importable(root: Path) -> None:
    if str(root) not in sys.path:
        sys.path.append(str(root))  # at the end: what stands beside a package must not hide what is installed


def _dotted(file: Path, root: Path) -> str | None:
    if not file.is_relative_to(root):
        return None
    parts = _place(file).relative_to(root).with_suffix("").parts
    return ".".join(parts) if parts and not any("." in part for part in parts) else None


def _place(file: Path) -> Path:
    return file.parent if file.name == "__init__.py" else file


def _means(name: str, file: Path) -> bool:
    """Whether importing a name would give this file. Runs no more than the `__init__.py` of the file's own packages."""
    if name in sys.modules:
        return _is_file(sys.modules[name], file)
    parent = name.rpartition(".")[0]
    if parent and not _is_package(parent, _place(file).parent):
        return False
    spec = _spec(name)
    return spec is not None and spec.origin is not None and _is_same(Path(spec.origin), file)


def _is_package(name: str, directory: Path) -> bool:
    """Whether a name is the package in this directory, which is imported if so: only then its contents can be found."""
    if name not in sys.modules:
        parent = name.rpartition(".")[0]
        if parent and not _is_package(parent, directory.parent):
            return False
        spec = _spec(name)
        if spec is None or not _is_among(spec.submodule_search_locations, directory):
            return False
        importlib.import_module(name)
    return _is_among(getattr(sys.modules[name], "__path__", None), directory)


def _spec(name: str) -> ModuleSpec | None:
    parent = name.rpartition(".")[0]
    path = sys.modules[parent].__path__ if parent else None
    found = (finder.find_spec(name, path) for finder in sys.meta_path)
    return next((spec for spec in found if spec is not None), None)


def _is_among(locations: Iterable[str] | None, directory: Path) -> bool:
    return any(_is_same(Path(location), directory) for location in locations or ())


def _is_file(module: ModuleType, file: Path) -> bool:
    name = getattr(module, "__file__", None)
    return name is not None and _is_same(Path(name), file)


def _is_same(one: Path, other: Path) -> bool:
    return one.exists() and one.samefile(other)


def _import_alias(file: Path, package: Path | None, folder: Path) -> ModuleType:
    """Imports a file under a name of ours; with its whole package, so that relative imports work."""
    rest = None if package is None else _dotted(file, package)
    top = file if package is None or rest is None else package / "__init__.py"
    sys.modules.setdefault(NAMESPACE, _empty_package(NAMESPACE))
    name = _alias(top, folder)
    if name not in sys.modules:
        _run(name, top)
    return importlib.import_module(name if rest is None else f"{name}.{rest}")


def _alias(top: Path, folder: Path) -> str:
    relative = Path(os.path.relpath(top, folder)).as_posix()
    stem = relative.removesuffix(".py").removesuffix("/__init__")
    slug = re.sub(r"\W+", "_", stem, flags=re.ASCII).strip("_")
    name = f"{NAMESPACE}.{slug}_{hashlib.sha256(relative.encode()).hexdigest()[:8]}"
    unique, count = name, 1
    while unique in sys.modules and not _is_file(sys.modules[unique], top):  # another configuration of this process
        count += 1
        unique = f"{name}_{count}"
    return unique


def _run(name: str, file: Path) -> None:
    locations = [str(file.parent)] if file.name == "__init__.py" else None
    spec = importlib.util.spec_from_file_location(name, file, submodule_search_locations=locations)
    if spec is None or spec.loader is None:
        raise ImportError(f"{file.name} is not a Python file")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    try:
        spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[name]
        raise


def _empty_package(name: str) -> ModuleType:
    package = ModuleType(name, "The graphs' files that have no importable name of their own.")
    package.__path__ = []
    return package
