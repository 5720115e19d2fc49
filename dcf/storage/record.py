"""The record of a run: what may be read out of one that somebody changed, and which run it is of."""

from __future__ import annotations

from typing import Any

from dcf.errors import RunError, UsageError
from dcf.types import STAGES

SCHEMA = 1


def damaged(out: str, what: str) -> RunError:
    """Return the error of a run whose record somebody, or something, changed."""
    return RunError(f"The record of OUT {out} is damaged ({what}); start the run again with --overwrite.")


class Record(dict[str, Any]):
    """A record of a run, or a part of one, of which a missing entry is told in a sentence."""

    def __init__(self, entries: Any = (), out: str = "") -> None:
        parts = {k: Record(v, out) if isinstance(v, dict) else v for k, v in dict(entries).items()}
        super().__init__(parts)
        self._out = out

    def __missing__(self, key: str) -> Any:
        raise damaged(self._out, f"it lacks {key!r}")


_KINDS = {"settings": dict, "source": dict, "plan": dict, "seconds": dict, "run": str, "command": str}


def refuse_damage(out: str, found: dict[str, Any]) -> None:
    """Raise `RunError` for a record of a run that none of dcf's own writes left so."""
    for key in ("settings", "source", "stage", "version", "run"):
        if key not in found:
            raise damaged(out, f"it lacks {key!r}")
    for key, kind in _KINDS.items():
        if not isinstance(found.get(key, kind()), kind):
            raise damaged(out, f"its entry {key!r} is {found[key]!r:.80}")
    if found["stage"] not in STAGES:
        raise damaged(out, f"its entry 'stage' is {found['stage']!r:.80}")


def change_of(was: dict[str, Any], now: dict[str, Any]) -> str:
    """Return what of a source, as described, is not what it was; nothing where it is the same."""
    if was["fingerprint"] == now["fingerprint"]:
        return ""
    before, after = was["metadata"], now["metadata"]
    changed = [key for key in sorted({*before, *after}) if before.get(key) != after.get(key)]
    key = changed[0] if changed else "fingerprint"
    a, b = (whole["metadata"].get(key, whole["fingerprint"]) for whole in (was, now))
    return f"{key} was {a}, now {b}"


def refuse_other_identity(out: str, found: dict[str, Any], wanted: dict[str, Any]) -> None:
    """Raise `UsageError` where the run found is not the one that is wanted: settings, source or version."""

    def refuse(what: str) -> None:
        raise UsageError(f"OUT {out} holds another run: {what}. Choose another OUT, or --overwrite it.")

    for key, was in found["settings"].items():
        now = wanted["settings"].get(key)
        if now != was:
            refuse(f"its {key} is {was!r}, now asked {now!r}")
    changed = change_of(found["source"], wanted["source"])
    if changed:
        refuse(f"its source's {changed}")
    if found["version"] != wanted["version"]:
        refuse(f"dcf {found['version']} began it, this is {wanted['version']}")
