"""Digests of the package's own code: what a result depends on besides settings and data.

A stage depends on the module of its job and on everything that this module imports. Imports are read from the source, those
inside functions too; no module is imported for this. Comments, docstrings and formatting don't count, and a digest is the same
under every Python from 3.11 on.
"""

from __future__ import annotations

import ast
import hashlib
from collections.abc import Iterable, Set
from functools import cache
from importlib.util import resolve_name
from pathlib import Path
from typing import Any

from merba.files import checksum
from merba.plugins import entry_digest, plugins

PACKAGE = Path(__file__).parent
MODELS = "merba.models"
"""The module with the dictionary MODELS, which registers the models."""
LAYOUT = {"ctx", "kind", "type_comment"}
"""Fields of syntax trees that depend on position or notation and don't affect behaviour."""


def code_digest(module: str, models: Iterable[str] = ()) -> str:
    """A short hash of the code of `module`, such as `merba.jobs.faces`, and of the package's modules that it imports.

    Of the registered models, and of those of other packages (see `merba.plugins`), only those in `models` count: a change of one
    model doesn't affect the others. Unknown names are ignored. `merba/__init__.py` never counts, because it computes nothing.
    """
    names = set(models)
    own_lines = sorted(repr((name, entry)) for name, entry in _registry().items() if name in names)
    own_lines += sorted(entry_digest(entry) for name, entry in plugins(MODELS).items() if name in names - set(_registry()))
    parts = [f"{name} {_syntax(name)}" for name in sorted(modules_of(module, models))]
    return hashlib.sha256("\n".join(parts + own_lines).encode()).hexdigest()[:16]


def file_digest(name: str) -> str:
    """A short hash of another file of the package, such as `evaluation/report.html.j2`."""
    return checksum(PACKAGE / name)[:16]


def modules_of(module: str, models: Iterable[str] = ()) -> set[str]:
    """The modules that `code_digest` hashes."""
    files = {name: f"{MODELS}.{file}" for name, (file, _) in _registry().items()}
    own = {files[name] for name in models if name in files}
    return _reached({module}, without=set(files.values())) | _reached(own)


@cache
def model_arguments(name: str) -> tuple[str, dict[str, Any]]:
    """A registered model's module and arguments (defaults and SIZES), read without importing it; ("", {}) for other names."""
    if name not in _registry():
        return "", {}
    file, class_name = _registry()[name]
    body = _tree(f"{MODELS}.{file}").body
    (model,) = (node for node in body if isinstance(node, ast.ClassDef) and node.name == class_name)
    (start,) = (node for node in model.body if isinstance(node, ast.FunctionDef) and node.name == "__init__")
    defaults = zip(start.args.kwonlyargs, start.args.kw_defaults, strict=True)
    arguments = {argument.arg: ast.literal_eval(default) for argument, default in defaults if default}
    return file, arguments | _value(body, "SIZES")[name]


def _reached(modules: Set[str], without: Set[str] = frozenset()) -> set[str]:
    reached, waiting = set(), list(modules)
    while waiting:
        if (module := waiting.pop()) not in reached | without:
            reached.add(module)
            waiting += _imports(module)
    return reached


def _file(module: str) -> Path | None:
    """The file of a module of the package; None for any other name, such as a function's."""
    root, *parts = module.split(".")
    if root != PACKAGE.name or not parts:
        return None
    path = PACKAGE.joinpath(*parts)
    return next((file for file in (path.with_suffix(".py"), path / "__init__.py") if file.is_file()), None)


@cache
def _tree(module: str) -> ast.Module:
    if (file := _file(module)) is None:
        raise ValueError(f"{module} is no module of the package")
    return ast.parse(file.read_bytes())


@cache
def _imports(module: str) -> frozenset[str]:
    package = module if getattr(_file(module), "name", "") == "__init__.py" else module.rpartition(".")[0]
    names = set()
    for node in ast.walk(_tree(module)):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            home = resolve_name("." * node.level + (node.module or ""), package)
            names |= {home, *(f"{home}.{alias.name}" for alias in node.names)}
    return frozenset(name for name in names if _file(name))


@cache
def _registry() -> dict[str, tuple[str, str]]:
    """The registered models, name → (module, class), read as text: importing them would load PyTorch."""
    return _value(_tree(MODELS).body, "MODELS")


def _value(body: list[ast.stmt], name: str) -> Any:
    """What a module's body assigns to the annotated `name`."""
    (value,) = (node.value for node in body if _assigns(node, name) and isinstance(node, ast.AnnAssign))
    return ast.literal_eval(value or "None")


def _assigns(node: ast.stmt, name: str) -> bool:
    return isinstance(node, ast.AnnAssign) and ast.unparse(node.target) == name


@cache
def _syntax(module: str) -> str:
    """A hash of a module's syntax, without the dictionary MODELS: `code_digest` adds the lines of the models that count."""
    body = [node for node in _tree(module).body if module != MODELS or not _assigns(node, "MODELS")]
    return hashlib.sha256(canonical(body).encode()).hexdigest()


def canonical(node: object) -> str:
    """A syntax tree, or a list of them, as text that is the same under every version of Python.

    `ast.dump` and `ast.unparse` differ between versions: in new fields, in the pieces of f-strings, in quotation marks.
    """
    if isinstance(node, list):
        return f"[{','.join(canonical(item) for item in node if not _is_bare_string(item))}]"
    if not isinstance(node, ast.AST):
        return ascii(node)
    fields = dict(ast.iter_fields(node))
    if isinstance(node, ast.JoinedStr):
        fields["values"] = _joined(node.values)
    parts = [(name, value) for name, value in sorted(fields.items()) if name not in LAYOUT and value not in (None, [])]
    return f"{type(node).__name__}({','.join(f'{name}={canonical(value)}' for name, value in parts)})"


def _is_bare_string(node: object) -> bool:
    """A docstring, or another expression that is only a string."""
    return isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str)


def _joined(pieces: list[ast.expr]) -> list[ast.expr]:
    """The pieces of an f-string, with neighbouring texts joined and empty ones removed."""
    joined: list[ast.expr] = []
    for piece in pieces:
        text = piece.value if isinstance(piece, ast.Constant) else None
        if text is not None and joined and isinstance(joined[-1], ast.Constant):
            joined[-1] = ast.Constant(f"{joined[-1].value}{text}")
        elif text != "":
            joined.append(piece)
    return joined
