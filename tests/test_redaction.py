"""Secrets are hidden in every form; what is no secret is not touched."""

from __future__ import annotations

import base64
import string
import time
from pathlib import Path
from urllib.parse import quote, quote_plus

import pytest
from hypothesis import assume, example, given
from hypothesis import strategies as st

from voxblink2_lib.redaction import (
    HIDDEN,
    is_redacted,
    redact,
    redacted_source,
    secrets_in,
    secrets_in_cookies,
)

BASIC = "Basic Ym9iOnB3"
SECRET = st.text(
    st.characters(codec="utf-8", exclude_categories=("Cc", "Cs")), min_size=8, max_size=60
).filter(lambda text: text == text.strip() and HIDDEN not in text)
WORDS = st.text(string.ascii_letters + string.digits + " .,:;!?()'-_", max_size=40)


def written(secret: str) -> list[str]:
    """Return a secret in the forms in which libraries and servers write it."""
    encoded = secret.encode()
    return [
        secret,
        quote(secret, safe=""),
        quote(secret, safe="").lower(),
        quote_plus(secret),
        quote(quote(secret, safe=""), safe=""),
        "".join(f"%{byte:02X}" for byte in encoded),
        base64.b64encode(encoded).decode(),
        base64.urlsafe_b64encode(encoded).decode(),
        base64.b64encode(b"user:" + encoded).decode(),
    ]


# -- Properties ------------------------------------------------------------------------------------


@given(SECRET, WORDS, WORDS)
@example("p+/=p+/=p+/=", "", "")
def test_a_known_secret_is_in_no_output(secret: str, before: str, after: str) -> None:
    for form in written(secret):
        assume(form.lower() not in f"{before} {after}".lower())
        hidden = redact(f"{before} {form} {after}", [secret])
        assert form.lower() not in hidden.lower()


@given(SECRET, SECRET, SECRET)
def test_a_url_loses_what_is_secret_without_being_told(
    user: str, password: str, token: str
) -> None:
    user, password, token = (quote(text, safe="") for text in (user, password, token))
    url = f"https://{user}:{password}@example.org/a.wav?token={token}&part=2#t"
    assert redact(f"no answer from {url}: refused") == (
        "no answer from https://***@example.org/a.wav?token=***&part=***#t: refused"
    )


@given(st.text(max_size=200), st.lists(SECRET, max_size=3))
@example("http://a@b?c=d&e", [])
@example("//a?b=c,;d=e.", [])
@example("Authorization: Basic x", [])
def test_twice_is_once(text: str, secrets: list[str]) -> None:
    once = redact(text, secrets)
    assert redact(once, secrets) == once


@given(st.text(st.characters(exclude_characters="/"), max_size=200))
@example("Sign in to confirm your age. Basic authentication, cookies: 5 of 7")
def test_plain_text_is_unchanged(text: str) -> None:
    assume(not any(word in text.lower() for word in ("authorization", "cookie:", "cookie=")))
    assert redact(text) == text


@given(SECRET, SECRET)
def test_the_secrets_of_a_url_are_found(password: str, token: str) -> None:
    source = f"http://bob:{quote(password, safe='')}@example.org/{{video_id}}?key={quote(token)}"
    assert {password, token, f"bob:{password}"} <= secrets_in(source)


