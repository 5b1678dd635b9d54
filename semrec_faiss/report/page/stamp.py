"""The stamp of a results file as rows of a report: when, with what and on what it was measured."""

from __future__ import annotations

from typing import Any

from semrec_faiss.report.page.document import Value


def stamp_rows(told: dict[str, Any]) -> list[list[Value]]:
    """Return what `environment.environment` told, a row each."""
    git, cpu = told.get("git") or {}, told.get("cpu") or {}
    commit = git.get("commit") or "unknown"
    return [
        ["date", told["date"]],
        ["command", told["command"]],
        ["commit", f"{commit}{', with changes' if git.get('dirty') else ''}"],
        ["versions", ", ".join(f"{name} {value}" for name, value in told["versions"].items() if value)],
        ["system", told["os"]],
        ["processor", f"{cpu.get('model')}, {cpu.get('usable_cores')} cores, {told.get('faiss_threads')} threads"],
        ["GPUs", ", ".join(f"{gpu['name']}, driver {gpu['driver']}" for gpu in told["gpus"]) or "none"],
    ]
