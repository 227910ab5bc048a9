"""Two programs are the same exactly when nothing that runs differs."""

from __future__ import annotations

import ast
import keyword

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from pytest_autoresearch.source.fingerprint import complexity, fingerprint, shape

PROGRAM = '''\
"""A trainer."""
DEPTH = {depth}
LR = {lr}
PATTERN = "SL"


def step(x, scale):
    """One step."""
    width = x * {factor}
    total = width + scale
    return total - width
'''
names = st.from_regex(r"[a-z_][a-z0-9_]{0,8}", fullmatch=True).filter(
    lambda n: not keyword.iskeyword(n) and n not in ("x", "scale", "step")
)
numbers = st.integers(1, 10**6) | st.floats(1e-6, 1e6)


def text(depth: object = 2, lr: object = 0.5, factor: object = 3) -> str:
    return PROGRAM.format(depth=repr(depth), lr=repr(lr), factor=repr(factor))


def of(program: str) -> str:
    return fingerprint({"train.py": program})


@given(names, names, st.text("# abcdefgh", max_size=20))
def test_comments_formatting_docstrings_and_local_names_do_not_change_the_fingerprint(
    one: str, two: str, comment: str
) -> None:
    assume(one != two)
    rewritten = (
        text()
        .replace('    """One step."""\n', f"    # {comment}\n\n")
        .replace("width", one)
        .replace("total", two)
        .replace("LR = 0.5", "LR  =  (0.5)")
    )
    ast.parse(rewritten)
    assert of(rewritten) == of(text())


def test_order_of_constants_and_folded_arithmetic_do_not_change_the_fingerprint() -> None:
    first = "A = 2**10\nB = 0.5\n\ndef f():\n    return A * B\n"
    second = "B = 0.5\nA = 1024\n\ndef f():\n    return A * B\n"
    assert of(first) == of(second)


@given(numbers, numbers)
def test_a_changed_literal_changes_the_fingerprint(one: object, two: object) -> None:
    assume(type(one) is not type(two) or one != two)
    assert of(text(lr=one)) != of(text(lr=two))
    assert of(text(factor=one)) != of(text(factor=two))


def test_a_swap_of_dependent_statements_changes_the_fingerprint() -> None:
    assert of(text().replace("total - width", "width - total")) != of(text())
    assert of("A = 1\nA = 2\n") != of("A = 2\nA = 1\n")
    assert of("def f(a, b):\n    return a\n") != of("def f(b, a):\n    return a\n")


def test_names_that_may_be_looked_up_are_not_renamed() -> None:
    one = "def f():\n    width = 1\n    return eval('width')\n"
    assert of(one) != of(one.replace("width = ", "other = "))


@given(numbers, numbers)
def test_a_shape_separates_literals_from_structure(one: object, two: object) -> None:
    a, b = shape({"train.py": text(lr=one)}), shape({"train.py": text(lr=two)})
    assert a.skeleton == b.skeleton
    assert a.skeleton != shape({"train.py": text().replace("+ scale", "- scale")}).skeleton
    assert (a.literals == b.literals) == (one == two)


@given(st.floats(1e-3, 1e3), st.floats(0.5, 2.0))
def test_close_to_compares_numbers_by_share(value: float, ratio: float) -> None:
    a = shape({"train.py": text(lr=value)})
    b = shape({"train.py": text(lr=value * ratio)})
    share = abs(value - value * ratio) / max(value, value * ratio)
    assume(abs(share - 0.05) > 1e-9)
    assert a.close_to(b, 0.05) == (share < 0.05)
    assert not a.close_to(shape({"train.py": text(lr=value).replace('"SL"', '"SS"')}), 0.05)


@pytest.mark.parametrize(
    ("one", "two"),
    [
        ("def f():\n    '{}'\n    return f.__doc__\n", "ab"),
        ("'{}'\nprint(__doc__)\n", "ab"),
        ("import builtins\ndef f():\n    {} = 1\n    return builtins.eval('a')\n", "ab"),
        ("def f():\n    {} = 1\n    return dir()\n", "ab"),
        ("import sys\ndef f():\n    {} = 1\n    return sys._getframe().f_locals\n", "ab"),
        ("import pandas\ndef f(df):\n    {} = 1\n    return df.query('x > @a')\n", "ab"),
    ],
)
def test_names_and_docstrings_that_code_reads_change_the_fingerprint(one: str, two: str) -> None:
    assert of(one.format(two[0])) != of(one.format(two[1]))


def test_white_space_counts_in_other_files() -> None:
    for one, two in (("  a: 1\nb: 2\n", "a: 1\nb: 2\n"), ("end  \n", "end\n"), ("a\x0cb", "a\nb")):
        assert fingerprint({"prompt.txt": one}) != fingerprint({"prompt.txt": two})
    assert fingerprint({"prompt.txt": "a\r\n"}) == fingerprint({"prompt.txt": "a\n"})


@pytest.mark.parametrize(
    ("one", "two"),
    [
        ("A = 1 << 10\n", "A = +1024\n"),
        ("A = 7 % 4\n", "A = 3\n"),
        ("A = f'abc'\n", "A = 'abc'\n"),
        ("def f():\n    pass\n    ...\n    return 1\n", "def f():\n    return 1\n"),
        ("\ufeffA = 1\n", "A = 1\n"),
    ],
)
def test_statements_without_effect_do_not_change_the_fingerprint(one: str, two: str) -> None:
    assert of(one) == of(two)


def test_complexity_counts_deeply_nested_programs() -> None:
    deep = text() + "x = scale" + " + scale" * 600 + "\n"
    assert complexity({"train.py": deep}) > complexity({"train.py": text()})
    assert complexity({"train.py": "def (\n" * 100}) > 0


def test_parsing_is_retried_after_a_system_error(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    real, calls = ast.parse, []

    def spoiled(text: str) -> ast.Module:  # as Python 3.11 was seen to do beside a draft
        calls.append(text)
        if len(calls) < 3:
            raise SystemError("AST constructor recursion depth mismatch (before=30, after=130)")
        return real(text)

    monkeypatch.setattr(ast, "parse", spoiled)
    assert fingerprint({"a.py": "x = 1\n"})
    assert len(calls) == 3
