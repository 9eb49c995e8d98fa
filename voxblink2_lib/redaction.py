"""Hide secrets in texts: the one place where it is written down what is secret.

Two rules, of which :func:`redact` applies both:

* By shape. A URL in any text loses its user name and password, and the values of its query; keys,
  host and path stay, so that messages stay useful. Headers that log in lose their value.
* By value. What a user wrote down as a secret (:func:`secrets_in`) is hidden wherever it stands,
  also percent-encoded, and in Base64 as in ``Authorization: Basic``.
"""

from __future__ import annotations

import base64
import binascii
import functools
import itertools
import re
import shlex
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Final
from urllib.parse import unquote

HIDDEN: Final = "***"

# Stands for the id of a video in a template, and is no secret.
_PLACEHOLDER = "{video_id}"

# A URL from its slashes on. What is before them need not be looked at.
_URL = re.compile(r"//+[^\s\x00-\x1f\"<>`]+")
_SENTENCE_END = ".,:;!'\")]}"
_SLASHES = re.compile(r"(//+)")
_END_OF_HOST = re.compile(r"[/?#]")
_PART_OF_QUERY = re.compile(r"([?&;#])([^?&;#=]*)(=?)([^&;#]*)")
_HEADER = re.compile(
    r"\b((?:proxy-)?authorization|(?:set-)?cookie)\b(['\"]?\s*[:=]\s*).+", re.IGNORECASE
)
_CREDENTIALS = re.compile(r"\b(Basic|Bearer) +(?=[^\s,]*[0-9=+/_])[\w.~+/=-]{6,}")

# Values of these keys are secrets however short they are.
_SECRET_KEY = re.compile(r"token|key|sig|auth|pass|secret|credential", re.IGNORECASE)
_LEAST_LENGTH = 8
# Also abbreviated, as a mistyped option may be.
_PASSWORD_OPTION = re.compile(r"--(?:[a-z]+-)*pass[a-z]*|-p")
_HEADER_OPTION = re.compile(r"--add-h[a-z]*")
_OPTIONS_WITHIN = re.compile(r"(?<=\w)=(?=-)")
# So many characters of a secret are searched for; the rest of the word goes with them.
_SEARCHED_LENGTH = 48
_LEAST_BASE64 = 6


def redact(text: str, secrets: Iterable[str] = ()) -> str:
    """Return a text without secrets.

    Args:
        text: any text; plain text is returned unchanged.
        secrets: values to hide wherever they stand, see :func:`secrets_in`.

    Example:
        >>> redact("no answer from http://bob:pw@example.org/a.wav?token=7f3a&part=2.")
        'no answer from http://***@example.org/a.wav?token=***&part=***.'
        >>> redact("Access denied for Ym9iOnB3 (pw)", secrets_in("http://bob:pw@example.org"))
        'Access denied for *** (***)'
    """
    values = frozenset(secrets) - {"", HIDDEN}
    if values:
        text = _pattern(values).sub(HIDDEN, text)
    if "//" in text:
        text = _URL.sub(_redact_url, text)
    text = _HEADER.sub(rf"\1\2{HIDDEN}", text)
    return _CREDENTIALS.sub(rf"\1 {HIDDEN}", text)


def redacted_source(named: str) -> str:
    """Return a source as it may be stored and shown: the same for all secrets in it.

    Args:
        named: what a user wrote: a URL template, or anything without secrets.

    Example:
        >>> redacted_source("https://bob:pw@example.org/{video_id}?token=7f3a")
        'https://***@example.org/{video_id}?token=***'
    """
    scheme, slashes, rest = named.partition("//")
    return f"{scheme}{_hide_in_url(slashes + rest)}"


def is_redacted(named: str) -> bool:
    """Return whether a source, as it is stored, lacks a secret that a request would need.

    >>> is_redacted("https://example.org/{video_id}?token=***"), is_redacted("youtube")
    (True, False)
    """
    return "://" in named and HIDDEN in named


