"""`abstractllm token`: the tokens that a server accepts."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from abstractllm_cli import _options as options
from abstractllm_cli._output import note, print_json, print_table, print_text, reporting

if TYPE_CHECKING:
    from abstractllm_server.security.token_entries import TokenEntry

app = typer.Typer(
    help="Make, list and revoke the tokens that a server accepts: the lines of the file that its key `tokens` names. "
    "The file holds hashes alone. A running server takes a change over within seconds.",
    short_help="Make and revoke a server's tokens.",
    no_args_is_help=True,
    rich_markup_mode=None,
)

File = Annotated[Path, typer.Option("--file", metavar="FILE", dir_okay=False, help="The file of tokens.")]
PresentFile = Annotated[
    Path, typer.Option("--file", metavar="FILE", exists=True, dir_okay=False, help="The file of tokens.")
]


@app.command("create")
def create(
    file: File,
    role: Annotated[
        Literal["inference", "admin"],
        typer.Option("--role", help="The caller's rights: to generate, or everything.", show_default=False),
    ],
    label: Annotated[str, typer.Option("--label", metavar="TEXT", help="The caller's name, for logs.")] = "",
    expires: Annotated[
        str | None,
        typer.Option(
            "--expires",
            metavar="WHEN",
            help="When it is refused: after a span (12h, 90d) or at a time (2027-01-31, 2027-01-31T12:00:00Z).",
        ),
    ] = None,
    as_json: options.AsJson = False,
) -> None:
    """Make a token, add its hash to the file, and print the token: it is shown this once and stored nowhere.

    The file is made if it does not exist, readable by its owner alone.
    """
    from abstractllm_server.security.token_editor import TokenEditor
    from abstractllm_server.settings import Role

    expires_at = None if expires is None else _expiry(expires)
    with reporting(as_json=as_json):
        token, entry = TokenEditor(file).create(Role(role), label, expires_at)
        if as_json:
            print_json({"token": token} | _plain(entry))
        else:
            note(f"added {entry.name} ({entry.role}) to {file}; this is the token, which is stored nowhere:")
            print_text(f"{token}\n")


@app.command("list")
def list_(file: PresentFile, as_json: options.AsJson = False) -> None:
    """List the tokens of a file: the beginning of the hash, role, label and expiry of each."""
    from abstractllm_server.security.token_editor import TokenEditor

    with reporting(as_json=as_json):
        entries = TokenEditor(file).entries()
        if as_json:
            print_json({"tokens": [_plain(entry) for entry in entries]})
        else:
            rows = [(entry.digest[:12], entry.role, entry.label, _expiry_text(entry)) for entry in entries]
            print_table(("ID", "ROLE", "LABEL", "EXPIRES"), rows)


@app.command("revoke")
def revoke(
    file: PresentFile,
    name: Annotated[
        str, typer.Argument(metavar="TOKEN", help="Its label, or the first 8 or more characters of its hash.")
    ],
    as_json: options.AsJson = False,
) -> None:
    """Take a token out of the file: calls with it are refused once the server has read the file again."""
    from abstractllm_server.security.token_editor import TokenEditor

    with reporting(as_json=as_json):
        entry = TokenEditor(file).revoke(name)
        if as_json:
            print_json({"revoked": _plain(entry)})
        else:
            note(f"revoked {entry.digest[:12]} ({entry.role}) {entry.label}".rstrip())


def _expiry(text: str) -> float:
    """Reads a time, or a span from now, as seconds since 1970."""
    from abstractllm_server.security.token_entries import expiry_time

    try:
        return expiry_time(text)
    except ValueError as error:
        options.usage(str(error), "--expires")


def _plain(entry: TokenEntry) -> dict[str, Any]:
    expires = None if entry.expires_at is None else datetime.fromtimestamp(entry.expires_at, UTC).isoformat()
    return {"id": entry.digest[:12], "role": entry.role, "label": entry.label, "expires": expires}


def _expiry_text(entry: TokenEntry) -> str:
    if entry.expires_at is None:
        return ""
    time = datetime.fromtimestamp(entry.expires_at, UTC)
    return f"{time:%Y-%m-%d %H:%M} UTC" + (" (expired)" if time <= datetime.now(UTC) else "")