# -- Examples --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "hidden"),
    [
        ("http://example.org/a.wav", "http://example.org/a.wav"),
        ("(see https://a.example/wiki#how-to)", "(see https://a.example/wiki#how-to)"),
        ("HTTP://Bob@A.example", "HTTP://***@A.example"),
        ("http://a:b@c@d.example/x", "http://***@d.example/x"),
        ("http://a:b/c@d.example/x", "http://***@d.example/x"),
        ("http://a:b#c@d.example/x", "http://***@d.example/x"),
        ("http://a.example:8080/x@y", "http://a.example:8080/x@y"),
        ("socks5://me:x@[::1]:1080", "socks5://***@[::1]:1080"),
        ("http://[::1]/a@b", "http://[::1]/a@b"),
        ("//me:x@proxy", "//***@proxy"),
        ("http://a.example/http://b:c@d.example", "http://a.example/http://***@d.example"),
        ("'http://a.example/?k=v', then", "'http://a.example/?k=***', then"),
        ("http://a.example/?secret", "http://a.example/?***"),
        ("http://a.example/?k=a?b=c", "http://a.example/?k=***"),
        ("http://a.example/x#access_token=1", "http://a.example/x#access_token=***"),
        ("http://a.example/?q=", "http://a.example/?q="),
        ("http://a.example/?id={video_id}&k=1", "http://a.example/?id={video_id}&k=***"),
        ("Authorization: Basic x, and more\nnext", "Authorization: ***\nnext"),
        ("{'Cookie': 'a=b'}", "{'Cookie': ***"),
        ("got Bearer abc1234567 here", "got Bearer *** here"),
        ("a // comment, 3/4 and /data/x?y=z", "a // comment, 3/4 and /data/x?y=z"),
    ],
)
def test_by_shape(text: str, hidden: str) -> None:
    assert redact(text) == hidden


@pytest.mark.parametrize(
    ("text", "secrets"),
    [
        ("http://bob:pw@a.example", {"bob:pw", "pw"}),
        ("http://bob@a.example/?n=short", {"bob"}),
        ("bob:pw@proxy:1", {"bob:pw", "pw"}),
        ("http://a.example/?token=x&size=720", {"x"}),
        ("http://a.example/?token={video_id}", set()),
        ("--username me --password 'a b'", {"a b"}),
        ("-u me -px", {"x"}),
        ("--password=-x", {"-x"}),
        ("--yt_dlp=--password x", {"x"}),
        ("--add-headers X-Key:abc", {"abc"}),
        ("--add-headers 'Authorization: Bearer abc'", {"Bearer abc", "abc"}),
        (f"--add-headers 'Authorization: {BASIC}'", {BASIC, "Ym9iOnB3", "bob:pw", "pw"}),
        ("--add-headers 'Cookie: a=12345678; b=1'", {"a=12345678; b=1", "b=1", "12345678"}),
        ("--proxy=http://bob:pw@a.example", {"bob:pw", "pw"}),
        ("youtube:po_token=web.gvs+abc", {"web.gvs+abc"}),
        ("/data/store", set()),
        ("an unfinished 'quote", set()),
    ],
)  # fmt: skip
def test_what_is_secret(text: str, secrets: set[str]) -> None:
    assert secrets_in(text) == secrets


def test_a_short_secret_is_hidden_as_a_word_only() -> None:
    assert redact("pw: upward spw %3Apw%40 x", ["pw"]) == "***: upward spw %3A***%40 x"


def test_values_of_cookies(tmp_path: Path) -> None:
    path = tmp_path / "cookies.txt"
    path.write_text("# Netscape\n.a.example\tTRUE\t/\tTRUE\t0\tSID\ts3cr3t-value\nx\tshort\n")
    assert secrets_in_cookies(path) == {"s3cr3t-value"}
    assert secrets_in_cookies(tmp_path / "none.txt") == frozenset()


def test_a_source_has_one_name_for_all_its_secrets() -> None:
    first = redacted_source("https://a:b@host.example/{video_id}?token=1")
    second = redacted_source("https://c:d@host.example/{video_id}?token=2")
    assert (
        first == second == redacted_source(first) == "https://***@host.example/{video_id}?token=***"
    )
    assert is_redacted(first)
    for named in ("youtube", "/data/media", "https://host.example/{video_id}.wav"):
        assert redacted_source(named) == named
        assert not is_redacted(named)


def test_hostile_texts_take_no_time() -> None:
    started = time.process_time()
    for text in ("a" * 300_000, "//" * 150_000, "//a:" * 75_000, "?&" * 150_000, "//a?" * 75_000):
        redact(text, ["s3cr3t-value", "pw"])
    assert time.process_time() - started < 5
