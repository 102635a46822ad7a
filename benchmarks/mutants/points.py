"""Finds the single points of a module that can be changed, and changes one of them.

Left out is what no test should fix: docstrings, type hints, decorators, log calls, the texts of errors, `__all__`.
"""

from __future__ import annotations

import ast
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

SWAPS: dict[type[ast.AST], type[ast.AST]] = {
    ast.Eq: ast.NotEq,
    ast.NotEq: ast.Eq,
    ast.Lt: ast.LtE,
    ast.LtE: ast.Lt,
    ast.Gt: ast.GtE,
    ast.GtE: ast.Gt,
    ast.Is: ast.IsNot,
    ast.IsNot: ast.Is,
    ast.In: ast.NotIn,
    ast.NotIn: ast.In,
    ast.And: ast.Or,
    ast.Or: ast.And,
    ast.Add: ast.Sub,
    ast.Sub: ast.Add,
    ast.Mult: ast.Div,
    ast.Div: ast.Mult,
    ast.FloorDiv: ast.Mult,
    ast.Mod: ast.Mult,
    ast.BitAnd: ast.BitOr,
    ast.BitOr: ast.BitAnd,
}

FUNCTIONS = (ast.FunctionDef, ast.AsyncFunctionDef)
LOGGERS = ("log", "logger")


@dataclass(frozen=True, slots=True)
class Point:
    """One change of one point.

    :param number: which of its module's points
    :param function: qualified name of the outermost function that it stands in, empty for a point outside of functions
    :param lines: the lines of the smallest statement around it, first and last
    :param change: the line before and after, for the report
    """

    file: str
    number: int
    line: int
    function: str
    lines: tuple[int, int]
    kind: str
    change: str

    @property
    def name(self) -> str:
        """Survives changes elsewhere in the file: what the list of equivalent changes goes by."""
        return f"{self.file}: {self.change}"


Site = tuple[ast.AST, str, Callable[[], None], str, ast.stmt]


def kinds(file: Path) -> list[str]:
    """Return the kind of each point of a module, in the order of its text."""
    return [kind for _, kind, _, _, _ in _sites(ast.parse(file.read_text()))]


def changed(source: str, number: int) -> ast.Module:
    """Return the module's tree with that one point changed; line numbers are as before."""
    tree = ast.parse(source)
    for position, (_, _, change, _, _) in enumerate(_sites(tree)):
        if position == number:
            change()
            return ast.fix_missing_locations(tree)
    raise IndexError(number)


def point(file: Path, root: Path, number: int) -> Point:
    """Describe one of the points of a module, which are numbered in the order of its text."""
    node, kind, change, function, statement = list(_sites(ast.parse(file.read_text())))[number]
    first, last = statement.lineno, (statement.end_lineno or statement.lineno)
    if hasattr(statement, "body"):  # only its head
        first = getattr(node, "lineno", first)
        last = max(first, getattr(node, "end_lineno", first))
    line, before = getattr(node, "lineno", first), _head(statement)
    change()
    after = "(dropped)" if kind == "dropped call" else _head(statement)
    text = f"{function or '-'}: {before}  ->  {after}"
    return Point(str(file.relative_to(root)), number, line, function, (first, last), kind, text)


def _head(statement: ast.stmt) -> str:
    """How the statement reads, without the statements inside of it."""
    text = ast.unparse(statement)
    return text.splitlines()[0] if hasattr(statement, "body") else " ".join(text.split())


def _sites(tree: ast.Module) -> Iterator[Site]:
    yield from _in_body(tree, "", tree.body)


def _in_body(parent: ast.AST, function: str, body: list[ast.stmt], qualname: str = "") -> Iterator[Site]:
    for position, statement in enumerate(body):
        yield from _in_statement(body, position, statement, function, qualname)