def without_user(text: str, home: str) -> str:
    r"""Return a text without the name of a user: ``~`` for the home folder, ``***`` elsewhere.

    Args:
        text: any text with paths.
        home: the user's home folder, whose last part is taken for the user's name.

    >>> without_user("/home/ann/.cache and /scratch/ann/x, not /home/anna", home="/home/ann")
    '~/.cache and /scratch/***/x, not /home/anna'
    """
    user = home.rstrip("/").rpartition("/")[2]
    if not user:
        return text
    text = re.sub(rf"(?<![\w.-]){re.escape(home.rstrip('/'))}(?![\w.-])", "~", text)
    return re.sub(rf"(?<=/){re.escape(user)}(?![\w.-])", HIDDEN, text)


# -- By shape --------------------------------------------------------------------------------------


def _redact_url(match: re.Match[str]) -> str:
    """Redact a URL within a sentence, whose punctuation is no part of it."""
    url = match[0].rstrip(_SENTENCE_END)
    return _hide_in_url(url) + match[0][len(url) :]


def _hide_in_url(url: str) -> str:
    """Hide what is secret in a URL without its scheme."""
    if "@" in url:
        parts = _SLASHES.split(url)
        parts[2::2] = map(_hide_user_info, parts[2::2])
        url = "".join(parts)
    start = min((at for at in map(url.find, "?#") if at >= 0), default=len(url))
    return url[:start] + _PART_OF_QUERY.sub(_hide_value, url[start:])


def _hide_user_info(place: str) -> str:
    length = _user_info_length(place)
    return f"{HIDDEN}{place[length:]}" if length else place


def _user_info_length(place: str) -> int:
    """Return how many characters of a URL, from its host on, are user name and password."""
    host = _END_OF_HOST.split(place, maxsplit=1)[0]
    if "@" in host:
        return host.rindex("@")
    _, colon, port = host.rpartition("]")[2].partition(":")
    is_port = not port.strip("0123456789")
    # A colon without a port: a password has characters that must be percent-encoded in it.
    return max(0, place.partition("?")[0].rfind("@")) if colon and not is_port else 0


def _hide_value(match: re.Match[str]) -> str:
    separator, key, equals, value = match.groups()
    if equals:
        return f"{separator}{key}={HIDDEN if value not in {'', _PLACEHOLDER} else value}"
    # A name of a place in a page is no secret, a query without a key may be one.
    is_public = not key or separator == "#" or key == _PLACEHOLDER
    return f"{separator}{key if is_public else HIDDEN}{value}"


# -- By value --------------------------------------------------------------------------------------


@functools.lru_cache(maxsize=64)
def _pattern(secrets: frozenset[str]) -> re.Pattern[str]:
    """Return what matches each secret in all its forms, the longest first.

    Capitals do not matter, since servers and libraries change them in what they repeat.
    """
    forms = [_spelled(secret) for secret in sorted(secrets, key=len, reverse=True)]
    forms += [form for secret in sorted(secrets) for form in _in_base64(secret)]
    return re.compile("|".join(forms), re.IGNORECASE)


def _spelled(secret: str) -> str:
    """Return a pattern of a secret, plain or with any of its characters percent-encoded."""
    letters = "".join(map(_letter, secret[:_SEARCHED_LENGTH]))
    if len(secret) > _SEARCHED_LENGTH:
        return rf"{letters}[^\s&;,\"'<>]*"
    if len(secret) >= _LEAST_LENGTH:
        return letters
    # A short one may be a part of other words.
    return rf"(?:(?<![A-Za-z0-9])|(?<=%[0-9A-Fa-f][0-9A-Fa-f])){letters}(?![A-Za-z0-9])"


def _letter(letter: str) -> str:
    """Return a pattern of a character, plain or percent-encoded, once or several times."""
    encoded = "".join(
        rf"%(?:25)*{byte:02x}" for byte in letter.encode("utf-8", errors="surrogatepass")
    )
    space = r"|\+" if letter == " " else ""
    return rf"(?:{re.escape(letter)}|{encoded}{space})"


