"""Write docs/guide/settings.md from the models of the settings.

    python tests/support/settings_guide.py > docs/guide/settings.md

A test holds the page against it, so that no key, default or meaning is missing or old.
"""

from __future__ import annotations

import re
import sys
from typing import Any, get_args

from pydantic import BaseModel, SecretStr
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined

from fastagi.delivery.sink_type import sink_types
from fastagi.settings import Settings

HEAD = """# Settings

One TOML file: `--config FILE`, else `$FASTAGI_CONFIG`, else `/etc/fastagi/fastagi.toml`. On top of it come variables:
`FASTAGI_SECTION__KEY`, in lists with an index (`FASTAGI_ASTERISK__0__SECRET`). Unknown keys are refused,
and so is a variable that means a setting and is not written so (`FASTAGI_AGI_PORT`). Everything has a default but the
secrets: an empty file is a server on this machine without an Asterisk to listen to.

## Reload

`systemctl reload fastagi` (SIGHUP to the server, `await app.reload()` in a program of yours) reads file and variables
again, and takes over:

| key | from then on |
|---|---|
| `[[http.tokens]]` | the next request needs one of the new ones |
| `[[sinks]]` | a new one gets recordings that are begun from then on; one that has changed is made anew |
| `[log]` `level`, `json` | the next line |
| `[recordings] required` | calls that are up are held against it, too; those that were followed stay so |

What waits for a sink that is gone is parked, and made when it is back; what waits for one that has changed goes to it.
A `signing_secret_file` is read again. The log says `settings_reloaded` with the keys that were `taken`, and
`settings_need_restart` with those that are as they were. A mistake changes nothing: `settings_not_reloaded` says in one
line what is wrong. Variables are those that the process was started with.
"""

SAID = {
    "[log]": "What is written to standard error: under systemd that is the journal.",
}

BELOW = {
    "[agi]": (
        "Each session needs a file descriptor: with 500 HTTP connections, two for each delivery at once and 264 "
        "others. The server raises its soft\nlimit to the hard one. A `max_sessions` that does not fit then stops the "
        "start with a line that says what would; left out, it becomes\nwhat fits (`max_sessions_lowered`)."
    ),
}
"""What a page says below a table of keys."""


def sections() -> list[tuple[str, type[BaseModel]]]:
    """(title as in the TOML file, model) of every section."""
    found: list[tuple[str, type[BaseModel]]] = []
    for name, field in Settings.model_fields.items():
        inner = get_args(field.annotation)
        model = inner[0] if inner else field.annotation
        found.append((f"[[{name}]]" if inner else f"[{name}]", model))
        for sub, subfield in model.model_fields.items():
            deeper = get_args(subfield.annotation)
            if deeper and isinstance(deeper[0], type) and issubclass(deeper[0], BaseModel):
                found.append((f"[[{name}.{sub}]]", deeper[0]))
    return found + [(f"[[sinks]] type = {kind}", made_by.options) for kind, made_by in sink_types().items()]


def default(name: str, field: FieldInfo) -> str:
    """A default as the TOML file would have it."""
    value: Any = field.default
    if field.is_required():
        return "(needed)"
    if value is PydanticUndefined:
        return "(this machine's name)" if name == "node" else "`[]`"
    if value is None or value == "" or isinstance(value, SecretStr):
        return ""
    if isinstance(value, bool):
        return f"`{str(value).lower()}`"
    if isinstance(value, float):
        return f"`{value:g}`"
    return "`" + str(value).replace("'", '"') + "`"


def page() -> str:
    """The whole page."""
    lines = [HEAD]
    for title, model in sections():
        made_by = sink_types().get(title.rpartition(" ")[2])
        said = made_by.summary if made_by else SAID.get(title) or _first_line(model)
        lines += [f"## `{title}`", "", said, "", "| key | default | meaning |", "|---|---|---|"]
        for name, field in model.model_fields.items():
            lines.append(f"| `{field.alias or name}` | {default(name, field)} | {field.description} |")
        lines += ["", BELOW[title], ""] if title in BELOW else [""]
    return "\n".join(lines)


def _first_line(model: type[BaseModel]) -> str:
    line = re.sub(r"^`.*?`: ", "", (model.__doc__ or "").strip().splitlines()[0])
    return line[0].upper() + line[1:]


if __name__ == "__main__":
    sys.stdout.write(page())
