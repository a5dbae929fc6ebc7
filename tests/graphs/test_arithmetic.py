import pytest

from graphs.arithmetic import calculate


@pytest.mark.parametrize(
    ("expression", "result"),
    [("(2 + 3) * 4", 20), ("-2 ** 2", -4), ("7 // 2 + 7 % 2", 4), (" 1 / 4 ", 0.25), ("+1.5", 1.5)],
)
def test_arithmetic_is_worked_out(expression: str, result: float) -> None:
    assert calculate(expression) == result


@pytest.mark.parametrize(
    "expression",
    ["", "x", "__import__('os')", "(1).real", "[1][0]", "'a' * 9", "True + 1", "1 if 1 else 2", "1; 2", "1j", "\0"],
)
def test_anything_but_arithmetic_is_refused(expression: str) -> None:
    with pytest.raises(ValueError, match=r"."):
        calculate(expression)


@pytest.mark.parametrize(
    ("expression", "reason"),
    [
        ("9 ** 9 ** 9", "power is too large"),
        ("((9 ** 64) ** 64) ** 64", "power is too large"),
        ("(-8) ** 0.5", "not a real number"),
        ("1" * 201, "200 characters"),
        ("(" * 100, "not arithmetic"),
        ("999999 ** 64 *" * 13 + "9", "too large to be read"),
    ],
)
def test_what_would_take_too_long_or_is_no_real_number_is_refused(expression: str, reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        calculate(expression)


def test_dividing_by_zero_is_an_arithmetic_error() -> None:
    with pytest.raises(ArithmeticError):
        calculate("1 / 0")