def _in_base64(secret: str) -> Iterator[str]:
    """Yield patterns of a secret in Base64, at each of the three places of a group of bytes."""
    data = secret.encode("utf-8", errors="surrogatepass")
    for place in range(3):
        encoded = base64.b64encode(bytes(place) + data).decode()
        # Characters that hold bits of the secret only.
        core = encoded[(8 * place + 5) // 6 : 8 * (place + len(data)) // 6][:_SEARCHED_LENGTH]
        if len(core) >= _LEAST_BASE64:
            letters = "".join(map(_letter, core))
            yield letters.replace(re.escape("+"), "[+-]").replace("(?:/|", "(?:[/_]|") + (
                r"[A-Za-z0-9+/_-]*(?:=|%3[Dd]){0,2}"
            )


def secrets_in(*texts: str) -> frozenset[str]:
    """Return what is secret in texts of a user: URLs, and options of programs.

    Args:
        texts: a URL, a proxy, or options in one text, such as ``"--username me --password x"``.

    >>> sorted(secrets_in("http://bob:pw@example.org/?token=7f3a", "--add-headers X-Key:abc"))
    ['7f3a', 'abc', 'bob:pw', 'pw']
    """
    values = (value for text in texts for value in (*_url_secrets(text), *_option_secrets(text)))
    return frozenset(form for value in values for form in (value, unquote(value))) - {"", HIDDEN}


def secrets_in_cookies(file: Path) -> frozenset[str]:
    """Return the values of a cookie file in Netscape format that are long enough to be secrets."""
    try:
        lines = file.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return frozenset()  # whoever uses it reports it
    values = (
        line.rpartition("\t")[2]
        for line in lines
        if not line.startswith("#") or line.startswith("#HttpOnly_")
    )
    return frozenset(value for value in values if len(value) >= _LEAST_LENGTH)


def _url_secrets(url: str) -> Iterator[str]:
    """Yield the secrets of a URL, or of a proxy without a scheme."""
    _, slashes, rest = url.partition("//")
    place = rest if slashes else url
    if length := _user_info_length(place):
        yield from (place[:length], place[:length].partition(":")[2])
    for _, key, _, value in _PART_OF_QUERY.findall(place):
        is_secret = _SECRET_KEY.search(key) or len(value) >= _LEAST_LENGTH
        if is_secret and value != _PLACEHOLDER:
            yield value


def _option_secrets(text: str) -> Iterator[str]:
    for word, following in itertools.pairwise([*_words(text), ""]):
        name, equals, value = word.partition("=")
        value = value if equals else following
        if _PASSWORD_OPTION.fullmatch(name):
            yield value
        elif word.startswith("-p"):
            yield word[2:]
        elif _HEADER_OPTION.fullmatch(name):
            yield from _header_secrets(value)
        elif "//" in word or "@" in word:
            yield from _url_secrets(value if equals and name.startswith("-") else word)
        elif _SECRET_KEY.search(name):  # such as a token for an extractor
            yield from re.split("[,;]", value) if equals else ()


def _words(text: str) -> list[str]:
    try:
        words = shlex.split(text)
    except ValueError:
        words = text.split()
    # Options within an option: --yt-dlp="--password x".
    return [part for word in words for part in _OPTIONS_WITHIN.split(word, maxsplit=1)]


def _header_secrets(header: str) -> Iterator[str]:
    """Yield the value of a header, and the parts of it that are secret by themselves."""
    value = header.partition(":")[2].strip()
    yield value
    scheme, _, credentials = value.partition(" ")
    yield credentials
    if scheme.lower() == "basic":
        try:
            pair = base64.b64decode(credentials).decode()
        except (binascii.Error, UnicodeDecodeError):
            return
        yield from (pair, pair.partition(":")[2])
    for part in value.split(";"):  # of a cookie
        _, equals, inner = part.strip().partition("=")
        if equals and len(inner) >= _LEAST_LENGTH:
            yield inner
