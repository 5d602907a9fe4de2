"""`mscfs config`: check a configuration file, show what takes effect."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import typer

from mscfs.cli.program import note
from mscfs.config.load import Report, check_config, find_profile, load_config
from mscfs.config.problems import Problem
from mscfs.errors import ConfigError

app = typer.Typer(help="Check the configuration; show what takes effect.", no_args_is_help=True)

AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]


def register(parent: typer.Typer) -> None:
    """Add the group of commands."""
    parent.add_typer(app, name="config")


@app.command()
def validate(
    file: Annotated[Path | None, typer.Argument(help="The file; else MSC_CONFIG and the usual places.")] = None,
    *,
    strict: Annotated[bool, typer.Option("--strict", help="Take warnings for errors.")] = False,
    as_json: AsJson = False,
) -> None:
    """Check a configuration file with all its profiles, used or not.

    Every problem is a line on standard error; with errors the exit code is 78.
    """
    report = check_config(file)
    errors = report.of_kind("error", "unusable")
    warnings = report.of_kind("unsupported", "warning")
    if strict:
        errors, warnings = report.problems, ()
    if as_json:
        typer.echo(json.dumps(_as_json(report, errors, warnings), indent=2))
    else:
        for problem in report.problems:
            note(f"{'error' if problem in errors else 'warning'}: {problem}")
        if not errors:
            typer.echo(_summary(report))
    if errors:
        raise typer.Exit(ConfigError.exit_code)


@app.command()
def show(
    profile: Annotated[str, typer.Argument(help="The profile, as the configuration names it.")],
    *,
    config_file: Annotated[
        Path | None, typer.Option("--config", help="The configuration file; else MSC_CONFIG and the usual places.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Show a profile and its replicas as they take effect: defaults filled in, variables expanded, secrets masked."""
    import yaml  # noqa: PLC0415 - only where it is shown

    from mscfs.config.describe import describe  # noqa: PLC0415

    config = load_config(config_file)
    described = describe(config, find_profile(config, profile))
    if as_json:
        typer.echo(json.dumps(described, indent=2))
        return
    for file in config.files:
        typer.echo(f"# {file}")
    typer.echo(yaml.safe_dump(described, sort_keys=False, allow_unicode=True, width=120), nl=False)


def _as_json(report: Report, errors: tuple[Problem, ...], warnings: tuple[Problem, ...]) -> dict[str, Any]:
    config = report.config
    return {
        "valid": not errors,
        "files": [str(file) for file in config.files] if config else [],
        "profiles": sorted(config.profiles) if config else [],
        "unusable_profiles": sorted(config.unusable) if config else [],
        "errors": [_problem(problem) for problem in errors],
        "warnings": [_problem(problem) for problem in warnings],
    }


def _problem(problem: Problem) -> dict[str, Any]:
    return {"file": problem.file, "line": problem.line, "key": problem.key, "message": problem.message}


def _summary(report: Report) -> str:
    assert report.config is not None, "no error, so there is a configuration"
    usable = len(report.config.profiles)
    files = ", ".join(map(str, report.config.files))
    cannot = ", ".join(sorted(report.config.unusable))
    profiles = f"{usable} profile{'' if usable == 1 else 's'} can be used"
    return f"{files}: valid; {profiles}" + (f", not {cannot}" if cannot else "")
