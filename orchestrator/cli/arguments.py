"""Arguments that several verbs take."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

import typer


def local_path(text: str | Path) -> Path:
    """A path in which ``~`` is the home folder, also where no shell has seen to it."""
    expanded = Path(os.path.expanduser(text))
    if str(expanded).startswith("~"):
        raise typer.BadParameter(f"{expanded.parts[0]} is no user's home folder; ./{text} is a folder of that name")
    return expanded


JobFile = Annotated[
    Path,
    typer.Argument(
        parser=local_path,
        help="A job file, as jobs/quickstart.toml, or the name of a job in the store.",
        show_default=False,
    ),
]
Overrides = Annotated[
    list[str] | None,
    typer.Argument(
        metavar="[KEY=VALUE]...", help="Fields to change, as schedule.tokens_per_stage=4.", show_default=False
    ),
]


def _folder(text: str | Path) -> Path:
    if not str(text).strip():
        raise typer.BadParameter("it is empty; name a folder")
    if "://" in str(text):
        raise typer.BadParameter("it is a URL; name a folder that all nodes share")
    if local_path(text).is_file():
        raise typer.BadParameter(f"{text} is a file; name a folder")
    return local_path(text)


StoreFolder = Annotated[
    Path,
    typer.Option(
        "--store", parser=_folder, metavar="DIR", envvar="STEPWISE_STORE", help="Where stages, data and reports are."
    ),
]
StageName = Annotated[
    str, typer.Argument(help="A committed stage: enough of its key, or JOB, JOB:TRIAL, JOB:TRIAL:STAGE.")
]
AcceptDrift = Annotated[
    bool, typer.Option("--accept-drift", help="Go on although fields, data, libraries or code changed.")
]
MirrorUrl = Annotated[
    str | None,
    typer.Option(
        "--mirror",
        envvar="STEPWISE_MIRROR",
        metavar="URL",
        help="Copy committed stages to and from s3://BUCKET, say.",
    ),
]
UnusedStore = Annotated[Path, typer.Option("--store", help="Taken by every verb; this one has no use for it.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Check the job and show the plan; train nothing.")]
DEFAULT_STORE = Path("stepwise-store")
