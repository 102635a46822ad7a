"""What several kinds of test share. Helpers of one folder's tests stay beside them.

Tests import from here as `from support.crash_harness import Serving`: the folder `tests` is on the path of pytest.

Real things, started and cleaned up:

- `recorder_harness`: an App on a real Asterisk, with a sink that remembers
- `recorder_calls`: calls that run one handler
- `call_harness`: whole calls with far ends that speak, and checks of what finished files contain
- `crash_harness`: `fastagi serve` as a process that is killed, a webhook receiver, and an account of every call
- `web_harness`: an App with its HTTP server beside a scripted Asterisk
- `postgres_server`, `browser`, `cli_process`, `installed_share`: PostgreSQL, Chromium, the command, an installation

Programs that tests start as processes:

- `crash_server`: kills itself at a chosen point
- `delivery_server`: delivers until it is killed
- `other_user`: runs the command as another user

Faults: `ami_gate` (a connection that is shut or slow), `machine_clock` (a clock that is set), `planted_files` (hostile
files).

Order of the files and their second runs: `run_order`.

Made by hand: `delivery_harness` (finished recordings, sinks, a clock), `journal_entries` (decisions).

Checks: `sync_check` (the two sides of a recording against each other), `finished_files`, `metric_names`, `sox_ng` (a
sox that reads Opus), `document_snippets` (what README and guide show), `settings_guide` (writes the guide's page).
"""
