"""Names of owners that no store, log or path minds, and the credentials in headers."""

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from app.auth.identity import MAX_SUBJECT_CHARS, MAX_TOKEN_CHARS, headers_of, owner_of, token_in
from app.errors import Unauthorized
from app.runs.model import scoped


@pytest.mark.parametrize("subject", ["ada", "ada@example.com", "auth0|5f", "system:serviceaccount:a:b"])
def test_an_ordinary_subject_is_the_owner_as_it_is(subject: str) -> None:
    assert owner_of(subject) == subject


@pytest.mark.parametrize("subject", ["", "x" * (MAX_SUBJECT_CHARS + 1), "\ud800", None, 5, True, b"ada", ["ada"], {}])
def test_what_is_no_name_is_nobody(subject: object) -> None:
    with pytest.raises(Unauthorized):
        owner_of(subject)


subjects = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=20)


@example("a/b", "a", "t", "b/t")
@example("a%2Fb", "a/b", "t", "t")
@given(subjects, subjects, st.text(max_size=20), st.text(max_size=20))
def test_two_subjects_meet_in_no_key_whatever_the_ids(one: str, other: str, id_one: str, id_other: str) -> None:
    keys = scoped(owner_of(one), id_one), scoped(owner_of(other), id_other)

    assert (keys[0] == keys[1]) == ((one, id_one) == (other, id_other))
    assert "/" not in owner_of(one)
    assert owner_of(one).isprintable()


def token(*headers: tuple[bytes, bytes]) -> str | None:
    return token_in(headers_of({"headers": headers}))


def test_a_token_comes_as_bearer_or_as_an_api_key() -> None:
    assert token((b"authorization", b"Bearer  abc ")) == "abc"
    assert token((b"authorization", b"bEARER abc")) == "abc"
    assert token((b"x-api-key", "schlüssel".encode())) == "schlüssel"
    assert token((b"authorization", b"Basic abc"), (b"x-api-key", b"key")) == "key"
    assert token((b"x-api-key", b"key"), (b"authorization", b"Bearer abc")) == "abc"
    assert token((b"authorization", b"Basic abc"), (b"cookie", b"token=abc")) is None


@pytest.mark.parametrize(
    "headers",
    [
        [(b"authorization", b"Bearer one"), (b"authorization", b"Bearer two")],
        [(b"x-api-key", b"one"), (b"x-api-key", b"two")],
        [(b"x-api-key", b"\xff")],
        [(b"authorization", b"Bearer " + b"x" * (MAX_TOKEN_CHARS + 1))],
    ],
)
def test_credentials_that_can_mean_two_things_or_are_no_text_are_refused(headers: list[tuple[bytes, bytes]]) -> None:
    with pytest.raises(Unauthorized):
        token(*headers)
