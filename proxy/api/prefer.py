"""`Prefer` as RFC 7240 has it; a preference that is not understood is none."""

import re
from collections.abc import Iterable

# Possessive throughout: whatever a stranger sends, each character is looked at once.
_SPACE = r"[ \t]*+"
_NAME = r"[!#$%&'*+.^_`|~0-9A-Za-z-]++"
_WORD = rf'(?:{_NAME}|"(?:[^"\\]|\\.)*+")'
_PARAMETER = rf"{_SPACE};{_SPACE}(?:{_NAME}(?:{_SPACE}={_SPACE}{_WORD}?)?)?"
_PREFERENCE = re.compile(rf"{_SPACE}(?:({_NAME})(?:{_SPACE}={_SPACE}({_WORD})?)?(?:{_PARAMETER})*+)?{_SPACE}(?:,|$)")
_SECONDS = re.compile(r'"?([0-9]{1,9})[0-9]*"?')
"""Nine digits are enough to be more than anybody may wait."""


def preferred_wait_s(fields: Iterable[str]) -> int | None:
    """
    Seconds that the client prefers to wait, None where it does not say so in whole seconds.

    `fields` are the values of all `Prefer` headers; of two such preferences the first counts.
    """
    for field in fields:
        place = 0
        while place < len(field) and (match := _PREFERENCE.match(field, place)):
            if (match[1] or "").lower() == "wait":
                seconds = _SECONDS.fullmatch(match[2] or "")
                return int(seconds[1]) if seconds else None
            place = match.end()
    return None