def _in_statement(
    body: list[ast.stmt], position: int, statement: ast.stmt, function: str, qualname: str
) -> Iterator[Site]:
    if isinstance(statement, FUNCTIONS):
        inner = f"{qualname}.{statement.name}".lstrip(".")
        for default in (*statement.args.defaults, *(d for d in statement.args.kw_defaults if d is not None)):
            yield from _in_expression(default, function, statement)
        yield from _in_body(statement, function or inner, statement.body, f"{inner}.<locals>")
        return
    if isinstance(statement, ast.ClassDef):
        yield from _in_body(statement, function, statement.body, f"{qualname}.{statement.name}".lstrip("."))
        return
    if _skipped(statement):
        return
    if isinstance(statement, ast.Expr):
        yield (
            statement,
            "dropped call",
            lambda: body.__setitem__(position, ast.copy_location(ast.Pass(), statement)),
            (function),
            statement,
        )
    elif isinstance(statement, ast.Return) and not isinstance(statement.value, (ast.Constant, type(None))):
        yield (
            statement,
            "return value",
            lambda: setattr(statement, "value", ast.copy_location(ast.Constant(None), statement)),
            function,
            statement,
        )
    elif isinstance(statement, (ast.If, ast.While)) and isinstance(
        statement.test, (ast.Name, ast.Attribute, ast.Call, ast.Await, ast.NamedExpr)
    ):
        negated = ast.copy_location(ast.UnaryOp(ast.Not(), statement.test), statement.test)
        yield statement.test, "condition", lambda: setattr(statement, "test", negated), function, statement
    for field, value in ast.iter_fields(statement):
        if field in ("annotation", "returns"):
            continue
        for node in value if isinstance(value, list) else [value]:
            if isinstance(node, ast.stmt):
                continue
            if isinstance(node, (ast.match_case, ast.ExceptHandler, ast.withitem)):
                yield from _in_clause(node, function, statement)
            elif isinstance(node, ast.AST):
                yield from _in_expression(node, function, statement)
        if isinstance(value, list) and value and isinstance(value[0], ast.stmt):
            yield from _in_body(statement, function, value, qualname)
        elif field in ("cases", "handlers"):
            for clause in value:
                yield from _in_body(clause, function, clause.body, qualname)


def _in_clause(node: ast.AST, function: str, statement: ast.stmt) -> Iterator[Site]:
    guard = getattr(node, "guard", None) or getattr(node, "context_expr", None)
    if guard is not None:
        yield from _in_expression(guard, function, statement)


def _skipped(statement: ast.stmt) -> bool:
    if isinstance(statement, (ast.Raise, ast.Assert, ast.Import, ast.ImportFrom, ast.Global, ast.Nonlocal)):
        return True
    if isinstance(statement, ast.Expr):
        value = statement.value.value if isinstance(statement.value, ast.Await) else statement.value
        return not isinstance(value, ast.Call) or _logs(value)
    if isinstance(statement, ast.If) and isinstance(statement.test, ast.Name):
        return statement.test.id == "TYPE_CHECKING"
    if isinstance(statement, ast.Assign):
        return any(isinstance(target, ast.Name) and target.id == "__all__" for target in statement.targets)
    return False


def _logs(call: ast.Call) -> bool:
    function = call.func
    return (
        isinstance(function, ast.Attribute)
        and isinstance(function.value, (ast.Name, ast.Attribute))
        and (function.value.id if isinstance(function.value, ast.Name) else function.value.attr).strip("_") in LOGGERS
    )


def _in_expression(node: ast.AST, function: str, statement: ast.stmt) -> Iterator[Site]:
    if isinstance(node, (ast.JoinedStr, ast.stmt)) or (isinstance(node, ast.Call) and _logs(node)):
        return
    if isinstance(node, ast.Compare):
        for position, operator in enumerate(node.ops):
            swapped = SWAPS[type(operator)]()
            yield node, "comparison", _setter(node.ops, position, swapped), function, statement
    elif isinstance(node, ast.BoolOp):
        yield node, "boolean", _attribute(node, "op", SWAPS[type(node.op)]()), function, statement
    elif isinstance(node, ast.BinOp) and type(node.op) in SWAPS and not _text(node) and not _types(node, function):
        yield node, "arithmetic", _attribute(node, "op", SWAPS[type(node.op)]()), function, statement
    elif isinstance(node, ast.Constant) and isinstance(node.value, (bool, int, float)):
        value = not node.value if isinstance(node.value, bool) else node.value + (1 if node.lineno % 2 else -1)
        yield node, "constant", _attribute(node, "value", value), function, statement
    for field, value in ast.iter_fields(node):
        for position, child in enumerate(value) if isinstance(value, list) else [(None, value)]:
            if isinstance(child, ast.UnaryOp) and isinstance(child.op, ast.Not):
                change = (
                    _attribute(node, field, child.operand)
                    if position is None
                    else _setter(value, position, child.operand)
                )
                yield child, "not", change, function, statement
            if isinstance(child, ast.AST):
                yield from _in_expression(child, function, statement)


def _text(node: ast.BinOp) -> bool:
    return any(
        isinstance(side, ast.JoinedStr) or (isinstance(side, ast.Constant) and isinstance(side.value, (str, bytes)))
        for side in (node.left, node.right)
    )


def _types(node: ast.BinOp, function: str) -> bool:
    """A union of types, in a name for it."""
    return isinstance(node.op, ast.BitOr) and not function


def _setter(values: list[ast.AST] | list[ast.cmpop], position: int, value: ast.AST) -> Callable[[], None]:
    return lambda: values.__setitem__(position, value)  # type: ignore[call-overload, index]


def _attribute(node: ast.AST, field: str, value: object) -> Callable[[], None]:
    return lambda: setattr(node, field, value)
