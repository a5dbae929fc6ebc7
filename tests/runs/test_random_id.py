"""Ids that the server gives."""

from uuid import UUID

from app.runs.random_id import MADE_AT_ONCE, RandomIds


def test_each_id_is_another_uuid_of_version_4_in_its_usual_form() -> None:
    ids = RandomIds()
    made = [ids.new() for _ in range(3 * MADE_AT_ONCE)]
    assert len(set(made)) == len(made)
    for text in made:
        assert str(UUID(text)) == text
        assert UUID(text).version == 4


def test_two_makers_share_nothing() -> None:
    one, other = RandomIds(), RandomIds()
    assert {one.new() for _ in range(MADE_AT_ONCE)}.isdisjoint(other.new() for _ in range(MADE_AT_ONCE))
