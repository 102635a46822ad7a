"""max_bytes that no file can keep is refused when the recording is asked for, not when it is lost."""

from __future__ import annotations

from typing import Any

import pyrage
import pytest

from fastagi.cipher import AesCbcCipher, AesGcmCipher, AgeCipher, Cipher
from fastagi.errors import BadArgument
from fastagi.recording.parameters import spec_from

ONE = AgeCipher([str(pyrage.x25519.Identity.generate().to_public())])
TWENTY = AgeCipher([str(pyrage.x25519.Identity.generate().to_public()) for _ in range(20)])


@pytest.mark.parametrize(
    ("file_format", "rate", "cipher", "least"),
    [
        ("alaw", 8000, None, 400),
        ("ima", 8000, AesCbcCipher(bytes(16), bytes(16)), 400),
        ("ima", 8000, AesGcmCipher(bytes(16)), 400),
        ("ima", 16000, None, 572),
        ("ima", 16000, AesGcmCipher(bytes(16)), 616),
        ("alaw", 8000, ONE, 560),
        ("s16bit", 8000, TWENTY, 2408),
        ("ima", 8000, ONE, 816),
        ("flac", 8000, ONE, 700),
        ("mp3", 8000, TWENTY, 4000),
    ],
)
def test_a_limit_below_what_a_sample_needs_is_refused(
    file_format: str, rate: int, cipher: Cipher | None, least: int
) -> None:
    def asked(max_bytes: int, mode: str = "mixed") -> Any:
        return spec_from(
            {"file_format": file_format, "rate": rate, "max_bytes": max_bytes, "recording_mode": mode}, cipher
        )

    with pytest.raises(BadArgument, match="max_bytes=") as caught:
        asked(least - 1)
    assert "\n" not in str(caught.value)
    assert asked(least).max_bytes == least
    if file_format != "ima":
        assert asked(1, "separate").max_bytes == 1  # ignored there
