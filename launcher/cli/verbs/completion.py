"""completion: click's own for bash, zsh and fish, ours for PowerShell."""

from __future__ import annotations

import os
from typing import Any, Final

import click
from click.shell_completion import CompletionItem, ShellComplete, add_completion_class, get_completion_class

_POWERSHELL: Final = """\
Register-ArgumentCompleter -Native -CommandName %(prog_name)s -ScriptBlock {
    param($wordToComplete, $commandAst, $cursorPosition)
    $env:%(complete_var)s = 'powershell_complete'
    $env:COMP_WORDS = ($commandAst.CommandElements | ForEach-Object { "$_" }) -join "`n"
    $env:COMP_CWORD = $wordToComplete
    try {
        %(prog_name)s | ForEach-Object {
            $value, $help = $_ -split "`t", 2
            if (-not $help) { $help = $value }
            [System.Management.Automation.CompletionResult]::new($value, $value, 'ParameterValue', $help)
        }
    } finally {
        Remove-Item Env:%(complete_var)s, Env:COMP_WORDS, Env:COMP_CWORD -ErrorAction SilentlyContinue
    }
}
"""


@add_completion_class
class PowerShellComplete(ShellComplete):
    """The words come one a line, the word under the cursor by itself."""

    name = "powershell"
    source_template = _POWERSHELL

    def get_completion_args(self) -> tuple[list[str], str]:
        words = os.environ.get("COMP_WORDS", "").split("\n")[1:]
        incomplete = os.environ.get("COMP_CWORD", "")
        if incomplete and words and words[-1] == incomplete:
            words.pop()
        return words, incomplete

    def format_completion(self, item: CompletionItem) -> str:
        return f"{item.value}\t{item.help}" if item.help else str(item.value)


@click.command()
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish", "powershell"]))
@click.pass_context
def completion(ctx: click.Context, shell: str) -> None:
    """Shell code that completes wherry's words, e.g. for bash: source <(wherry completion bash)"""
    cls: Any = get_completion_class(shell)
    click.echo(cls(ctx.find_root().command, {}, "wherry", "_WHERRY_COMPLETE").source())
