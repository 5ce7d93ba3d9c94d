"""Prefixed ids that sort by time, API keys that carry their own check sum, and signed callback tokens."""

import base64
import hashlib
import hmac
import random
import secrets
import zlib
from collections.abc import Callable

import msgspec

NewId = Callable[[int], str]
"""Hex digits from a time in microseconds; later times sort later."""

_BASE62 = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"


def time_hex(at_us: int) -> str:
    """
    24 hex digits: 13 of the time in microseconds, 11 (44 bits) of chance.

    Unique, not secret: whose a video is, its tenant says. Asking the kernel for bytes would let go of the
    interpreter's lock, which costs a create a fifth of its time.
    """
    return f"{at_us:013x}{random.getrandbits(44):011x}"


def _base62(number: int) -> str:
    digits = ""
    while number:
        number, rest = divmod(number, 62)
        digits = _BASE62[rest] + digits
    return digits.rjust(6, "0")


def new_api_key() -> str:
    """`rly_`, 32 random Base62 digits, 6 of CRC32 over all that precedes."""
    stem = "rly_" + "".join(secrets.choice(_BASE62) for _ in range(32))
    return stem + _base62(zlib.crc32(stem.encode()))


def is_api_key(text: str) -> bool:
    """Whether form and check sum are right; says nothing of whether the key exists."""
    formed = len(text) == 42 and text.startswith("rly_") and set(text[4:]) <= set(_BASE62)
    return formed and text[36:] == _base62(zlib.crc32(text[:36].encode()))


class Secrets(msgspec.Struct, frozen=True, kw_only=True):
    """
    Keys derived from REELAY_SECRET, the newest first.

    The first signs and stores; all verify, so that a comma list rotates.
    """

    masters: tuple[str, ...]

    def _derive(self, master: str, purpose: str) -> bytes:
        return hmac.digest(master.encode(), f"reelay/{purpose}".encode(), "sha256")

    @property
    def fingerprints(self) -> tuple[str, ...]:
        """By which a secret is known again, and which says nothing of it."""
        return tuple(self._derive(master, "fingerprint").hex()[:32] for master in self.masters)

    def key_digests(self, api_key: str) -> tuple[str, ...]:
        """HMAC of an API key under each pepper; the first is what is stored."""
        return tuple(
            hmac.digest(self._derive(master, "api-key"), api_key.encode(), "sha256").hex() for master in self.masters
        )

    def pseudonym(self, tenant_id: str, end_user_id: str) -> str:
        """What a seller sees of an end user: the same for the same person, nothing to others."""
        key = self._derive(self.masters[0], "end-user")
        return hmac.digest(key, f"{tenant_id}\0{end_user_id}".encode(), "sha256").hex()[:32]

    def callback_token(self, video_id: str, attempt_no: int) -> str:
        """Names one attempt, cannot be guessed: `<video id>-<attempt>-<signature>`."""
        text = f"{video_id}-{attempt_no}"
        return f"{text}-{self._signature(self.masters[0], text)}"

    def read_callback_token(self, token: str) -> tuple[str, int] | None:
        """The attempt that a token of ours names, or None for one that we did not make."""
        text, _, signature = token.rpartition("-")
        if not any(hmac.compare_digest(self._signature(m, text).encode(), signature.encode()) for m in self.masters):
            return None
        video_id, _, number = text.rpartition("-")
        return video_id, int(number)

    def _signature(self, master: str, text: str) -> str:
        digest = hmac.digest(self._derive(master, "callback"), text.encode(), "sha256")
        return base64.b32encode(digest[:20]).decode().lower()


def sha256_hex(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()
