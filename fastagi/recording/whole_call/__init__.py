"""The seed's recorder of one call: its methods (`seed`), their parameters (`parameters`), what is asked of the call
first (`recorded_call`), and waiting in a session (`waiting`).
"""

from __future__ import annotations

from fastagi.recording.whole_call.parameters import spec_from
from fastagi.recording.whole_call.recorded_call import must_not_be_over
from fastagi.recording.whole_call.seed import UASWholeCallFileRecorder

__all__ = ["UASWholeCallFileRecorder", "must_not_be_over", "spec_from"]
