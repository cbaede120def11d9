"""The verbs: what each is asked with, and whom it calls."""

from __future__ import annotations

import gc
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from orchestrator.cli import cluster_verbs as on_cluster
from orchestrator.cli.arguments import (
    DEFAULT_STORE,
    AcceptDrift,
    AsJson,
    DryRun,
    JobFile,
    MirrorUrl,
    Overrides,
    StageName,
    StoreFolder,
    UnusedStore,
    local_path,
)
from orchestrator.cli.output import console, print_json, write_lines
from orchestrator.environment import listed
from orchestrator.errors import InputError, Problem
from orchestrator.shown import command, visible

if TYPE_CHECKING:
    from orchestrator.config import Job
    from orchestrator.plan import Plan
    from orchestrator.results.find import Place
    from orchestrator.store import StageStore

app = typer.Typer(
    help="Teach language models to reason without writing their reasoning down.",
    no_args_is_help=True,
    add_completion=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    epilog=f"\b\nEnvironment:\n{listed()}",
)


def _print_version(wanted: bool) -> None:
    if wanted:
        from importlib.metadata import version

        print(f"stepwise {version('stepwise')}")
        raise typer.Exit


@app.callback()
def _all_verbs(
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    pass


@app.command()
def init(
    path: Annotated[Path, typer.Argument(parser=local_path, metavar="[PATH]", help="The file to write.")] = Path(
        "job.toml"
    ),
    store: UnusedStore = DEFAULT_STORE,
) -> None:
    """Write a job file to begin with: the fields of a multiplication job, explained. All fields: schema --markdown."""
    from orchestrator.config import template

    try:
        with path.open("x", encoding="utf-8") as file:
            file.write(template())
    except FileExistsError:
        raise InputError(Problem("CLI003", str(path), "exists already", "give another name")) from None
    except OSError as error:
        raise InputError(Problem("CLI009", str(path), f"cannot be written: {error.strerror}", "give another")) from None
    print(f"wrote {visible(str(path))}; next: {command('plan', path)}")


@app.command()
def schema(
    markdown: Annotated[bool, typer.Option("--markdown", help="A reference of every field, for people.")] = False,
    store: UnusedStore = DEFAULT_STORE,
) -> None:
    """Print the JSON Schema of a job file."""
    from orchestrator.config import Job, reference

    print(reference()) if markdown else print_json(Job.model_json_schema())


@app.command()
def plan(
    job: JobFile, overrides: Overrides = None, store: StoreFolder = DEFAULT_STORE, as_json: AsJson = False
) -> None:
    """Show every trial and stage: steps, what is shared, what is in the store, time and disk."""
    from orchestrator.report.terminal.planned import plan_table
    from orchestrator.results.forecast import forecast

    planned = forecast(*_planned(job, overrides, store))
    if as_json:
        print_json(planned)
    else:
        console().print(plan_table(planned))


@app.command()
def run(
    job: JobFile,
    overrides: Overrides = None,
    store: StoreFolder = DEFAULT_STORE,
    dry_run: DryRun = False,
    max_steps: Annotated[
        int | None,
        typer.Option(min=1, help="Try a job out: so many steps of every trial, as a job of its own name.", metavar="N"),
    ] = None,
    address: Annotated[
        str | None,
        typer.Option(
            envvar="RAY_ADDRESS", help="A running Ray to work on: auto, or HOST:PORT. Default: one of its own."
        ),
    ] = None,
    allow_unauthenticated: Annotated[
        bool, typer.Option("--allow-unauthenticated", help="Work on a Ray that asks nobody for a token.")
    ] = False,
    accept_drift: AcceptDrift = False,
    mirror: MirrorUrl = None,
) -> None:
    """Train what is not in the store yet and end with the frontier. Run it again to continue."""
    from orchestrator.commands.given import checked_job, named_plan, tried_out
    from orchestrator.commands.run import run_job
    from orchestrator.ray.joined import Attachment
    from orchestrator.store import StageStore

    at = Attachment(address, allow_unauthenticated) if address else None
    if max_steps:
        overrides = tried_out(job, overrides or (), max_steps)
    if dry_run:
        if not named_plan(job, overrides or (), StageStore(store.absolute())):
            checked_job(job, tuple(overrides or ()), store.absolute(), at)
        plan(job, overrides, store)
        return

    sys.exit(
        run_job(
            job,
            tuple(overrides or ()),
            store.absolute(),
            console(),
            at,
            accept_drift=accept_drift,
            mirror_url=mirror,
        )
    )


for verb in (on_cluster.submit, on_cluster.status, on_cluster.logs, on_cluster.stop):
    app.command()(verb)


@app.command()
def extend(
    job: JobFile,
    seeds: Annotated[int, typer.Option(min=1, max=1000, help="How many seeds more for every configuration.")],
    store: StoreFolder = DEFAULT_STORE,
    dry_run: DryRun = False,
    accept_drift: AcceptDrift = False,
    mirror: MirrorUrl = None,
) -> None:
    """Add seeds to a finished job: the next unused numbers. No stage is trained twice."""
    from orchestrator.commands.extend import extend_job

    root = store.absolute()
    done = extend_job(job, seeds, root, console(), dry_run=dry_run, accept_drift=accept_drift, mirror_url=mirror)
    _end(done, store)


@app.command()
def fork(
    stage: StageName,
    set_: Annotated[
        list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="A field of schedule or training.")
    ] = None,
    name: Annotated[str | None, typer.Option(help="The fork's name. Default: made from what it changes.")] = None,
    store: StoreFolder = DEFAULT_STORE,
    dry_run: DryRun = False,
    accept_drift: AcceptDrift = False,
    mirror: MirrorUrl = None,
) -> None:
    """Start a trial from any committed stage, with other fields from there on, and a report of its own."""
    from orchestrator.commands.fork import fork_stage

    _existing(store)
    root = store.absolute()
    done = fork_stage(
        stage, set_ or (), name, root, console(), dry_run=dry_run, accept_drift=accept_drift, mirror_url=mirror
    )
    _end(done, store)


