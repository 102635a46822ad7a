"""Settings: one TOML file plus `FASTAGI_SECTION__KEY` variables, checked before anything starts.

One section per part of the program, the unit in the name, no default secret. `load` is the only reader; a wrong key or
value becomes one `ConfigError` line per fault that names the key, the value and what is allowed.
"""

from __future__ import annotations

import copy
import ipaddress
import os
import re
import socket
import tomllib
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    SecretStr,
    TypeAdapter,
    ValidationError,
    ValidationInfo,
    field_validator,
    model_validator,
)

from fastagi import variables
from fastagi.domain.delivery import MOST_RETRY_HOURS, RETRY_HOURS
from fastagi.domain.spec import RecordingSpec
from fastagi.errors import BadArgument, ConfigError

CONFIG_VARIABLE = "FASTAGI_CONFIG"
"""Environment variable that names the settings file when no `--config` does."""

CONFIG_FILE = Path("/etc/fastagi/fastagi.toml")
"""Settings file of a packaged server."""


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, validate_default=True, hide_input_in_errors=False)

    @field_validator("*", mode="before")
    @classmethod
    def _no_switch_for_a_number(cls, value: Any, info: ValidationInfo) -> Any:
        """Refuse a switch for a number: `port = true` would be port 1."""
        kind = cls.model_fields[info.field_name].annotation if info.field_name else None
        if isinstance(value, bool) and kind in (int, float):
            raise ValueError("must be a number")
        return value


Port = Annotated[int, Field(ge=0, le=65535)]
Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]{0,63}$")]


_AGI_KEY = re.compile(r"[A-Za-z0-9._~-]{16,256}")
_NO_AGI_KEY = (
    "must be 16 to 256 letters, digits and . _ ~ -, which need no quoting in a dialplan or URL: openssl rand -hex 16"
)


class AgiSettings(_Section):
    """`[agi]`: the address for dialplans."""

    host: str = Field("127.0.0.1", description="address to listen on")
    port: Port = Field(4573, description="TCP port; 0 picks a free one")
    allow: list[str] = Field(["127.0.0.0/8", "::1/128"], description="networks that may connect")
    max_sessions: int = Field(5000, ge=1, le=100_000, description="sessions at once; more are refused")
    header_seconds: float = Field(5.0, gt=0, le=300, description="time a peer has for its header block")
    idle_seconds: float = Field(
        86_400.0, gt=0, le=7 * 86_400, description="longest wait for the answer to one command (a Dial may last hours)"
    )
    threads: int = Field(64, ge=1, le=2000, description="plain def handlers that may run at once")
    key: SecretStr | None = Field(
        None, description="every AGI line must have it, agi://host/route?key=…: 16 to 256 letters, digits and . _ ~ -"
    )
    key_file: Path | None = Field(None, description="a file that holds it, instead of `key`")

    @field_validator("key")
    @classmethod
    def _in_a_url(cls, value: SecretStr | None) -> SecretStr | None:
        if value is not None and not _AGI_KEY.fullmatch(value.get_secret_value()):
            raise ValueError(_NO_AGI_KEY)
        return value

    @model_validator(mode="after")
    def _one_key(self) -> Self:
        if self.key is not None and self.key_file is not None:
            raise ValueError("has both key and key_file: keep one")
        return self

    def shared_key(self) -> str:
        """Return the key that AGI lines must have; empty when none is required.

        :raises ConfigError: the file cannot be read, or its content is no key
        """
        if self.key is not None:
            return self.key.get_secret_value()
        if self.key_file is None:
            return ""
        found = read_secret(self.key_file, "agi.key_file")
        if not _AGI_KEY.fullmatch(found):
            raise ConfigError(f"agi.key_file = {str(self.key_file)!r}: its first line {_NO_AGI_KEY}")
        return found

    @field_validator("allow")
    @classmethod
    def _networks(cls, value: list[str]) -> list[str]:
        for item in value:
            try:
                ipaddress.ip_network(item, strict=False)
            except ValueError:
                raise ValueError(f"{item!r} is no network: write 192.0.2.7, 192.0.2.0/24 or 2001:db8::/32") from None
        return value


