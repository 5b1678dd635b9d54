"""The report of a comparison: the guide's two tables, its five tests, parity, cost, and what ran where."""

from __future__ import annotations

import re
from statistics import fmean

from semrec_faiss.measure.guide.details import Certificate, Kind, PersonalizationDetails, SimilarityDetails
from semrec_faiss.measure.guide.record import BatchNumbers, GuideResults
from semrec_faiss.report.guide.proof_sections import cost_section, memory_section, parity_section, profile_section
from semrec_faiss.report.guide.test_sections import (
    batch_section,
    criteria_table,
    device_names,
    filter_section,
    similarity_section,
    user_section,
)
from semrec_faiss.report.page.document import (
    Block,
    Cell,
    Column,
    Columns,
    Document,
    Facts,
    Section,
    Table,
    Text,
    Tone,
    Value,
)
from semrec_faiss.report.page.names import device_label
from semrec_faiss.report.page.numbers import as_ms, as_qps, as_share, as_times
from semrec_faiss.report.page.stamp import stamp_rows

MADE_UP = re.compile(r"title_\d{9}")
"""The media_ids of made-up titles; see `semrec_faiss.data.synthetic.lines`."""


def guide_document(results: GuideResults) -> Document:
    """Turn a results document of `semrec compare` into a report."""
    sections = [
        Section("At a glance", [_facts(results), Text(_notes(results), "muted")]),
        Section("Performance", [performance_table(results), Text(_dashes(results), "muted")]),
        Section("Quality", _quality(results)),
        similarity_section(results),
        user_section(results),
        batch_section(results),
        filter_section(results),
        memory_section(results),
        parity_section(results),
        cost_section(results),
        profile_section(results),
        Section("Environment", [_environment(results)]),
        Section("What was not measured, and why", _gaps(results), folded=True),
    ]
    title = f"Test results: {device_label(results.index.device)}"
    return Document(title, _summary(results), [section for section in sections if section.blocks])


def _summary(results: GuideResults) -> str:
    index, stamp = results.index, results.environment
    users = f", {index.users:,} users" if index.users else ""
    several = re.search(r"-x(\d+)$", index.gpu or "")  # the machine may have more than were used
    gpus = ", ".join(gpu.name for gpu in stamp.gpus[: int(several[1]) if several else 1])
    where = gpus if index.gpu else f"{stamp.cpu.model}, {stamp.cpu.usable_cores} cores"
    return f"{index.type} index of {index.titles:,} titles × {index.dim}{users}, on {where}; {stamp.date[:10]}."


def _notes(results: GuideResults) -> str:
    """Say what a reader must know to take the numbers for what they are."""
    notes = []
    if not results.index.gpu:
        notes.append(f"There is no GPU in these numbers: {results.not_measured['index.gpu']}.")
    others = results.environment.others_used_cores
    if others is not None and others > 0.1:
        notes.append(f"Other programs kept {others:.1f} cores busy meanwhile, which lengthens times.")
    if _is_made_up(results):
        notes.append(
            "The titles and users are made up (semrec dataset synth): times and memory are as for real ones; criteria"
            " of similarity and genre then show that the search is right, not that anybody would like what it finds."
        )
    notes.append("Times are medians of repeated questions, data transfers included, as a caller waits for them.")
    if any(_asked_once(results)):
        notes.append("Targets of one title and one user are held against those that were asked for the first time.")
    return " ".join(notes)


def _is_made_up(results: GuideResults) -> bool:
    """Whether the titles that were asked about have the ids that `semrec dataset synth` gives."""
    details = results.details.similarity
    return isinstance(details, SimilarityDetails) and all(MADE_UP.fullmatch(one.media_id) for one in details.queries)


def _facts(results: GuideResults) -> Facts:
    similarity, users, main = results.test_1_similarity, results.test_2_personalization, results.kinds[0]
    one = similarity.gpu_time_ms if main == "gpu" else similarity.cpu_time_ms
    user = users.avg_gpu_time_ms if main == "gpu" else users.cpu_avg_time_ms
    size, row = _largest_batch(results)
    qps = row.of_side(main, "throughput_qps")
    judged = [criterion.met for criterion in results.criteria if criterion.met is not None]
    met = sum(judged)
    tone: Tone = "good" if met == len(judged) else "bad"
    open_ones = len(results.criteria) - len(judged)
    remarks = [f"{open_ones} not measured" if open_ones else "all measured"]
    remarks += ["on made-up titles"] if _is_made_up(results) else []
    facts: list[tuple[str, str, str, Tone]] = [
        ("Criteria met", f"{met} of {len(judged)}", ", ".join(remarks), tone),
        ("One title", as_ms(one), _beside(similarity.cpu_time_ms, one, main), "plain"),
        ("One user", as_ms(user), _beside(users.cpu_avg_time_ms, user, main), "plain"),
        (f"{size:,} at once", as_qps(qps), _faster(row.cpu_throughput_qps, qps, main), "plain"),
    ]
    parity = results.parity
    found = (parity.gpu_to_cpu or parity.cpu_to_float64) if isinstance(parity, Certificate) else None
    if found:
        with_what = "CPU and GPU" if main == "gpu" else "CPU and float64"
        facts.append(("Same results", as_share(found.overlap), f"{with_what}, ties credited", "plain"))
    return Facts(facts)