@app.command()
def compare(left: JobFile, right: JobFile, store: StoreFolder = DEFAULT_STORE, as_json: AsJson = False) -> None:
    """Show in which fields two jobs differ, then both frontiers side by side."""
    from orchestrator.report.terminal.compared import comparison_table
    from orchestrator.results.compare import comparison

    (plan_left, stages), (plan_right, _) = _planned(left, None, store), _planned(right, None, store)
    compared = comparison(plan_left, plan_right, stages)
    if as_json:
        print_json(compared)
    else:
        console().print(comparison_table(compared))


@app.command()
def report(
    job: JobFile, overrides: Overrides = None, store: StoreFolder = DEFAULT_STORE, as_json: AsJson = False
) -> None:
    """Write report.html and the frontier as CSV, Parquet, PNG and SVG, and print the frontier."""
    from orchestrator.commands.report import print_report
    from orchestrator.results.frontier import frontier

    gc.disable()  # looking for cycles in what a report keeps took a seventh of its time
    planned, stages = _planned(job, overrides, store)
    if as_json and (points := frontier(planned, stages)):
        print_json([point.model_dump(mode="json") for point in points])
    else:
        print_report(planned, stages, console())


@app.command()
def data(
    job: JobFile,
    overrides: Overrides = None,
    split: Annotated[Literal["train", "validation", "test"], typer.Option(help="Which examples.")] = "train",
    limit: Annotated[int | None, typer.Option(min=1, help="Only the first n.")] = None,
    store: StoreFolder = DEFAULT_STORE,
) -> None:
    """Write the task's examples, one a line: question||cot #### answer."""
    from itertools import islice

    from orchestrator.tasks import make_task

    examples = make_task(_job(job, overrides, store).task).examples(split)
    write_lines(example.line for example in islice(examples, limit))


@app.command()
def doctor(
    job: JobFile,
    overrides: Overrides = None,
    cluster: on_cluster.ClusterFile = None,
    address: Annotated[
        str | None, typer.Option(help="A cluster's dashboard instead of a file; or, on one of its nodes, auto.")
    ] = None,
    allow_unauthenticated: Annotated[bool, typer.Option("--allow-unauthenticated", hidden=True)] = False,
    store: StoreFolder = DEFAULT_STORE,
    as_json: AsJson = False,
) -> None:
    """Look at a job's data: tokens, what each stage removes, leaks; or with a cluster, whether it would run there."""
    if cluster or address:
        on_cluster.doctor(job, overrides or (), cluster, address, allow_unauthenticated, store, as_json)
    from orchestrator.commands.doctor import diagnose
    from orchestrator.report.terminal.diagnosis import diagnosis_table
    from orchestrator.store import StageStore

    diagnosis = diagnose(_job(job, overrides, store), StageStore(store.absolute()))
    if as_json:
        print_json(diagnosis)
    else:
        console().print(diagnosis_table(diagnosis))


