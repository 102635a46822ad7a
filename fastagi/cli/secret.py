"""`fastagi secret`: makes a signing secret for a webhook."""

from __future__ import annotations

import sys

from fastagi.cli.output import AsJson, print_json


def secret(as_json: AsJson = False) -> None:
    """Make a signing secret for `[[sinks]] signing_secret` and its receiver: 32 random bytes as whsec_ and base64.

    Every Standard Webhooks library takes it as it is.
    """
    from fastagi.delivery.sinks.signing import new_secret

    made = new_secret()
    if as_json:
        print_json({"secret": made})
    else:
        sys.stdout.write(f"{made}\n")
