"""API keys as they are set, and as they are shown."""

import hashlib

import pytest

from app.auth.key import find_owner, parse_api_keys
from app.settings import Settings

SECRET = "a-key-that-nobody-guesses"


def test_each_key_has_its_owner_and_an_owner_may_have_several() -> None:
    keys = parse_api_keys("ada:one, bob:two:with:colons ,ada:three,")

    found = {
        key: find_owner(keys, key) for key in ("one", "two:with:colons", "three", "", "on", "onee", "ada", "ada:one")
    }

    assert found == {
        "one": "ada", "two:with:colons": "bob", "three": "ada",
        "": None, "on": None, "onee": None, "ada": None, "ada:one": None,
    }  # fmt: skip


def test_a_key_may_be_set_by_its_hash_and_the_hash_is_no_key() -> None:
    digest = hashlib.sha256(SECRET.encode()).hexdigest()
    keys = parse_api_keys(f"ada:sha256:{digest.upper()}")

    assert find_owner(keys, SECRET) == "ada"
    assert find_owner(keys, digest) is None
    assert find_owner(keys, f"sha256:{digest}") is None


@pytest.mark.parametrize("key", ["schlüssel", "鍵", "\udcff", "\x00"])
def test_any_text_can_be_looked_for(key: str) -> None:
    assert find_owner(parse_api_keys("ada:schlüssel,bob:鍵"), key) == {"schlüssel": "ada", "鍵": "bob"}.get(key)


@pytest.mark.parametrize(
    "text", [SECRET, f":{SECRET}", "ada:", f"ada:{SECRET},bob:{SECRET}", "ada:sha256:12", f"ada:sha256:{SECRET}"]
)
def test_what_is_no_list_of_keys_is_said_without_quoting_a_key(text: str) -> None:
    with pytest.raises(ValueError) as caught:  # noqa: PT011  # its message is what this is about
        parse_api_keys(text)
    assert SECRET not in str(caught.value)

    with pytest.raises(ValueError) as caught:  # noqa: PT011
        Settings(_env_file=None, api_keys=text)
    assert SECRET not in str(caught.value)


def test_settings_show_no_key_and_keep_only_hashes() -> None:
    settings = Settings(_env_file=None, api_keys=f"ada:{SECRET}")

    assert SECRET not in f"{settings!r} {settings.model_dump()!r}"
    assert hashlib.sha256(SECRET.encode()).hexdigest() not in repr(settings)
    assert find_owner(settings.api_keys, SECRET) == "ada"
