"""What is changed in a mutant: Cosmic Ray's operators, without the noise, and two of our own.

Of its comparison operators, those are taken that turn a comparison round or move its boundary; of
its arithmetic ones, one for each sign. What it lacks is here: ``in`` turned into ``not in``, and
one side of an ``and`` or an ``or`` left out.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import parso
from cosmic_ray.ast import ast_nodes, get_ast
from cosmic_ray.mutating import mutate_code
from cosmic_ray.operators.operator import Operator
from cosmic_ray.operators.provider import OperatorProvider

_COMPARISONS = (
    "Eq_NotEq", "NotEq_Eq", "Lt_LtE", "Lt_GtE", "LtE_Lt", "LtE_Gt", "Gt_GtE", "Gt_LtE",
    "GtE_Gt", "GtE_Lt", "Is_IsNot", "IsNot_Is",
)  # fmt: skip
_ARITHMETIC = (
    "Add_Sub", "Sub_Add", "Mul_Div", "Div_Mul", "Pow_Mul", "FloorDiv_Mul", "Mod_Mul",
    "BitOr_BitAnd", "BitAnd_BitOr", "LShift_RShift", "RShift_LShift",
)  # fmt: skip
_OTHERS = (
    "AddNot", "ReplaceTrueWithFalse", "ReplaceFalseWithTrue", "ReplaceAndWithOr",
    "ReplaceOrWithAnd", "ReplaceBreakWithContinue", "ReplaceContinueWithBreak",
    "NumberReplacer", "RemoveDecorator", "ZeroIterationForLoop",
    "ReplaceUnaryOperator_Delete_Not",
)  # fmt: skip


class TurnMembership(Operator):  # type: ignore[misc] # untyped
    """``in`` becomes ``not in``, and the other way round."""

    def mutation_positions(self, node: Any) -> Iterator[Any]:
        """Yield where it applies."""
        for operator in self._operators(node):
            yield operator.start_pos, operator.end_pos

    def mutate(self, node: Any, index: int) -> Any:
        """Change the tree."""
        operator = self._operators(node)[index]
        turned = " in" if operator.get_code().split() == ["not", "in"] else " not in"
        node.children[node.children.index(operator)] = parso.parse(turned)
        return node

    @staticmethod
    def _operators(node: Any) -> list[Any]:
        if node.type != "comparison":
            return []
        return [n for n in node.children[1::2] if n.get_code().split()[-1] == "in"]

    @classmethod
    def examples(cls) -> tuple[Any, ...]:
        """Return none: ours has its own tests."""
        return ()


class DropOperand(Operator):  # type: ignore[misc] # untyped
    """One side of an ``and`` or an ``or`` is left out."""

    def mutation_positions(self, node: Any) -> Iterator[Any]:
        """Yield where it applies."""
        if node.type in {"and_test", "or_test"}:
            for operand in node.children[::2]:
                yield operand.start_pos, operand.end_pos

    def mutate(self, node: Any, index: int) -> Any:
        """Change the tree."""
        at = 2 * index
        gone = slice(at, at + 2) if at == 0 else slice(at - 1, at + 1)
        prefix = node.get_first_leaf().prefix
        del node.children[gone]
        node.get_first_leaf().prefix = prefix or " "
        return node

    @classmethod
    def examples(cls) -> tuple[Any, ...]:
        """Return none: ours has its own tests."""
        return ()


def operators() -> dict[str, Operator]:
    """Return all that are used, by name."""
    provided = OperatorProvider()
    names = [
        *(f"ReplaceComparisonOperator_{name}" for name in _COMPARISONS),
        *(f"ReplaceBinaryOperator_{name}" for name in _ARITHMETIC),
        *_OTHERS,
    ]
    found = {name: provided[name]() for name in names}
    return {**found, "TurnMembership": TurnMembership(), "DropOperand": DropOperand()}


@dataclass(frozen=True, slots=True)
class CodeMutant:
    """A module that differs from its source in one respect; ``line`` is where, from 1."""

    operator: str
    line: int
    before: str
    after: str
    source: str

    def __str__(self) -> str:
        """Return it as it is listed: independent of where in the file it stands."""
        return f"{self.before} → {self.after}"


def mutants(source: str) -> list[CodeMutant]:
    """Return every mutant of a source, each once, without those that change nothing."""
    seen = {_essence(source)}
    found: list[CodeMutant] = []
    for name, operator in operators().items():
        positions = [
            position
            for node in ast_nodes(get_ast(source))
            for position in operator.mutation_positions(node)
        ]
        for occurrence in range(len(positions)):
            changed = mutate_code(source, operator, occurrence)
            try:
                essence = _essence(changed)
            except SyntaxError:
                continue
            if essence not in seen and not _in_a_dataclass_decorator(source, changed):
                seen.add(essence)
                found.append(_described(name, source, changed))
    found = [mutant for mutant in found if not _for_the_type_checker(mutant)]
    return sorted(found, key=lambda mutant: (mutant.line, mutant.operator, mutant.after))


def _in_a_dataclass_decorator(source: str, changed: str) -> bool:
    """That values are frozen and have slots guards against slips; nothing depends on it."""
    marks = ("@dataclass(frozen=True, slots=True)", "@dataclass(slots=True)")
    return any(changed.count(mark) < source.count(mark) for mark in marks)


def _for_the_type_checker(mutant: CodeMutant) -> bool:
    return mutant.before == "if TYPE_CHECKING:"


def _described(operator: str, source: str, changed: str) -> CodeMutant:
    old, new = source.splitlines(), changed.splitlines()
    pairs = zip(old, new, strict=False)
    line = next((i for i, (a, b) in enumerate(pairs) if a != b), min(len(old), len(new)) - 1)
    before = old[line].strip()
    if operator == "RemoveDecorator":
        # It is taken out with the blank lines and the comment above it.
        before = next(found for found in map(str.strip, old[line:]) if found.startswith("@"))
    return CodeMutant(operator, line + 1, before, new[line].strip(), changed)


class _WithoutAnnotations(ast.NodeTransformer):
    """Annotations are not evaluated: a change in one is none.

    Nor is one in how arguments may be passed: the ``*`` of a signature is no multiplication.
    """

    def visit_arguments(self, node: ast.arguments) -> ast.AST:
        self.generic_visit(node)
        named = [default for default in node.kw_defaults if default is not None]
        node.args = [*node.posonlyargs, *node.args, *node.kwonlyargs]
        node.defaults = [*node.defaults, *named]
        node.posonlyargs, node.kwonlyargs, node.kw_defaults = [], [], []
        return node

    def visit_arg(self, node: ast.arg) -> ast.arg:
        node.annotation = None
        return node

    def visit_AnnAssign(self, node: ast.AnnAssign) -> ast.AST:
        node.annotation = ast.Constant(None)
        return self.generic_visit(node)

    def visit_FunctionDef(self, node: ast.FunctionDef) -> ast.AST:
        node.returns = None
        return self.generic_visit(node)


def _essence(source: str) -> str:
    return ast.dump(_WithoutAnnotations().visit(ast.parse(source)))
