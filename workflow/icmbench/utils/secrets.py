"""Hide credentials in addresses and in the environment."""

from __future__ import annotations

import os
import re
from urllib.parse import unquote, urlsplit

_NAMES = re.compile(r"PASSWORD|PASSWD|SECRET|TOKEN|CREDENTIAL|API_?KEY|ACCESS_KEY", re.IGNORECASE)
_IN_ADDRESS = re.compile(r"(\b[a-z][a-z0-9+.-]*://)[^/@\s'\"]+@", re.IGNORECASE)
_ASSIGNED = re.compile(rf"((?:{_NAMES.pattern})[\w-]*['\"]?\s*[:=]\s*)[^\s=].*", re.IGNORECASE)
_SHORTEST = 6  # a shorter value may be part of any word
_HIDDEN = "***"


def has_credentials(address: str) -> bool:
    """Return whether an address names a user or a password."""
    return "@" in urlsplit(address).netloc


def hide_assigned(text: str) -> str:
    """Return a text without what follows a name like that of a secret on its line.

    >>> hide_assigned("+  api_key: abc\\n+  steps: 3")
    '+  api_key: ***\\n+  steps: 3'
    """
    return _ASSIGNED.sub(rf"\1{_HIDDEN}", text)


def hide_secrets(text: str, *addresses: str) -> str:
    """Return a text without credentials.

    Hidden are user and password of every address in the text, the values of environment variables
    that are named like secrets, and user, password and query of the given addresses.
    """
    values = {v for n, v in os.environ.items() if _NAMES.search(n) and len(v) >= _SHORTEST}
    for address in addresses:
        parts = urlsplit(address)
        if "@" in parts.netloc:
            values.add(parts.netloc.rpartition("@")[0])
            values |= {part for part in (parts.password, parts.username) if part and len(part) > 3}
        if parts.scheme != "sqlite" and parts.query:
            values.add(parts.query)
    values |= {unquote(value) for value in values}
    for value in sorted(values, key=len, reverse=True):
        text = text.replace(value, _HIDDEN)
    return _IN_ADDRESS.sub(rf"\1{_HIDDEN}@", text)
