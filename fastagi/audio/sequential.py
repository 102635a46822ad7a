"""libsndfile files that are read or written from front to back."""

from __future__ import annotations

import soundfile


class SequentialFile(soundfile.SoundFile):  # type: ignore[misc]  # soundfile ships no types
    """A SoundFile that never seeks.

    soundfile seeks after every block, to where it already is. An MP3 decoder then has lost its bit reservoir: each
    block begins with a damaged frame, and libmpg123 says so on standard error.
    """

    def seekable(self) -> bool:
        return False
