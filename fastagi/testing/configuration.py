"""Folder of an Asterisk: configuration from the templates in ``etc/``, links to the shared tree, and the spool.

The folder is small (some hundred kB), private to one server, and removed with it. The unpacked packages are only
linked.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from importlib.resources import files
from pathlib import Path

from fastagi.testing.packages import Installation

Dialplan = str | Path
"""Part of a dialplan: a `Path` is included unchanged, a `str` is extensions.conf text."""

NOLOAD = (
    # modules that need a database or a directory server
    "cdr_adaptive_odbc", "cdr_odbc", "cdr_pgsql", "cdr_radius", "cdr_sqlite3_custom", "cdr_tds", "cdr_csv",
    "cdr_custom",
    "cel_odbc", "cel_pgsql", "cel_radius", "cel_sqlite3_custom", "cel_tds", "cel_custom", "cel_manager", "cdr_manager",
    "func_odbc", "res_odbc", "res_odbc_transaction", "res_cdrel_custom", "res_config_curl", "res_config_ldap",
    "res_config_odbc", "res_config_pgsql", "res_config_sqlite3", "app_voicemail", "app_voicemail_odbc", "app_minivm",
    # modules that listen on a port of their own, which another Asterisk on this machine may hold
    "chan_sip", "chan_iax2", "chan_mgcp", "chan_skinny", "chan_unistim", "pbx_dundi", "chan_motif",
    # modules that need hardware or an external server
    "chan_alsa", "chan_console", "chan_oss", "app_jack", "app_festival", "app_alarmreceiver", "app_adsiprog",
    "res_adsi",
    "app_ices", "app_nbscat", "res_snmp", "res_smdi", "res_xmpp", "res_calendar", "res_calendar_caldav",
    "res_calendar_ews", "res_calendar_exchange", "res_calendar_icalendar", "res_hep", "res_hep_pjsip", "res_hep_rtcp",
    "res_stun_monitor", "res_resolver_unbound", "res_statsd", "res_prometheus", "res_aeap", "res_speech_aeap",
    "res_stir_shaken", "res_pjsip_stir_shaken", "res_geolocation", "res_pjsip_geolocation", "app_getcpeid", "app_amd",
    # modules that only complain about a missing configuration
    "pbx_ael", "res_ael_share", "pbx_lua", "pbx_realtime", "res_phoneprov", "res_pjsip_phoneprov_provider",
    "app_followme",
    "app_sla", "app_page", "app_dictate", "app_sms", "app_directory", "res_pjsip_config_wizard", "chan_websocket",
    "res_websocket_client", "res_pjsip_transport_websocket", "res_ari", "res_ari_applications", "res_ari_asterisk",
    "res_ari_bridges", "res_ari_channels", "res_ari_device_states", "res_ari_endpoints", "res_ari_events",
    "res_ari_model", "res_ari_playbacks", "res_ari_recordings", "res_ari_sounds", "res_http_media_cache",
    "res_http_post", "res_fax_spandsp", "res_fax", "app_test", "res_pjsip_notify", "res_clialiases", "res_limit",
    "res_config_sqlite", "app_agent_pool", "res_stasis_test", "res_pjsip_history", "app_stasis", "app_stasis_broadcast",
    "res_stasis_broadcast", "app_image", "app_url", "app_macro",
)  # fmt: skip
"""Modules not loaded. A list of modules to load would miss hidden dependencies (`res_agi` on `res_speech`)."""


@dataclass(frozen=True, slots=True)
class Plan:
    """Configuration of one server.

    :param folder: folder of the server; must exist
    :param run: folder of the control socket (the socket's path may hold 107 bytes)
    :param agents: name and SIP port of each endpoint that can be dialled
    :param dialplan: parts of extensions.conf, in this order
    :param extra_files: name in etc -> text or file; replaces a shipped file, ``custom/NAME.conf`` is added to it
    """

    folder: Path
    run: Path
    installation: Installation
    ami_port: int
    ami_user: str
    ami_secret: str
    agi_port: int
    sip_port: int
    sipp_port: int
    system_name: str = ""
    spool: Path | None = None
    noload: tuple[str, ...] = ()
    agents: Mapping[str, int] = field(default_factory=dict)
    dialplan: Iterable[Dialplan] = ()
    extra_files: Mapping[str, Dialplan] = field(default_factory=dict)


def templates() -> dict[str, str]:
    """Return the shipped configuration by file name."""
    return {e.name: e.read_text() for e in (files("fastagi.testing") / "etc").iterdir() if e.name.endswith(".conf")}


def write(plan: Plan) -> Path:
    """Fill the folder. A second call changes only the differences of the plan.

    :return: the path of asterisk.conf
    """
    etc = plan.folder / "etc"
    for name in ("etc/custom", "lib/keys", "data", "agi-bin", "spool", "log", "spool/tmp", "spool/outgoing"):
        (plan.folder / name).mkdir(parents=True, exist_ok=True)
    _spool(plan)
    _data(plan)
    texts = templates()
    agent = texts.pop("agent.conf")
    values = {
        "FOLDER": str(plan.folder),
        "RUN": str(plan.run),
        "MODULES": str(plan.installation.modules),
        "SYSTEM_NAME_LINE": f"systemname = {plan.system_name}" if plan.system_name else "",
        "AMI_PORT": str(plan.ami_port),
        "AMI_USER": plan.ami_user,
        "AMI_SECRET": plan.ami_secret,
        "AGI_PORT": str(plan.agi_port),
        "SIP_PORT": str(plan.sip_port),
        "SIPP_PORT": str(plan.sipp_port),
        "NOLOAD": "\n".join(f"noload = {name}.so" for name in (*NOLOAD, *plan.noload)),
        "AGENTS": "\n".join(_fill(agent, {"NAME": n, "PORT": str(p)}) for n, p in plan.agents.items()),
        "DIALPLAN": "\n".join(_section(part) for part in plan.dialplan),
    }
    for name, text in texts.items():
        (etc / name).write_text(_fill(text, values))
    for name, content in plan.extra_files.items():
        target = etc / name
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(content.read_text() if isinstance(content, Path) else content)
    return etc / "asterisk.conf"


def _fill(text: str, values: Mapping[str, str]) -> str:
    return re.sub(r"@([A-Z_]+)@", lambda m: values.get(m.group(1), m.group(0)), text)


def _section(part: Dialplan) -> str:
    return f'#include "{part.absolute()}"' if isinstance(part, Path) else part


def _spool(plan: Plan) -> None:
    """Make the spool. `spool/monitor` is for MixMonitor's relative names, and may be a link to another folder."""
    monitor = plan.folder / "spool" / "monitor"
    if plan.spool is None or plan.spool == monitor:
        monitor.mkdir(exist_ok=True)
    else:
        plan.spool.mkdir(parents=True, exist_ok=True)
        if not monitor.is_symlink():
            monitor.symlink_to(plan.spool)


def _data(plan: Plan) -> None:
    """Link `data` into the shared tree; `sounds` is a separate folder, so that a test can add prompts."""
    data, shared = plan.folder / "data", plan.installation.data
    for entry in shared.iterdir():
        link = data / entry.name
        if entry.name != "sounds" and not link.is_symlink():
            link.symlink_to(entry)
    sounds = data / "sounds"
    sounds.mkdir(exist_ok=True)
    languages = [e for e in (shared / "sounds").iterdir() if e.is_dir() and e.name.startswith("en")]
    for entry in languages:
        if not (sounds / entry.name).exists():
            (sounds / entry.name).symlink_to(entry)
    if languages and not (sounds / "en").exists():
        (sounds / "en").symlink_to(sorted(languages)[0])
