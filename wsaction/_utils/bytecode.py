"""What can be known of a function without calling it, for mistakes that would otherwise be silent."""

import dis
import inspect
from itertools import pairwise
from typing import Any

_RETURNS = {"RETURN_VALUE", "RETURN_CONST"}
_NO_WORK = _RETURNS | {"RESUME", "NOP", "CACHE", "COPY_FREE_VARS", "RETURN_GENERATOR", "POP_TOP", "LOAD_CONST"}
_NO_WORK |= {"CALL_INTRINSIC_1", "RERAISE"}  # the end of a coroutine that raises StopIteration


def returns_nothing(function: Any) -> bool:
    """Whether a function does something, but returns None on every way: a ``return`` was forgotten.

    False for a function whose body is ``pass``, ``...`` or ``return None``, and for one that only raises.
    """
    function = getattr(function, "__func__", function)  # of a bound method
    code = getattr(function, "__code__", None)
    if code is None or code.co_flags & (inspect.CO_GENERATOR | inspect.CO_ASYNC_GENERATOR):
        return False
    instructions = [*dis.get_instructions(code)]
    returns = [pair for pair in pairwise(instructions) if pair[1].opname in _RETURNS]
    works = any(instruction.opname not in _NO_WORK for instruction in instructions)
    return works and bool(returns) and all(_is_none(*pair) for pair in returns)


def _is_none(before: dis.Instruction, instruction: dis.Instruction) -> bool:
    """Whether a return instruction returns the constant None."""
    if instruction.opname == "RETURN_CONST":
        return instruction.argval is None
    is_constant = before.opname == "LOAD_CONST" and before.argval is None
    return is_constant and not instruction.is_jump_target  # else `return x if y else None`, for example