class AsteriskSettings(_Section):
    """`[[asterisk]]`: one PBX, reached through its manager interface."""

    name: Name = Field("asterisk", description="how this PBX is called in logs, metrics and app.ami(name)")
    host: str = Field("127.0.0.1", description="address of its manager interface")
    port: Annotated[int, Field(ge=1, le=65535)] = Field(5038, description="port of its manager interface")
    username: str = Field("fastagi", min_length=1, description="manager user")
    secret: SecretStr | None = Field(None, description="its secret")
    secret_file: Path | None = Field(None, description="a file that holds its secret, instead of `secret`")
    tls: bool = Field(False, description="speak TLS to the manager interface")
    tls_ca_file: Path | None = Field(
        None,
        description="PEM: who signed its certificate, or that itself if self-signed; unset: the system's",
    )
    spool: Path = Field(
        Path("/var/spool/asterisk/monitor/fastagi"), description="where Asterisk writes raw recordings; read here too"
    )
    agi_hosts: list[str] = Field([], description="peer addresses of its FastAGI calls; empty where there is one PBX")

    @field_validator("spool")
    @classmethod
    def _absolute(cls, value: Path) -> Path:
        if not value.is_absolute():
            raise ValueError("must be an absolute path, the same on this machine and for Asterisk")
        if re.search(r"[,\x00-\x1f\"'${}^;|&\\]", str(value)):
            raise ValueError("must not hold a comma, quote, $, ^ or control character: Asterisk would split it")
        return value

    @field_validator("username", "secret")
    @classmethod
    def _one_line(cls, value: str | SecretStr | None) -> str | SecretStr | None:
        text = value.get_secret_value() if isinstance(value, SecretStr) else value or ""
        if re.search(r"[\x00-\x1f\x7f]", text):
            raise ValueError("must not hold a line end or control character: the manager interface would split it")
        return value

    @model_validator(mode="after")
    def _one_secret(self) -> Self:
        if self.secret is not None and self.secret_file is not None:
            raise ValueError("has both secret and secret_file: keep one")
        if self.tls_ca_file is not None and not self.tls:
            raise ValueError("tls_ca_file means nothing without tls = true")
        return self

    def password(self) -> str:
        """Return the manager secret.

        :raises ConfigError: the file cannot be read, or neither setting is there
        """
        if self.secret is not None:
            return self.secret.get_secret_value()
        if self.secret_file is not None:
            return read_secret(self.secret_file, f"asterisk {self.name}: secret_file")
        raise ConfigError(f"asterisk {self.name}: no secret: set `secret` or `secret_file`")


class RecordingSettings(_Section):
    """`[recordings]`: the folder of finished files, and the defaults of a recording."""

    directory: Path = Field(Path("/var/spool/asterisk/recording"), description="finished files")
    defaults: dict[str, Any] = Field(
        {},
        description="parameters where record_start, a route, a UserEvent or HTTP gives none: file_format, rate, ...; "
        "WholeCallRecorder.record and .start keep the seed's own",
    )
    adopt: bool = Field(False, description="take over recordings that others started")
    required: list[str] = Field([], description="contexts whose answered calls must be recorded; ['*'] for all")
    retention_days: int = Field(0, ge=0, le=36_500, description="finished files are deleted after so many; 0 for never")
    silence_dbfs: float = Field(-48.0, ge=-90, le=-10, description="below this a 10 ms frame is silence")
    min_free_mb: int = Field(200, ge=0, description="free disk in MB below which /readyz and the alarm say so")
    start_seconds: float = Field(2.0, gt=0, le=60, description="time Asterisk has to open the raw file")
    close_seconds: float = Field(10.0, gt=0, le=600, description="time Asterisk has to close it after a hangup")
    finishers: int = Field(0, ge=0, le=64, description="files finished at once; 0 for one less than the cores")
    stalled_seconds: float = Field(7.0, gt=0, le=3600, description="a raw file that does not grow so long is alarmed")
    quiet_seconds: float = Field(
        60.0,
        ge=0,
        le=86_400,
        description="a recording or a side of it that is not heard so long is alarmed; 0 for never",
    )
    dead_seconds: float = Field(
        120.0,
        gt=0,
        le=86_400,
        description="an Asterisk out of reach so long, whose raw file does not grow so long, is taken for dead; "
        "after 20 s at the latest where its host is a loopback address and no process listens at its port",
    )
    sweep_seconds: float = Field(300.0, gt=0, le=86_400, description="the spool is held against the ledger so often")
    shared: bool = Field(False, description="all servers on this ledger see the same spool and directory")
    key_file: Path | None = Field(None, description="wraps the keys of recordings; made beside the store if unset")
    side_files: Path | None = Field(
        None, description="folder of rows that the ledger lacks, for the server alone; unset: .side-files in directory"
    )

    @property
    def side_folder(self) -> Path:
        """Return the folder of side files. It is beside the finished files, because the ledger's disk may be full or
        gone, and because all servers see it when `shared` is set.
        """
        return self.side_files or self.directory / ".side-files"

    @field_validator("directory", "side_files")
    @classmethod
    def _absolute(cls, value: Path | None) -> Path | None:
        if value is not None and not value.is_absolute():
            raise ValueError("must be an absolute path")
        return value

    @field_validator("defaults")
    @classmethod
    def _known(cls, value: dict[str, Any]) -> dict[str, Any]:
        known = {k for k in RecordingSpec.__dataclass_fields__ if k != "encryption"}
        for key in value:
            if key not in known:
                raise ValueError(f"has no {key!r}: there are {', '.join(sorted(known))}")
        value = {key: _typed(key, item) for key, item in value.items()}
        try:
            RecordingSpec(**value)
        except BadArgument as exc:
            raise ValueError(str(exc)) from None
        return value


