"""Values of yt-dlp's options that yt-dlp takes, and that fail or hang every video."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Callable, Collection, Iterator, Mapping
from typing import Any

from voxblink2_lib.errors import SourceError
from voxblink2_lib.records import has_control_character
from voxblink2_lib.sources.options import check_proxy

_DAY_SECONDS = 86_400
# A failure that lasts is repeated by later runs; more tries at once would hold up the route.
_MAX_RETRIES = 100
_HEADER_NAME = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+", re.ASCII)
# Each request sets these itself; another value breaks it.
_OWN_HEADERS = {"content-length", "transfer-encoding", "range", "if-range"}


def check_values(parsed: Mapping[str, Any], options: Mapping[str, Collection[str]]) -> None:
    """Refuse what would fail every video, or hang the run.

    Args:
        parsed: yt-dlp's parameters by their names.
        options: the names of the parameters by the option that was given.

    Raises:
        SourceError: a value is not allowed; the message names the option, not the value of one
            that may be secret.
    """
    for option, names in options.items():
        for name in names:
            value = parsed[name]
            if any(map(has_control_character, _texts(value))):
                raise SourceError(
                    f"yt_dlp: the value of {option} contains a control character, such as a line "
                    "break or NUL. Remove it."
                )
            if name in _CHECKS:
                _CHECKS[name](option, value)


def _texts(value: Any) -> Iterator[str]:
    """Yield all texts in a value, which may be nested."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping):
        for key, entry in value.items():
            yield str(key)
            yield from _texts(entry)
    elif isinstance(value, list | tuple):
        for entry in value:
            yield from _texts(entry)


def _refuse(option: str, allowed: str, value: object) -> None:
    raise SourceError(f"yt_dlp: {option} must be {allowed}, got {value!r}.")


def _seconds(least: float, most: float) -> Callable[[str, float], None]:
    def check(option: str, value: float) -> None:
        if not least <= value <= most:  # nan is neither
            _refuse(option, f"a number of seconds from {least:g} to {most:,}", value)

    return check


def _check_retries(option: str, value: float) -> None:
    if not 0 <= value <= _MAX_RETRIES:
        _refuse(option, f"a whole number from 0 to {_MAX_RETRIES}", value)


def _check_address(option: str, value: str) -> None:
    try:
        ipaddress.ip_address(value)
    except ValueError:
        _refuse(option, "an IP address of this machine, such as 192.0.2.7", value)


def _check_headers(option: str, headers: Mapping[str, str]) -> None:
    for name, value in headers.items():
        if not _HEADER_NAME.fullmatch(name):
            _refuse(option, "NAME:VALUE with a name of letters, digits and hyphens", name)
        if name.lower() in _OWN_HEADERS:
            raise SourceError(
                f"yt_dlp: {option} must not set {name}: each request sets its own. Leave it out."
            )
        try:
            value.encode("latin-1")
        except UnicodeEncodeError:
            raise SourceError(
                f"yt_dlp: the value of {option} for {name} has characters that no header can "
                "have; percent-encode them."
            ) from None


def _check_geo_proxy(option: str, value: str) -> None:
    check_proxy(value, name=f"yt_dlp: {option}")


def _check_country(option: str, value: str | None) -> None:
    from yt_dlp.utils import GeoUtils

    if value is not None and GeoUtils.random_ipv4(value) is None:
        _refuse(option, "default, never, a country such as DE, or addresses as 192.0.2.0/24", value)


def _check_block(option: str, value: str | None) -> None:
    try:
        if value is not None:
            ipaddress.IPv4Network(value, strict=False)
    except ValueError:
        _refuse(option, "default, never, a country such as DE, or addresses as 192.0.2.0/24", value)


def _check_credential(option: str, value: str) -> None:
    if not value:
        raise SourceError(f"yt_dlp: {option} is an empty text. Leave it out, or name the account.")


_CHECKS: Mapping[str, Callable[[str, Any], None]] = {
    "sleep_interval_requests": _seconds(0, _DAY_SECONDS),
    "socket_timeout": _seconds(0.1, 3600),
    "source_address": _check_address,
    "http_headers": _check_headers,
    "extractor_retries": _check_retries,
    "retries": _check_retries,
    "fragment_retries": _check_retries,
    "geo_verification_proxy": _check_geo_proxy,
    "geo_bypass_country": _check_country,
    "geo_bypass_ip_block": _check_block,
    "username": _check_credential,
    "password": _check_credential,
}
