"""The user's input is wrong: one clear message, no traceback, exit status 2."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class UserError(ValueError):
    """Names the file and the key, says what is wrong, and where possible the nearest choice."""


def unknown(kind: str, name: object, known: Iterable[str], *, where: str) -> UserError:
    """The error for a name that nothing has, with the nearest choice or all of them."""
    choices = sorted(known)
    close = difflib.get_close_matches(str(name), choices, n=1, cutoff=0.5)
    hint = f"did you mean {close[0]!r}?" if close else f"known: {', '.join(choices) or 'none'}"
    return UserError(f"{where}: unknown {kind} {name!r}; {hint}")