def _beside(cpu: float | None, own: float | None, main: str) -> str:
    if main == "cpu" or cpu is None or own is None:
        return "on the CPU" if main == "cpu" else ""
    return f"CPU {as_ms(cpu)}: {as_times(cpu / own)}"


def _faster(cpu: float | None, own: float | None, main: str) -> str:
    if main == "cpu" or cpu is None or own is None:
        return "on the CPU" if main == "cpu" else ""
    return f"CPU {as_qps(cpu)}: {as_times(own / cpu)}"


def _largest_batch(results: GuideResults) -> tuple[int, BatchNumbers]:
    rows = results.batches()
    size = max((size for size in rows if size <= 1000), default=max(rows))
    return size, rows[size]


def performance_table(results: GuideResults) -> Table:
    """Return the guide's performance table: the CPU beside the GPU, question by question."""
    similarity, users, filtering = results.test_1_similarity, results.test_2_personalization, results.test_4_filtering
    once_a_title, once_a_user = _asked_once(results)
    of_one, of_user = results.target(1, "gpu_time"), results.target(2, "gpu_time")
    rows: list[list[Value]] = [
        _time_row("one title", similarity.cpu_time_ms, of_one, similarity.gpu_time_ms),
        _time_row("one title, for the first time", once_a_title.get("cpu"), of_one, once_a_title.get("gpu")),
        _time_row("one user", users.cpu_avg_time_ms, of_user, users.avg_gpu_time_ms),
        _time_row("one user, for the first time", once_a_user.get("cpu"), of_user, once_a_user.get("gpu")),
        _time_row("one title, one genre only", filtering.cpu_time_ms, None, filtering.gpu_time_ms),
    ]
    for size, row in results.batches().items():
        target = results.target(3, "throughput") if size == 100 else None
        cpu, gpu = row.cpu_throughput_qps, row.throughput_qps
        over = f"over {as_qps(target)}" if target else None
        rows.append([f"{size:,} at once", _cell(as_qps(cpu), cpu), over, _cell(as_qps(gpu), gpu), _ratio(gpu, cpu)])
    columns: Columns = [
        "question",
        Column("CPU baseline", right=True),
        Column("target on a GPU", right=True),
        Column("achieved", right=True),
        Column("speed-up", right=True),
    ]
    measured = [row for row in rows if any(row[place] is not None for place in (1, 3))]
    return Table(columns, measured, name="performance")


def _asked_once(results: GuideResults) -> tuple[dict[Kind, float], dict[Kind, float]]:
    """Return what titles, and users, took that were asked once each, by device: milliseconds, as they are judged."""
    titles, users = results.details.similarity, results.details.personalization
    of_titles, of_users = {}, {}
    for kind in results.kinds:
        if isinstance(titles, SimilarityDetails) and (times := titles.of_side(kind, "first_times")):
            of_titles[kind] = times.median_ms
        if isinstance(users, PersonalizationDetails) and (times := users.of_side(kind, "first_times")):
            of_users[kind] = fmean(times.times_ms)
    return of_titles, of_users


def _dashes(results: GuideResults) -> str:
    """Say what dashes in the table of performance stand for."""
    gpu = "" if results.index.gpu else f"; no GPU was measured: {results.not_measured['index.gpu']}"
    return f"Dashes: the guide names no target there, or the number was not measured{gpu}."


def _time_row(what: str, cpu: float | None, target: float | None, gpu: float | None) -> list[Value]:
    return [
        what,
        _cell(as_ms(cpu), cpu),
        f"under {as_ms(target)}" if target else None,
        _cell(as_ms(gpu), gpu),
        _ratio(cpu, gpu),
    ]


def _cell(text: str, value: float | None) -> Value:
    return None if value is None else Cell(text, value)


def _ratio(over: float | None, under: float | None) -> Value:
    if over is None or not under:
        return None
    return Cell(as_times(over / under), over / under, "bad" if over < under else "plain")


def _quality(results: GuideResults) -> list[Block]:
    """The guide's quality table: every criterion that is not about time."""
    return criteria_table([one for one in results.criteria if one.unit not in ("ms", "qps")], "quality")


def _environment(results: GuideResults) -> Table:
    stamp = results.environment
    rows: list[list[Value]] = [
        *stamp_rows(stamp),
        ["data", f"sha256 {stamp.data_digest}"],
        ["seconds for everything", f"{stamp.seconds}"],
        ["devices compared", ", ".join(device_names(results).values())],
    ]
    return Table(["", ""], rows)


def _gaps(results: GuideResults) -> list[Block]:
    reasons: dict[str, list[str]] = {}
    for place, reason in results.not_measured.items():
        reasons.setdefault(reason, []).append(place)
    rows: list[list[Value]] = [[reason, "\n".join(places)] for reason, places in reasons.items()]
    return [Table(["reason", "what it leaves out"], rows)] if rows else []