def _typed(key: str, value: Any) -> Any:
    """Convert a text from the environment into the number or switch that the parameter takes."""
    default = RecordingSpec.__dataclass_fields__[key].default
    if not isinstance(value, str):
        return value
    if isinstance(default, bool):
        try:
            return _SWITCH.validate_python(value)
        except ValidationError:
            return value
    if (isinstance(default, int) or key == "seconds_timeout") and re.fullmatch(r"-?\d+(\.\d+)?", value):
        return float(value) if "." in value else int(value)
    return value


_SWITCH = TypeAdapter(bool)
"""Reads a switch as everywhere in the settings: ``no``, ``off``, ``0``."""


class StoreSettings(_Section):
    """`[store]`: the ledger."""

    url: str = Field(
        "sqlite:////var/lib/fastagi/fastagi.db",
        description="sqlite:////absolute/path.db, or postgresql://user:password@host/database",
    )
    node: Name = Field(
        default_factory=lambda: re.sub(r"[^A-Za-z0-9_.-]", "-", socket.gethostname()).strip("-.")[:64] or "node",
        description="this server's name among several on one PostgreSQL",
    )

    @field_validator("url")
    @classmethod
    def _scheme(cls, value: str) -> str:
        if not re.match(r"^(sqlite:///|postgres(ql)?(\+asyncpg)?://)", value):
            raise ValueError("must start with sqlite:/// or postgresql://")
        return value


class TokenSettings(_Section):
    """`[[http.tokens]]`: a bearer token and its role."""

    name: Name = Field(description="who has it; written to the log instead of the token")
    token: SecretStr = Field(description="at least 16 characters")
    role: Literal["viewer", "operator", "admin"] = Field("viewer", description="viewer, operator or admin")

    @field_validator("token")
    @classmethod
    def _long(cls, value: SecretStr) -> SecretStr:
        if len(value.get_secret_value()) < 16:
            raise ValueError("is shorter than 16 characters")
        return value


class HttpSettings(_Section):
    """`[http]`: health, metrics, API and console."""

    enabled: bool = Field(True, description="serve HTTP at all")
    host: str = Field("127.0.0.1", description="address to listen on")
    port: Port = Field(8080, description="TCP port; 0 picks a free one")
    tokens: list[TokenSettings] = Field([], description="who may use the API")

    @field_validator("tokens")
    @classmethod
    def _each_its_own(cls, value: list[TokenSettings]) -> list[TokenSettings]:
        holders: dict[str, str] = {}
        for item in value:
            other = holders.setdefault(item.token.get_secret_value(), item.name)
            if other != item.name:
                raise ValueError(f"{other!r} and {item.name!r} have the same token: whose role would count?")
        return value


class SinkSettings(_Section):
    """`[[sinks]]`: a destination by name; the keys beside `name` and `type` are that type's own options."""

    model_config = ConfigDict(extra="allow")

    name: Name = Field(description="under which deliveries are kept: survives a restart")
    type: str = Field(description="what kind of sink")
    default: bool = Field(True, description="recordings go there unless the call says otherwise")
    concurrency: int = Field(8, ge=1, le=256, description="deliveries at once")
    retry_hours: float = Field(
        RETRY_HOURS,
        gt=0,
        le=MOST_RETRY_HOURS,
        description="a delivery is tried again for so long after its first attempt; then it is dead, and kept",
    )

    @property
    def options(self) -> dict[str, Any]:
        return dict(self.model_extra or {})


class LogSettings(_Section):
    """`[log]`."""

    level: Literal["debug", "info", "warning", "error"] = Field("info", description="lowest level that is written")
    json_lines: bool = Field(True, alias="json", description="one JSON object a line; false for people")


class Settings(_Section):
    """All settings. Every section has defaults: an empty file is a server on this machine with one local Asterisk."""

    agi: AgiSettings = AgiSettings()
    asterisk: list[AsteriskSettings] = Field([], description="the PBXs")
    recordings: RecordingSettings = RecordingSettings()
    store: StoreSettings = Field(default_factory=StoreSettings)
    http: HttpSettings = HttpSettings()
    sinks: list[SinkSettings] = Field([], description="where finished recordings go")
    log: LogSettings = Field(default_factory=lambda: LogSettings(json=True))

    @model_validator(mode="after")
    def _names(self) -> Self:
        for label, names in (
            ("asterisk", [a.name for a in self.asterisk]),
            ("sinks", [s.name for s in self.sinks]),
            ("http.tokens", [t.name for t in self.http.tokens]),
        ):
            for name in names:
                if names.count(name) > 1:
                    raise ValueError(f"{label}: the name {name!r} is there twice")
        return self


