"""TLS to a manager interface: trusted authorities, and error texts that name the remedy."""

from __future__ import annotations

import errno
import os
import re
import ssl
from pathlib import Path

from fastagi.errors import ConfigError


def trusting(authorities: Path | None) -> ssl.SSLContext:
    """Return a context that verifies certificate and host name. Reads files.

    :param authorities: PEM file with the authorities to trust instead of the system's; a self-signed certificate is its
        own authority
    :raises ConfigError: the file cannot be read, or holds no certificate
    """
    try:
        return ssl.create_default_context(cafile=authorities)
    except ssl.SSLError:
        raise ConfigError(f"tls_ca_file: {authorities}: holds no certificate in PEM (BEGIN CERTIFICATE)") from None
    except OSError as exc:
        raise ConfigError(f"tls_ca_file: {authorities}: {exc.strerror}") from None


def why(exc: OSError) -> str:
    """Return one line about a failed connection, with the remedy where TLS is the reason."""
    if isinstance(exc, ssl.SSLCertVerificationError):
        said = exc.verify_message or "cannot be verified"
        if exc.verify_code in _NAME_DIFFERS:
            return f"its certificate is for another name: {said}: let host be a name or address that it has"
        return f"its certificate is not trusted: {said}: set tls_ca_file to it, or to who signed it"
    if isinstance(exc, ssl.SSLError):
        if "WRONG_VERSION_NUMBER" in str(exc):
            return "it does not speak TLS on that port: use tlsbindaddr's port of manager.conf, or tls = false"
        return f"TLS failed: {exc.reason or exc}"
    if exc.errno is not None and exc.errno > 0:
        return os.strerror(exc.errno)
    return exc.strerror or str(exc) or type(exc).__name__


def nothing_listens(exc: BaseException) -> bool:
    """Tell whether the machine answered at every address of the host that no process listens."""
    if isinstance(exc, ConnectionRefusedError):
        return True
    # asyncio and uvloop put the errors of several addresses into the text of one
    named = re.findall(r"\[Errno (\d+)\]", str(exc)) if isinstance(exc, OSError) and exc.errno is None else []
    return bool(named) and all(int(number) == errno.ECONNREFUSED for number in named)


_NAME_DIFFERS = frozenset({62, 63, 64})
"""OpenSSL's X509_V_ERR_HOSTNAME_MISMATCH, _EMAIL_MISMATCH, _IP_ADDRESS_MISMATCH."""
