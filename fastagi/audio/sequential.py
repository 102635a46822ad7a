"""libsndfile files that are read or written from front to back."""

from __future__ import annotations

import soundfile


class SequentialFile(soundfile.SoundFile):  # type: ignore[misc]  # soundfile ships no types
    """SoundFile that never seeks.

    soundfile seeks after every block, to its current position. An MP3 decoder loses its bit reservoir by that: each
    block begins with a damaged frame, and libmpg123 complains on standard error.
    """

    def seekable(self) -> bool:
        return False
