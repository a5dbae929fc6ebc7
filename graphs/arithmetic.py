"""Arithmetic on a text from a stranger (or a model): nothing but numbers and operators is ever evaluated."""

import ast
import operator
from collections.abc import Callable, Mapping

Number = int | float

EXPRESSION_CHARACTERS = 200
LARGEST_BASE = 1_000_000
LARGEST_EXPONENT = 64
LARGEST_RESULT_BITS = 4_096


def power(base: Number, exponent: Number) -> Number:
    if abs(base) > LARGEST_BASE or abs(exponent) > LARGEST_EXPONENT:
        raise ValueError("that power is too large")
    result: Number | complex = base**exponent
    if isinstance(result, complex):
        raise ValueError("that power is not a real number")
    return result


BINARY: Mapping[type[ast.operator], Callable[[Number, Number], Number]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
    ast.FloorDiv: operator.floordiv,
    ast.Mod: operator.mod,
    ast.Pow: power,
}
UNARY: Mapping[type[ast.unaryop], Callable[[Number], Number]] = {ast.UAdd: operator.pos, ast.USub: operator.neg}


def calculate(expression: str) -> Number:
    """The value of an expression of numbers, `+ - * / // % **` and parentheses, of at most 200 characters.

    Raises:
        ValueError: it is anything else, or its numbers are too large.
        ArithmeticError: it divides by zero, or its value does not fit into a float.
    """
    if len(expression) > EXPRESSION_CHARACTERS:
        raise ValueError(f"an expression may have {EXPRESSION_CHARACTERS} characters")
    try:
        tree = ast.parse(expression.strip(), mode="eval")
    except (SyntaxError, RecursionError, MemoryError):
        raise ValueError("that is not arithmetic") from None
    result = value(tree.body)
    if isinstance(result, int) and result.bit_length() > LARGEST_RESULT_BITS:
        raise ValueError("that number is too large to be read")
    return result


def value(node: ast.expr) -> Number:
    match node:
        case ast.Constant(value=int() | float() as number) if not isinstance(number, bool):
            return number
        case ast.BinOp(left=left, op=op, right=right) if type(op) in BINARY:
            return BINARY[type(op)](value(left), value(right))
        case ast.UnaryOp(op=sign, operand=operand) if type(sign) in UNARY:
            return UNARY[type(sign)](value(operand))
    raise ValueError("only numbers, + - * / // % ** and parentheses are understood")
