"""Bodies of JSON as the description says they are: ``"60"`` is no number, and ``0`` is not false.

The framework reads bodies as it reads the query, where everything is a text. What only such a
reading would take is refused here, and a name that stands twice, of which one value would be lost
without a word. What nobody would take the framework refuses itself, in its own words.
"""

import json
import re
from typing import Any, Final

import msgspec
from litestar import Request
from litestar.exceptions import ValidationException
from pydantic import BaseModel, ValidationError
from typing_extensions import override

from gateway.problems import Problem

EXACT: Final = 2**53  # whole numbers below it are the same as floats
_PLACE: Final = re.compile(r"(.*) - at `\$\.?(.*)`\Z", re.DOTALL)


class StrictRequest(Request[Any, Any, Any]):
    """Knows what its route takes."""

    @override
    async def json(self) -> Any:
        value = await super().json()
        field = self.route_handler.parsed_data_field
        if field is not None:
            require_single_names(await self.body())
            require_types(value, field.annotation, await self.body())
        return value


class _Twice(ValueError):
    """A name that an object holds twice."""


def require_single_names(body: bytes) -> None:
    """Refuse an object that says two things of one name: readers differ in which of them they take.

    Raises:
        ValidationException: There is one; the name is named.
    """
    try:
        json.loads(body, object_pairs_hook=_single)
    except _Twice as twice:
        wrong = {"message": "it stands there twice", "key": str(twice), "source": "body"}
        raise ValidationException(extra=[wrong]) from None
    except RecursionError:
        raise Problem("bad_request", "The request body is nested too deeply.") from None


def _single(pairs: list[tuple[str, Any]]) -> None:
    names = set()
    for name, _ in pairs:
        if name in names:
            raise _Twice(name)
        names.add(name)


def require_types(value: Any, type_: Any, body: bytes) -> None:
    """Refuse a value that fits only when texts count as numbers, or numbers as truth.

    Raises:
        ValidationException: It does; the field is named.
    """
    wrong = _misfit(value, type_)
    if wrong is None or not _fits_loosely(value, type_):
        return
    wrong = _misfit(_WITH_WHOLE_NUMBERS.decode(body), type_)
    if wrong is not None:
        said = _PLACE.match(wrong)
        message, place = (said[1], said[2]) if said else (wrong, "")
        raise ValidationException(
            extra=[{"message": message, "key": place or "data", "source": "body"}]
        )


def _misfit(value: Any, type_: Any) -> str | None:
    try:
        msgspec.convert(value, type_, strict=True, dec_hook=_strict_model)
    except msgspec.ValidationError as error:
        return str(error)
    return None


def _number(text: str) -> float:
    """JSON has one kind of number: 60.0 is an integer, also by the description."""
    number = float(text)
    return int(number) if abs(number) < EXACT and number.is_integer() else number


_WITH_WHOLE_NUMBERS: Final = msgspec.json.Decoder(float_hook=_number)


def _fits_loosely(value: Any, type_: Any) -> bool:
    try:
        msgspec.convert(value, type_, strict=False, dec_hook=_loose_model)
    except msgspec.ValidationError:
        return False
    return True


def _strict_model(type_: Any, value: Any) -> Any:
    """A part of the body that is a model of the domain. Its lists become tuples only out of JSON."""
    if not (isinstance(type_, type) and issubclass(type_, BaseModel)):
        raise NotImplementedError
    try:
        return type_.model_validate_json(msgspec.json.encode(value), strict=True)
    except ValidationError as error:
        first = error.errors(include_input=False, include_url=False)[0]
        raise ValueError(f"{'.'.join(map(str, first['loc']))}: {first['msg']}") from None


def _loose_model(type_: Any, value: Any) -> Any:
    if not (isinstance(type_, type) and issubclass(type_, BaseModel)):
        raise NotImplementedError
    return type_.model_validate(value)
