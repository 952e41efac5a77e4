"""`wsaction.limits`: every limit is finite and documented, and invalid values are refused."""

import dataclasses
import re
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from wsaction.limits import Limits

WHOLE = [field.name for field in dataclasses.fields(Limits) if field.type is int]
SECONDS = [field.name for field in dataclasses.fields(Limits) if field.type is float]


def test_the_defaults_are_the_designs() -> None:
    assert dataclasses.asdict(Limits()) == {
        "max_frame_bytes": 65_536,
        "max_json_depth": 64,
        "max_route_length": 2_048,
        "max_concurrency": 16,
        "max_queued_actions": 256,
        "max_queued_bytes": 1_048_576,
        "max_subscriptions": 128,
        "max_outbox_bytes": 1_048_576,
        "max_threads": 16,
        "max_auth_failures": 10,
        "message_timeout": 10,
        "send_timeout": 10,
        "action_timeout": 30,
        "auth_timeout": 10.0,
        "idle_timeout": 300,
        "drain_timeout": 10,
    }


def test_one_is_replaced_and_the_others_stay() -> None:
    assert dataclasses.asdict(Limits(max_concurrency=4)) == {**dataclasses.asdict(Limits()), "max_concurrency": 4}


def test_it_is_frozen_slotted_comparable_and_takes_names_only() -> None:
    limits = Limits()
    with pytest.raises(dataclasses.FrozenInstanceError):
        limits.max_threads = 3  # type: ignore[misc]
    assert not hasattr(limits, "__dict__")
    assert {limits: 1}[Limits()] == 1
    with pytest.raises(TypeError):
        Limits(5)  # type: ignore[call-arg]
    with pytest.raises(TypeError, match="max_thread"):
        Limits(max_thread=5)  # type: ignore[call-arg]


def test_the_docstring_names_every_bound() -> None:
    assert set(re.findall(r"``(\w+_\w+)``", Limits.__doc__ or "")) == {*WHOLE, *SECONDS}


NO_BOUND: list[Any] = [0, -1, True, False, None, "5", float("inf"), float("nan"), -0.5, 0.0, Decimal(5), [5]]


@pytest.mark.parametrize("value", NO_BOUND, ids=repr)
@pytest.mark.parametrize("name", [*WHOLE, *SECONDS])
def test_what_is_no_bound_is_refused_by_name(name: str, value: Any) -> None:
    with pytest.raises(ValueError, match=rf"^Limits\.{name} must be a .* above 0, not {re.escape(repr(value))}; leave"):
        Limits(**{name: value})


@pytest.mark.parametrize("name", WHOLE)
def test_a_count_is_whole(name: str) -> None:
    with pytest.raises(ValueError, match=r"a whole number above 0, not 1\.5"):
        Limits(**{name: 1.5})  # type: ignore[arg-type]
    assert getattr(Limits(**{name: 1}), name) == 1


@pytest.mark.parametrize("name", SECONDS)
@given(seconds=st.floats(min_value=0, exclude_min=True, allow_infinity=False) | st.integers(1, 10**9))
def test_a_time_is_any_finite_number_of_seconds(name: str, seconds: float) -> None:
    assert getattr(Limits(**{name: seconds}), name) == seconds  # type: ignore[arg-type]


def test_a_depth_beyond_the_parsers_own_is_refused() -> None:
    assert Limits(max_json_depth=199).max_json_depth == 199
    with pytest.raises(ValueError, match=r"at most 199.*not 200"):
        Limits(max_json_depth=200)
