"""Expressions of permissions with ``&``, ``|`` and ``~``, and their evaluation.

Import from `wsaction.permissions`; its classes define the questions. This module combines permissions into a
`Composition`, moves the negations inwards, and turns the methods at the leaves into a function that calls them from
left to right. Its verdict is None (allowed) or a `Refusal`. Only if a method returned an awaitable, the verdict is an
awaitable of these; no coroutine is created otherwise.
"""

from __future__ import annotations

import functools
import inspect
import itertools
import logging
from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple, TypeAlias

logger = logging.getLogger("wsaction")


class Operators:
    """The operators ``& | ~`` of permission classes (through their metaclass), their instances and compositions."""

    __slots__ = ()

    def __and__(self, other: Any) -> Composition:
        return _combined("&", self, other)

    def __rand__(self, other: Any) -> Composition:
        return _combined("&", other, self)

    def __or__(self, other: Any) -> Composition:
        return _combined("|", self, other)

    def __ror__(self, other: Any) -> Composition:
        return _combined("|", other, self)

    def __invert__(self) -> Composition:
        return Composition("~", (self,))

    def __bool__(self) -> bool:  # `(A | B) and C` would be C alone, which drops a permission silently
        cure = "combine permissions with '&', '|' and '~', and test for a permission with `is not None`"
        raise TypeError(f"{name_of(self)}: expected '&', '|' or '~', got 'and', 'or', 'not' or 'if'; {cure}")


@dataclass(frozen=True, slots=True, eq=False)
class Composition(Operators):
    """An expression of permissions, built with ``& | ~``. Its text is ``(~IsOwner & IsAdmin) | AllowAny``."""

    operator: Literal["&", "|", "~"]
    operands: tuple[Any, ...]

    def __invert__(self) -> Composition:  # or, of `~A`, A itself; what can be done with either is the same
        return self.operands[0] if self.operator == "~" else Composition("~", (self,))

    def __str__(self) -> str:
        names = [f"({operand})" if is_group(operand) else name_of(operand) for operand in self.operands]
        return f"~{names[0]}" if self.operator == "~" else f" {self.operator} ".join(names)


def _combined(operator: Literal["&", "|"], *operands: Any) -> Composition:
    are_permissions = all(isinstance(operand, Operators) or callable(operand) for operand in operands)
    return _flat(operator, operands) if are_permissions else NotImplemented


def _flat(operator: Literal["&", "|"], operands: Iterable[Any]) -> Composition:
    """Makes a chain of one operator one composition, so that the recursion limit does not bound its length."""
    parts = [operand.operands if is_group(operand, operator) else (operand,) for operand in operands]
    return Composition(operator, tuple(itertools.chain.from_iterable(parts)))


def is_group(entry: Any, *operators: str) -> bool:
    """Whether an entry is an "and" or an "or" (or only what ``operators`` says), not a permission or its negation."""
    return isinstance(entry, Composition) and entry.operator in (operators or ("&", "|"))


def name_of(entry: Any) -> str:
    """The name of a permission, an expression or any other object in messages."""
    if isinstance(entry, Composition):
        return str(entry)
    return str(getattr(entry, "__qualname__", type(entry).__qualname__))


def normal_form(entry: Any, positive: bool = True) -> Any:
    """The expression with every "not" moved to a permission: ``~(A | B)`` becomes ``~A & ~B``."""
    if not isinstance(entry, Composition):
        return entry if positive else Composition("~", (entry,))
    if entry.operator == "~":
        return normal_form(entry.operands[0], not positive)
    operands = [normal_form(operand, positive) for operand in entry.operands]
    return _flat("&" if (entry.operator == "&") is positive else "|", operands)


@dataclass(frozen=True, slots=True)
class Refusal:
    """The permission or expression that refused, as text, and its ``message`` and ``code``."""

    permission: str
    message: str | None = None
    code: str | None = None


Kwargs: TypeAlias = Callable[[], Mapping[str, Any]]
Verdict: TypeAlias = Refusal | Awaitable[Refusal | None] | None
Ask: TypeAlias = Callable[[tuple[Any, ...], Kwargs], Verdict]
Pick: TypeAlias = Callable[[Mapping[str, Any]], Mapping[str, Any]]

_SETTLED = (Refusal, type(None))


class Method(NamedTuple):
    """A callable, the function that picks its keyword arguments (None: it takes none), and its positional arity."""

    call: Callable[..., Any]
    keywords: Pick | None
    arity: int

    def without_last(self) -> Method:
        """The same method for a question with one more argument, which it does not get."""
        return Method(lambda *args, **kwargs: self.call(*args[:-1], **kwargs), self.keywords, self.arity + 1)


