"""Ids sort by time and are plain words; keys and tokens that were not made here are told apart."""

import base64
import binascii
import re
import string
import zlib

from hypothesis import given
from hypothesis import strategies as st

from proxy.core.ids import Secrets, is_api_key, new_api_key, sha256_hex, time_hex

BASE62 = string.digits + string.ascii_letters
TIMES = st.integers(0, 2**52 - 1)
OLD, NEW = Secrets(masters=("old secret",)), Secrets(masters=("new secret", "old secret"))
VIDEO = "video_0019f0a1b2c3d4e5f60718a"


# Ids


@given(TIMES, TIMES)
def test_later_id_sorts_later(one_us: int, other_us: int) -> None:
    if one_us != other_us:
        assert (time_hex(one_us) < time_hex(other_us)) == (one_us < other_us)


@given(TIMES)
def test_id_is_hex_digits_of_one_length(at_us: int) -> None:
    assert re.fullmatch(r"[0-9a-f]{24}", time_hex(at_us))


def test_ids_of_one_moment_differ() -> None:
    assert len({time_hex(1_795_239_000_000_000) for _ in range(1000)}) == 1000


def test_video_id_is_a_plain_word_that_no_gateway_takes_for_its_own() -> None:
    # Gateways before us write ids as base64 of parts joined by semicolons, and try every id that way.
    for month in range(12 * 30):
        video_id = f"video_{time_hex(1_795_239_000_123_456 + month * 2_629_800_000_000)}"
        assert re.fullmatch(r"[A-Za-z0-9_]+", video_id)
        for text in (video_id, video_id.removeprefix("video_")):
            assert all(";" not in decoded for decoded in read_as_base64(text))


def read_as_base64(text: str) -> list[str]:
    found = []
    for padding in ("", "=", "=="):
        for decode in (base64.b64decode, base64.urlsafe_b64decode):
            try:
                found.append(decode(text + padding).decode())
            except (binascii.Error, UnicodeDecodeError):
                continue
    return found


def test_gateways_own_id_would_be_seen() -> None:
    theirs = base64.b64encode(b"provider:p;model_id:m;video_id:v").decode()
    assert "provider:p;model_id:m;video_id:v" in read_as_base64(theirs)


# API keys


def test_new_key_has_its_form_and_check_sum() -> None:
    keys = {new_api_key() for _ in range(200)}
    assert len(keys) == 200
    for key in keys:
        assert re.fullmatch(r"rly_[0-9A-Za-z]{38}", key)
        assert is_api_key(key)


def test_key_with_any_single_digit_changed_is_refused() -> None:
    key = new_api_key()
    for place in range(len(key)):
        for digit in BASE62 + "_-!\xe9\u0660":
            if digit != key[place]:
                assert not is_api_key(key[:place] + digit + key[place + 1 :]), (place, digit)


def test_key_with_two_neighbours_swapped_is_refused() -> None:
    key = new_api_key()
    for place in range(len(key) - 1):
        swapped = key[:place] + key[place + 1] + key[place] + key[place + 2 :]
        assert swapped == key or not is_api_key(swapped)


def test_key_cut_or_grown_is_refused() -> None:
    key = new_api_key()
    for other in ("", "rly_", key[:-1], key + "0", " " + key, key + "\n", key.upper(), "sk-" + key[4:]):
        assert not is_api_key(other)


def test_right_check_sum_over_other_characters_is_no_key() -> None:
    stem = "rly_" + "!" * 32
    number, digits = zlib.crc32(stem.encode()), ""
    for _ in range(6):
        number, rest = divmod(number, 62)
        digits = (string.digits + string.ascii_uppercase + string.ascii_lowercase)[rest] + digits
    assert not is_api_key(stem + digits)


@given(st.text(st.characters(exclude_categories=[]), max_size=50))
def test_no_text_breaks_the_check_of_a_key(text: str) -> None:
    assert not is_api_key(text)
    assert not is_api_key(("rly_" + text).ljust(42, "0")[:42])


# What is stored of a key, and what sellers see of a person


def test_key_is_found_under_every_pepper_and_stored_under_the_newest() -> None:
    key = new_api_key()
    (stored,) = OLD.key_digests(key)
    newest, older = NEW.key_digests(key)
    assert older == stored
    assert newest != stored
    assert re.fullmatch(r"[0-9a-f]{64}", newest)
    assert key not in newest


def test_pseudonym_tells_people_and_tenants_apart_and_nothing_else() -> None:
    assert OLD.pseudonym("acme", "ann") == OLD.pseudonym("acme", "ann")
    others = {OLD.pseudonym("acme", "ann"), OLD.pseudonym("acme", "bob"), OLD.pseudonym("other", "ann")}
    assert len(others) == 3
    assert all(re.fullmatch(r"[0-9a-f]{32}", name) for name in others)


def test_border_between_tenant_and_person_cannot_be_moved() -> None:
    assert OLD.pseudonym("a", "bc") != OLD.pseudonym("ab", "c")


def test_sha256_is_the_standard_one() -> None:
    assert sha256_hex(b"abc").startswith("ba7816bf8f01cfea")


# Callback tokens


@given(TIMES, st.integers(0, 10**6))
def test_callback_token_names_its_attempt(at_us: int, number: int) -> None:
    video_id = f"video_{time_hex(at_us)}"
    token = OLD.callback_token(video_id, number)
    assert OLD.read_callback_token(token) == (video_id, number)
    assert re.fullmatch(r"[A-Za-z0-9_-]+", token), "it is a part of an address as it is"


def test_callback_token_with_any_character_changed_is_refused() -> None:
    token = OLD.callback_token(VIDEO, 1)
    for place in range(len(token)):
        for other in "0aA-_z7é":
            if other != token[place]:
                assert OLD.read_callback_token(token[:place] + other + token[place + 1 :]) is None


def test_callback_token_in_other_clothes_is_refused() -> None:
    token = OLD.callback_token(VIDEO, 1)
    for other in (token.upper(), token + "=", token[:-1], f" {token}", f"{token}-", f"{token}/"):
        assert OLD.read_callback_token(other) is None


def test_signature_of_one_attempt_does_not_open_another() -> None:
    signature = OLD.callback_token(VIDEO, 1).rpartition("-")[2]
    assert OLD.read_callback_token(f"{VIDEO}-2-{signature}") is None
    assert OLD.read_callback_token(f"{VIDEO}-11-{signature}") is None


@given(st.text())
def test_no_text_breaks_the_reading_of_a_token(text: str) -> None:
    assert OLD.read_callback_token(text) is None


def test_token_outlives_a_rotation_and_ends_with_its_secret() -> None:
    token = OLD.callback_token(VIDEO, 3)
    assert NEW.read_callback_token(token) == (VIDEO, 3)
    assert NEW.callback_token(VIDEO, 3) != token, "the newest secret signs"
    assert OLD.read_callback_token(NEW.callback_token(VIDEO, 3)) is None
    assert Secrets(masters=("new secret",)).read_callback_token(token) is None
