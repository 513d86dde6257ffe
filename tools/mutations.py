"""Small changes to a module's source, each of which ought to break something: what tools/mutants.py tries."""

from __future__ import annotations

import ast
import copy
from collections.abc import Callable, Iterator
from typing import NamedTuple

COMPARISONS: dict[type[ast.cmpop], tuple[type[ast.cmpop], ...]] = {
    ast.Lt: (ast.LtE, ast.GtE),
    ast.LtE: (ast.Lt, ast.Gt),
    ast.Gt: (ast.GtE, ast.LtE),
    ast.GtE: (ast.Gt, ast.Lt),
    ast.Eq: (ast.NotEq,),
    ast.NotEq: (ast.Eq,),
    ast.Is: (ast.IsNot,),
    ast.IsNot: (ast.Is,),
    ast.In: (ast.NotIn,),
    ast.NotIn: (ast.In,),
}
ARITHMETIC: dict[type[ast.operator], type[ast.operator]] = {
    ast.Add: ast.Sub,
    ast.Sub: ast.Add,
    ast.Mult: ast.FloorDiv,
    ast.Div: ast.Mult,
    ast.FloorDiv: ast.Mult,
    ast.Mod: ast.FloorDiv,
    ast.LShift: ast.RShift,
    ast.RShift: ast.LShift,
    ast.BitAnd: ast.BitOr,
    ast.BitOr: ast.BitAnd,
    ast.BitXor: ast.BitAnd,
}
NOT_CODE = ("annotation", "returns", "decorator_list", "type_params")  # fields whose change no test could see


class Mutant(NamedTuple):
    """One change: the line as it was and as it is, and the whole source with it."""

    module: str
    line: int
    before: str
    after: str
    source: str

    @property
    def told(self) -> str:
        return f"{self.module}.py:{self.line}: {self.before}  ->  {self.after}"


class _Place(NamedTuple):
    """Where a node hangs: a field of its parent, or an element of a list there."""

    parent: ast.AST
    field: str
    index: int | None
    statement: ast.stmt  # that holds it

    def put(self, node: ast.AST) -> None:
        if self.index is None:
            setattr(self.parent, self.field, node)
        else:
            getattr(self.parent, self.field)[self.index] = node


def mutants_of(module: str, source: str) -> list[Callable[[], Mutant]]:
    """All changes of a module, each made when it is called."""
    tree = ast.parse(source)

    def change(place: _Place, old: ast.AST, new: ast.AST) -> Mutant:
        before = _first_line(place.statement)
        place.put(new)
        after = _first_line(new if old is place.statement else place.statement)
        changed = ast.unparse(tree)
        place.put(old)
        return Mutant(module, getattr(old, "lineno", place.statement.lineno), before, after, changed)

    return [
        lambda place=place, old=old, new=new: change(place, old, new)  # type: ignore[misc]
        for place, old in _nodes(tree)
        for new in _changed(old)
    ]


def _nodes(parent: ast.AST, statement: ast.stmt | None = None) -> Iterator[tuple[_Place, ast.AST]]:
    for field, value in ast.iter_fields(parent):
        if field in NOT_CODE:
            continue
        children = value if isinstance(value, list) else [value]
        for index, child in enumerate(children):
            if not isinstance(child, ast.AST) or _is_text(child) or _is_alias(child):
                continue
            holder = child if isinstance(child, ast.stmt) else statement
            if holder is not None:
                yield _Place(parent, field, index if isinstance(value, list) else None, holder), child
            yield from _nodes(child, holder)


def _is_text(node: ast.AST) -> bool:
    """A docstring, or the words of an error."""
    return isinstance(node, ast.JoinedStr) or (
        isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str)
    )


def _is_alias(node: ast.AST) -> bool:
    """A name for several types, such as ``Item = Message | Violation``."""
    return (
        isinstance(node, ast.Assign)
        and isinstance(node.value, ast.BinOp)
        and isinstance(node.value.op, ast.BitOr)
        and isinstance(node.value.right, ast.Name)
        and node.value.right.id[0].isupper()
        and not node.value.right.id.isupper()
    )


def _changed(node: ast.AST) -> Iterator[ast.AST]:
    """What could stand in a node's place."""
    match node:
        case ast.Compare(ops=[op]):
            for other in COMPARISONS[type(op)]:
                yield ast.Compare(node.left, [other()], node.comparators)
        case ast.Constant(value=bool() as value):
            yield ast.Constant(not value)
        case ast.Constant(value=int() as value):
            yield from (ast.Constant(value + 1), ast.Constant(value - 1))
        case ast.BoolOp(op=op):
            yield ast.BoolOp(ast.Or() if isinstance(op, ast.And) else ast.And(), node.values)
        case ast.UnaryOp(op=ast.Not()):
            yield node.operand
        case ast.BinOp(op=op) if type(op) in ARITHMETIC:
            yield ast.BinOp(node.left, ARITHMETIC[type(op)](), node.right)
        case ast.AugAssign(op=op):
            if type(op) in ARITHMETIC:
                yield ast.AugAssign(node.target, ARITHMETIC[type(op)](), node.value)
            yield ast.Pass()
        case ast.Return(value=ast.AST() as value) if not (isinstance(value, ast.Constant) and value.value is None):
            yield ast.Return(None)
        case ast.If() | ast.While() | ast.IfExp():
            negated = copy.copy(node)
            negated.test = ast.UnaryOp(ast.Not(), node.test)
            yield negated
        case ast.Expr() | ast.Raise():
            yield ast.Pass()
        case ast.Assign(targets=[ast.Attribute() | ast.Subscript()]):
            yield ast.Pass()


def _first_line(statement: ast.AST) -> str:
    return ast.unparse(ast.fix_missing_locations(copy.deepcopy(statement))).partition("\n")[0].strip()
