"""What a name says of its value."""

from __future__ import annotations

import pytest

from escrow.naming import name_of, names_credential, names_page


@pytest.mark.parametrize(
    "name",
    [
        "password",
        "DB_PASSWORD",
        "apiKey",
        "api-key",
        "X-Auth-Token",
        "client_secret",
        "accessToken",
        "Authorization",
        "secretValue",
        "AWS_SECRET_ACCESS_KEY",
        "jwt",
    ],
)
def test_a_credentials_name_is_known(name: str) -> None:
    assert names_credential(name)
    assert not names_page(name)


@pytest.mark.parametrize(
    "name",
    ["", "key", "primary_key", "keyword", "next_page_token", "pageToken", "progressToken", "max_tokens", "author", "passage", "secretary", "tokenizer", "ключ"],
)
def test_other_names_are_none(name: str) -> None:
    assert not names_credential(name)


@pytest.mark.parametrize("name", ["cursor", "nextCursor", "page_token", "continuationToken", "etag", "idempotency-key"])
def test_a_name_that_asks_for_the_next_page_is_known(name: str) -> None:
    assert names_page(name)


@pytest.mark.parametrize("pointer, name", [("", ""), ("/a/b", "b"), ("/a/0/1", "a"), ("/a~1b", "a/b"), ("/a~0b/3", "a~b"), ("/0", "")])
def test_the_name_of_a_place_is_that_of_the_nearest_member(pointer: str, name: str) -> None:
    assert name_of(pointer) == name