@app.command()
def predict(
    stage: StageName,
    questions: Annotated[
        list[str] | None, typer.Argument(help='As "3 2 1 * 6 5". Default: one a line from standard input.')
    ] = None,
    store: StoreFolder = DEFAULT_STORE,
    as_json: AsJson = False,
) -> None:
    """Ask a trained stage: what it writes after each question, and its answer."""
    from orchestrator.commands.predict import TrainedStage
    from orchestrator.report.predictions import answer_lines, answers_document

    trained = TrainedStage.load(*_found(stage, store))
    if not questions and sys.stdin.isatty():
        print("one question a line; Ctrl-D ends", file=sys.stderr)
    if not all(question.strip() for question in questions or ()):
        raise typer.BadParameter("a question is empty")
    answered = trained.answers(questions or _questions_on_stdin())
    if as_json:
        print_json(answers_document(trained.place, answered))
        return
    for line in answer_lines(trained.place, answered):
        print(line, flush=True)


@app.command()
def evaluate(
    stage: StageName,
    split: Annotated[Literal["test", "validation"], typer.Option(help="Which examples.")] = "test",
    limit: Annotated[int | None, typer.Option(min=1, help="Only the first n.")] = None,
    store: StoreFolder = DEFAULT_STORE,
    as_json: AsJson = False,
) -> None:
    """Measure a trained stage on the test split, which no run reads: exact match, greedy, with a 95 % interval."""
    from orchestrator.commands.evaluate import evaluate_stage

    measured = evaluate_stage(*_found(stage, store), split, limit)
    print_json(measured) if as_json else print(measured.line)


@app.command()
def export(
    stage: StageName,
    folder: Annotated[
        Path, typer.Argument(parser=local_path, metavar="DIR", help="The folder to write; it may not exist.")
    ],
    store: StoreFolder = DEFAULT_STORE,
) -> None:
    """Write a stage's model as a plain Hugging Face folder with a model card."""
    from orchestrator.commands.export import export_stage

    place, stages = _found(stage, store)
    export_stage(place, stages, folder)
    print(f"wrote {place.words} to {visible(str(folder))}; its README.md says what it is and how to use it")


@app.command()
def probe(
    stage: StageName,
    out: Annotated[
        Path | None,
        typer.Option(parser=local_path, metavar="DIR", help="Where table and picture go. Default: the job's folder."),
    ] = None,
    examples: Annotated[int, typer.Option(min=100, help="Training examples that the probes learn from.")] = 3000,
    store: StoreFolder = DEFAULT_STORE,
) -> None:
    """Look inside a multiplication stage: which removed results a linear probe reads, in which layer and where."""
    from orchestrator.commands.probe import probe_stage, write_probe
    from orchestrator.report.html.probing import probe_folder, probe_name

    place, stages = _found(stage, store)
    found = probe_stage(place, stages, examples)
    name = probe_name(place.trial.name, place.tried.stage.index, place.tried.stage.key)
    files = write_probe(found, out or probe_folder(store, place.plan.job.name), name)
    print(found.title)
    console().print(found.table())
    for file in files:
        print(f"wrote {visible(str(file))}")


@app.command()
def fsck(
    store: StoreFolder = DEFAULT_STORE,
    repair: Annotated[bool, typer.Option("--repair", help="Remove damaged stages and what no manifest names.")] = False,
) -> None:
    """Compare every file in the store with its manifest."""
    from orchestrator.store import StageStore
    from orchestrator.store.fsck import check_store

    _existing(store)
    result = check_store(StageStore(store.absolute()), repair=repair)
    for line in result.lines:
        print(visible(line))
    sys.exit(0 if result.sound else 1)


