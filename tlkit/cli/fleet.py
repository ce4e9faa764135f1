"""``tlkit fleet``: a plan of many jobs, run on this machine or on a cluster, that can be stopped and gone on with."""

from __future__ import annotations

import json as json_
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from tlkit.cli.options import shared as options
from tlkit.cli.options.bench import Format, Report, chosen_format
from tlkit.cli.options.many import Cluster, Jobs
from tlkit.cli.sink import output
from tlkit.cli.sink.page import Page
from tlkit.errors import UsageError
from tlkit.host.interrupt import last_output

if TYPE_CHECKING:
    from tlkit.fleet.journal import Journal
    from tlkit.fleet.plan import FleetPlan
    from tlkit.fleet.run import FleetResult

PlanFile = Annotated[str | None, typer.Argument(metavar="PLAN", help="The plan: a .toml, .yaml or .json file.")]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Print the jobs and what each needs, and run none.")]
Schema = Annotated[bool, typer.Option("--schema", help="Print the JSON schema of plans, for editors.")]
Resume = Annotated[bool, typer.Option("--resume", help="Go on where the journal ends: what is done is not run again.")]
JournalFile = Annotated[
    str | None, typer.Option("--journal", metavar="FILE", help="The journal; by default the plan's name + .journal.")
]


def fleet(
    plan: PlanFile = None,
    dry_run: DryRun = False,
    schema: Schema = False,
    resume: Resume = False,
    journal: JournalFile = None,
    jobs: Jobs = None,
    cluster: Cluster = None,
    report: Report = None,
    format: Format = None,
    force: options.Force = False,
    json: options.Json = False,
    quiet: options.Quiet = False,
    verbose: options.Verbose = 0,
) -> None:
    """Run the jobs of a plan: models x settings, each a tlkit command, as they come into a journal.

    \b
    tlkit fleet zoo.toml --dry-run
    tlkit fleet zoo.toml --jobs 4
    tlkit fleet zoo.toml --resume
    tlkit fleet zoo.toml --cluster auto
    tlkit fleet zoo.toml --report zoo.html --format junit > zoo.xml
    tlkit fleet --schema

    Exit codes: 0 all done, 1 a job gave a negative answer, 4 a job failed or was set aside. Ctrl-C leaves a journal
    that --resume goes on with. Measurements (bench) run alone on their machine, after what may run together.
    """
    sink = output.start(json=json or format == "json", quiet=quiet, verbose=verbose)
    format = chosen_format(format, json)
    if schema:
        from tlkit.fleet.schema import PLAN

        sink.answer(PLAN, json_.dumps(PLAN, indent=2))
        return
    if plan is None:
        raise UsageError("name a plan", "tlkit fleet zoo.toml, or tlkit fleet --schema for what one holds")
    from tlkit.cli.many.check import check_options
    from tlkit.cli.views.fleet import table as view
    from tlkit.fleet.plan import read_plan

    found = read_plan(Path(plan))
    check_options(Path(plan), found.jobs)
    if dry_run:
        sink.answer(view.planned_document(found.jobs), lambda: view.planned(found.jobs))
        return
    place = Path(journal or f"{plan}.journal")
    page = None if report is None else Page(report, force, (plan, place))
    result = _run(sink, found, place, resume, jobs, cluster, force)
    _tell(sink, result, place, format)
    if page is not None:
        from tlkit.cli.views.fleet.page import page as drawn

        with last_output():
            page.write(drawn(Path(plan).name, result, place))
        sink.note(f"report: {report}")
    raise typer.Exit(result.exit_code)


def _tell(sink: output.Sink, result: FleetResult, place: Path, format: str) -> None:
    from tlkit.cli.views.fleet import formats, table

    document = table.document(result, place)
    if format in ("csv", "jsonl", "md", "junit"):
        return sink.answer(document, getattr(formats, format)(result))
    sink.answer(document, lambda: table.table(result, place))


def _run(
    sink: output.Sink, plan: FleetPlan, place: Path, resume: bool, jobs: int | None, cluster: str | None, force: bool
) -> FleetResult:
    from tlkit import __version__
    from tlkit.cli.many.side_by_side import executor_for, show_tally
    from tlkit.fleet.journal import Journal
    from tlkit.fleet.plan import check_outputs
    from tlkit.fleet.run import run_fleet

    if place.exists() != resume:
        hint = "go on with it: --resume; or begin anew with another --journal"
        raise (
            UsageError(f"{place} exists already", hint)
            if place.exists()
            else UsageError(f"{place}: there is no such journal to go on with", "leave --resume out")
        )
    journal = Journal(place, {"tlkit": __version__, "jobs": len(plan.jobs)})
    try:
        _tell_past(sink, journal, plan)
        check_outputs(plan.jobs, journal.past.started, force)
        executor = executor_for(jobs or plan.at_a_time, cluster)
        try:
            with sink.progress("starting", len(plan.jobs)) as bar:
                return run_fleet(plan.jobs, executor, journal, lambda tally: show_tally(bar, tally), force)
        except KeyboardInterrupt:
            sink.note(f"{place} has what was done: go on with --resume")
            raise
        finally:
            executor.close()
    finally:
        if not resume and not journal.past.started:
            place.unlink(missing_ok=True)  # nothing began that could be gone on with
        journal.close()


def _tell_past(sink: output.Sink, journal: Journal, plan: FleetPlan) -> None:
    past = journal.past
    if past.damaged:
        sink.warn(f"{journal.path}: {past.damaged} damaged lines; what they told is done again")
    there = {job.key for job in plan.jobs}
    if past.done and not there & past.done.keys():
        sink.warn(f"{journal.path}: none of the {len(past.done)} jobs done there is in this plan")
