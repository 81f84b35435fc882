"""Settings of a run that may be shown to anyone: without paths of keys and passphrases, and without access tokens."""

import re
from typing import Any
from urllib.parse import urlsplit, urlunsplit

# Words of a field's name; such a field is never shown or sent.
_PRIVATE = re.compile(r"(^|[._])(key|passphrase|password|secret|token)s?([._]|$)")
_URL = re.compile(r"https?://\S+")

Setting = str | int | float | bool | None | list[Any]


def public_settings(config: dict[str, Any]) -> dict[str, Setting]:
    """Returns the fields of a configuration by their full names, without those that only the owner may see.

    Args:
      config: the field "config" of a config.json, such as {"epochs": 3, "data": {"name": "cifar10"}}.

    Returns:
      Such as {"epochs": 3, "data.name": "cifar10"}. Fields named after keys, passphrases and the like are left out.
      URLs lose their user name, password, query and fragment, which may hold tokens.
    """
    return {name: _without_tokens(value) for name, value in _flatten(config).items() if not _PRIVATE.search(name)}


def _flatten(fields: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    flat = {}
    for name, value in fields.items():
        flat |= _flatten(value, f"{prefix}{name}.") if isinstance(value, dict) else {f"{prefix}{name}": value}
    return flat


def _without_tokens(value: Any) -> Any:
    if isinstance(value, list | tuple):
        return [_without_tokens(item) for item in value]
    return _URL.sub(_shorten, value) if isinstance(value, str) else value


def _shorten(url: re.Match[str]) -> str:
    parts = urlsplit(url[0])
    return urlunsplit((parts.scheme, parts.netloc.rpartition("@")[2], parts.path, "", ""))