@app.command()
def track(job: JobFile, overrides: Overrides = None, store: StoreFolder = DEFAULT_STORE) -> None:
    """Bring MLflow up to date with the store, after an outage or on another server."""
    from orchestrator.commands.track import track_job

    sys.exit(track_job(*_planned(job, overrides, store), console()))


@app.command()
def ui(
    store: StoreFolder = DEFAULT_STORE,
    port: Annotated[int, typer.Option(min=1, max=65535, help="Its port.")] = 5000,
    shared: Annotated[bool, typer.Option("--shared", help="Ask everybody for a password.")] = False,
    host: Annotated[str, typer.Option(help="The address to listen on; another one than the default with --shared.")] = (
        "127.0.0.1"
    ),
    name: Annotated[
        list[str] | None, typer.Option(help="With --shared: a host name by which browsers may ask for it.")
    ] = None,
) -> None:
    """Serve the store's MLflow on this machine and open the frontier, or say where it is. Ctrl-C ends it."""
    from orchestrator.commands.serve import serve_mlflow
    from orchestrator.tracking.shared import shared_server

    _existing(store)
    if not shared and (host != "127.0.0.1" or name):
        raise typer.BadParameter("other machines only with --shared")
    sys.exit(
        serve_mlflow(
            store.absolute(), port, shared_server(store.absolute(), host, port, name or ()) if shared else None
        )
    )


@app.command()
def guide(
    topic: Annotated[str | None, typer.Argument(help="As `data`. Default: the list of topics.")] = None,
    store: UnusedStore = DEFAULT_STORE,
) -> None:
    """Show a page about a topic; without TOPIC the list of topics."""
    from orchestrator.commands.guide import TOPICS, list_topics, show

    if topic is None:
        list_topics(console())
    elif topic in TOPICS:
        show(TOPICS[topic], console())
    else:
        raise typer.BadParameter(f"no topic {topic!r}; there are {', '.join(TOPICS)}")


def _planned(job: Path, overrides: list[str] | None, store: Path) -> tuple[Plan, StageStore]:
    from orchestrator.commands.given import named_plan
    from orchestrator.config import load_job
    from orchestrator.store import StageStore, plan_for

    stages = StageStore(store.absolute())
    named = named_plan(job, overrides or (), stages)
    return named or plan_for(load_job(job, overrides or ()), stages), stages


def _job(job: Path, overrides: list[str] | None, store: Path) -> Job:
    """The job of a file, or the saved one of that name."""
    from orchestrator.commands.given import named_plan
    from orchestrator.config import load_job
    from orchestrator.store import StageStore

    named = named_plan(job, overrides or (), StageStore(store.absolute()))
    return named.job if named else load_job(job, overrides or ())


def _found(stage: str, store: Path) -> tuple[Place, StageStore]:
    from orchestrator.results.find import find_stage
    from orchestrator.store import StageStore

    _existing(store)
    stages = StageStore(store.absolute())
    return find_stage(stage, stages), stages


def _questions_on_stdin() -> Iterator[str]:
    asked = False
    for number, line in enumerate(sys.stdin.buffer, 1):
        try:
            question = line.decode("utf-8-sig" if number == 1 else "utf-8").strip()
        except UnicodeDecodeError as error:
            found = f"byte {error.start} is not UTF-8"
            raise InputError(Problem("CLI008", f"standard input:{number}", found, "save it as UTF-8")) from None
        if question:
            asked = True
            yield question
    if not asked:
        raise typer.BadParameter("no question: give one, or one a line on standard input")


def _end(outcome: Plan | int, store: Path) -> None:
    """Exit with a code, or show the plan of a dry run."""
    if isinstance(outcome, int):
        sys.exit(outcome)
    from orchestrator.report.terminal.planned import plan_table
    from orchestrator.results.forecast import forecast
    from orchestrator.store import StageStore

    console().print(plan_table(forecast(outcome, StageStore(store.absolute()))))


def _existing(store: Path) -> None:
    if not (store / "stages").is_dir():
        found, fix = "no such store", "run a job first, or name a store with --store"
        if (store / "jobs").is_dir():
            found, fix = "has no committed stage yet", "`stepwise status JOB` says how far a job is"
        elif store.is_dir():
            found = "is not a store, it has no folder `stages`"
        raise InputError(Problem("STO001", str(store), found, fix))
