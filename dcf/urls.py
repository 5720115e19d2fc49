"""Secrets in URLs: passwords, keys and signatures are neither logged nor stored."""

import re

HIDDEN = "***"
_URL = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://[^\s'\"<>]+")
# A key may hold slashes that nobody quoted; a colon, digits and a slash are a port and a path.
_USER = re.compile(r"(://)(?:[^/?#]*|[^/?#:]*:(?!\d+/)[^?#]*)@")
_VALUE = re.compile(r"([?&][^=&#]*=)[^&#)]+")


def conceal(text: str) -> str:
    """Return `text` with the user part and the query's values of every URL in it hidden."""
    return _URL.sub(lambda url: _VALUE.sub(rf"\1{HIDDEN}", _USER.sub(rf"\1{HIDDEN}@", url[0])), text)
