"""TLS between client, scheduler and workers: certificates, and what is not to go without them."""

from __future__ import annotations

import importlib
import ipaddress
import os
from pathlib import Path
from urllib.parse import urlsplit

from distributed.security import Security

from dcf.errors import RunError, UsageError

FILES = ("ca.pem", "cert.pem", "key.pem")


def make_certificates(folder: str | Path) -> Path:
    """Make an authority of its own and one certificate under it, in three files; return the folder.

    Whoever has the three can take part as scheduler, worker or client; the authority's key is not
    kept, so nobody can sign another. Raises `UsageError` where one of the files is there already,
    `RunError` where they cannot be written or `cryptography` is missing.
    """
    place = Path(folder)
    there = [name for name in FILES if (place / name).exists()]
    if there:
        raise UsageError(f"{place} holds {there[0]} already; name another folder, or delete the three files.")
    try:
        contents = importlib.import_module("dcf.cluster.certificates").authority_and_certificate()
    except ImportError as error:
        raise RunError(
            f"Certificates need the extra: pip install '.[cluster]' in dcf's source ({error})."
        ) from error
    try:
        place.mkdir(parents=True, exist_ok=True)
        for file, content in zip(FILES, contents, strict=True):
            descriptor = os.open(place / file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
            with os.fdopen(descriptor, "wb") as stream:
                stream.write(content)
    except OSError as error:
        raise RunError(f"{place} cannot be written: {error.strerror}.") from error
    return place


def security_of(folder: str | Path) -> Security:
    """Return the credentials in a folder, for all roles. Raises `UsageError` where they are not there."""
    place = Path(folder)
    for name in FILES:
        if not os.access(place / name, os.R_OK):
            raise UsageError(
                f"--tls {place} has no {name} that can be read; it must hold {', '.join(FILES)}"
                " (dcf cluster certs DIR makes them)."
            )
    authority, certificate, key = (str((place / name).absolute()) for name in FILES)
    roles = ("client", "scheduler", "worker")
    return Security(
        tls_ca_file=authority,
        require_encryption=True,
        **{f"tls_{role}_cert": certificate for role in roles},
        **{f"tls_{role}_key": key for role in roles},
    )


def refuse_plain(address: str, allowed: bool) -> None:
    """Raise `UsageError` for a scheduler that is reached over a network without encryption, unasked."""
    try:
        scheme, host = urlsplit(address).scheme, urlsplit(address).hostname or ""
    except ValueError:
        scheme, host = "", ""
    if scheme not in ("tls", "tcp") or not host:
        raise UsageError(f"--scheduler is {address!r}; give an address such as tls://host:8786.")
    if scheme == "tcp" and not allowed and not is_loopback(host):
        raise UsageError(
            f"{address} is not encrypted: whoever is on that network can read the data and run code as you."
            " Use tls:// and --tls DIR, or, where you trust everyone on it, --insecure-plain-tcp."
        )


def is_loopback(host: str) -> bool:
    """Return whether a host is this machine itself, by its name or number alone."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