def single(method: Method, yes: Refusal | None, no: Refusal | None) -> Ask:
    """Calls one method: the verdict is ``yes`` if its answer is true, else ``no``.

    None counts as false; since a forgotten ``return`` answers None, the first one is logged as a warning. Raises
    `TypeError` for an answer that is always true, such as a coroutine that was not awaited.
    """
    call, keywords, _ = method
    has_warned = False  # about an answer of None

    def ask(args: tuple[Any, ...], kwargs: Kwargs) -> Verdict:
        return verdict(call(*args) if keywords is None else call(*args, **keywords(kwargs())))

    def ask_of_action(
        args: tuple[Any, ...], kwargs: Kwargs
    ) -> Verdict:  # as `ask`, but faster, because it runs for each frame
        scope, handler, action = args
        answer = call(scope, handler, action)
        return yes if answer is True else verdict(answer)

    def verdict(answer: Any) -> Verdict:
        if answer is True:
            return yes
        if answer is not False and inspect.isawaitable(answer):
            return later(answer)
        return decide(answer)

    async def later(answer: Awaitable[Any]) -> Refusal | None:
        return decide(await answer)

    def decide(answer: Any) -> Refusal | None:
        nonlocal has_warned
        if answer is None and not has_warned:
            has_warned = True
            logger.warning("the permission %s returned None, which refuses; return True or False", name_of(call))
        if answer is not True and answer is not False and _is_always_true(answer):
            problem = f"the permission {name_of(call)} returned {answer!r:.100}, which is always true"
            if inspect.iscoroutine(answer):
                answer.close()  # else Python warns of the same mistake
            raise TypeError(f"{problem}; return True or False, and call functions and await coroutines first")
        return yes if answer else no

    return ask_of_action if keywords is None and method.arity == 3 else ask


def _is_always_true(answer: Any) -> bool:
    """Whether an answer is true whatever the author meant.

    That is an awaitable not awaited, a function not called, an exception not raised or a pair ``(False, "why")``.
    """
    is_async = inspect.isawaitable(answer) or hasattr(type(answer), "__aiter__")
    is_pair = type(answer) is tuple and isinstance(next(iter(answer), None), bool)
    return is_async or is_pair or callable(answer) or isinstance(answer, BaseException)


def series(passing: Refusal | None, asks: Iterable[Ask]) -> Ask | None:
    """Asks one after the other as long as the verdict is ``passing``: None makes an "and", a refusal an "or".

    Returns None if ``asks`` is empty.
    """
    asks = tuple(asks)

    def ask_all(args: tuple[Any, ...], kwargs: Kwargs) -> Verdict:
        rest = iter(asks)
        for ask in rest:
            verdict = ask(args, kwargs)
            if verdict is not passing:
                if isinstance(verdict, _SETTLED):
                    return verdict
                return ask_rest(verdict, (ask(args, kwargs) for ask in rest))
        return passing

    async def ask_rest(first: Awaitable[Refusal | None], rest: Iterator[Verdict]) -> Refusal | None:
        for verdict in itertools.chain((first,), rest):
            settled = verdict if isinstance(verdict, _SETTLED) else await verdict
            if settled is not passing:
                return settled
        return passing

    return ask_all if len(asks) > 1 else next(iter(asks), None)


def once(ask: Ask) -> Ask:
    """The same `Ask`, which computes the keyword arguments at most once."""

    def ask_once(args: tuple[Any, ...], kwargs: Kwargs) -> Verdict:
        cached: list[Mapping[str, Any]] = []

        def kwargs_once() -> Mapping[str, Any]:
            if not cached:
                cached.append(kwargs())
            return cached[0]

        return ask(args, kwargs_once)

    return ask_once


def keywords_of(call: Callable[..., Any], arity: int) -> Pick | None:
    """The function that picks a callable's keyword arguments; None if it takes none.

    It never picks the ``arity`` parameters that are filled by position (besides ``self``), nor those that a
    `functools.partial` has set. A frame with these names changes nothing and is no error.
    """
    parameters = inspect.signature(call).parameters.values()
    taken: set[str] = set()
    while isinstance(call, functools.partial):
        taken, arity, call = taken | call.keywords.keys(), arity + len(call.args), call.func
    if inspect.ismethod(call):
        arity, call = arity + 1, call.__func__
    given = [p.name for p in inspect.signature(call).parameters.values() if p.kind <= p.POSITIONAL_OR_KEYWORD]
    taken.update(given[:arity])
    if any(p.kind is p.VAR_KEYWORD for p in parameters):
        return lambda kwargs: (
            kwargs if taken.isdisjoint(kwargs) else {k: v for k, v in kwargs.items() if k not in taken}
        )
    named = {p.name for p in parameters if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)} - taken
    return (lambda kwargs: {name: kwargs[name] for name in named & kwargs.keys()}) if named else None
