"""`fastagi demo`: a real Asterisk, a real call, its recording and the webhook that tells of it, and then nothing left.

`run` is the whole of it; the receiver is in `receiver`, what is said on the call in `conversation`, what is told about
the file in `hearing`. Everything is bound to 127.0.0.1 and ends with `run`, also when that fails or is cancelled.
"""

from fastagi.app.demo.run import Outcome, Progress, run

__all__ = ["Outcome", "Progress", "run"]
