"""`fastagi demo`: a real Asterisk, a real call, its recording and the webhook about it, and no trace afterwards.

`run` does all of it. The receiver is in `receiver`, the prompts of the call in `conversation`, the report on the file
in `hearing`. Everything is bound to 127.0.0.1 and ends with `run`, also when that fails or is cancelled.
"""

from fastagi.app.demo.run import Outcome, Progress, run

__all__ = ["Outcome", "Progress", "run"]