def read_secret(path: Path, key: str) -> str:
    """Return the first line of a file that holds a secret.

    :raises ConfigError: it cannot be read or is empty
    """
    return read_secrets(path, key)[0]


def read_secrets(path: Path, key: str) -> list[str]:
    """Return the lines of a file that holds secrets, without those that are empty.

    :raises ConfigError: it cannot be read or is empty
    """
    try:
        text = path.read_text().strip()
    except OSError as exc:
        raise ConfigError(f"{key} = {str(path)!r}: {exc.strerror}") from None
    if not text:
        raise ConfigError(f"{key} = {str(path)!r}: the file is empty")
    return [line.strip() for line in text.splitlines() if line.strip()]


def discover(environ: dict[str, str] | None = None, default: Path = CONFIG_FILE) -> Path | None:
    """Return the settings file to use without `--config`: $FASTAGI_CONFIG, else `default` when it exists, else None.

    :param environ: variables; the process's own when None
    """
    named = (os.environ if environ is None else environ).get(CONFIG_VARIABLE, "")
    if named:
        return Path(named)
    return default if default.is_file() else None


def load(path: Path | None = None, environ: dict[str, str] | None = None) -> Settings:
    """Load the settings from a TOML file (or defaults alone) with the environment on top.

    :param path: the file; None reads only the environment
    :param environ: variables; the process's own when None
    :raises ConfigError: every fault, one per line
    """
    data: dict[str, Any] = {}
    if path is not None:
        try:
            data = tomllib.loads(path.read_text())
        except OSError as exc:
            raise ConfigError(f"--config {path}: {exc.strerror}") from None
        except (tomllib.TOMLDecodeError, UnicodeDecodeError) as exc:
            raise ConfigError(f"{path}: not TOML: {exc}") from None
        except RecursionError:
            raise ConfigError(f"{path}{variables.TOO_DEEP}") from None
        if variables.too_deep(data):
            raise ConfigError(f"{path}{variables.TOO_DEEP}")
    environ = dict(os.environ) if environ is None else environ
    file = copy.deepcopy(data)
    origins, lines = variables.merge(data, environ, Settings)
    try:
        settings = Settings.model_validate(data)
    except ValidationError as exc:
        for error in exc.errors():
            fault = _fault(dict(error))
            missing = error["type"] == "missing"
            blamed = variables.blame(error["loc"], fault, missing, origins, file)
            where = ", ".join(variables.named(name, environ.get(name), fault) for name in blamed) or path
            hint = variables.hint(blamed[0], Settings) if blamed else ""
            lines.append(f"{where}: {fault}{hint}" if where else fault)
    if lines:
        raise ConfigError("\n".join(lines))
    return settings


def _fault(error: dict[str, Any]) -> str:
    """Return one pydantic error as a line that a person can act on."""
    location = error["loc"]
    key = "".join(f"[{p}]" if isinstance(p, int) else f".{p}" for p in location).lstrip(".") or "settings"
    message = str(error["msg"]).removeprefix("Value error, ")
    if error["type"] == "extra_forbidden":
        known = _known_keys(location[:-1])
        return f"{key}: there is no such key" + (f"; allowed are {', '.join(known)}" if known else "")
    if error["type"] == "missing":
        return f"{key}: is missing"
    if error["type"] == "string_pattern_mismatch":  # only names have a pattern
        message = "must be letters, digits, dots, underscores and hyphens, a letter or digit first, at most 64"
    name = next((str(p).lower() for p in reversed(location) if not isinstance(p, int)), "")
    shown = variables.shown(name, error.get("input"))
    allowed = _description(location)
    return f"{key}{shown}: {message}" + (f" ({allowed})" if allowed else "")


def _walk(location: tuple[Any, ...]) -> tuple[type[BaseModel] | None, str]:
    model: type[BaseModel] | None = Settings
    description = ""
    for part in location:
        if isinstance(part, int):
            continue
        if model is None:
            return None, ""
        field = next((f for n, f in model.model_fields.items() if part in (n, f.alias)), None)
        if field is None:
            return None, ""
        description = field.description or ""
        model = next(
            (
                t
                for t in (field.annotation, *getattr(field.annotation, "__args__", ()))
                if isinstance(t, type) and issubclass(t, BaseModel)
            ),
            None,
        )
    return model, description


def _known_keys(location: tuple[Any, ...]) -> list[str]:
    model, _ = _walk(location)
    return [f.alias or n for n, f in model.model_fields.items()] if model else []


def _description(location: tuple[Any, ...]) -> str:
    return _walk(location)[1]
