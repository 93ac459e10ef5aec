"""The shells' side of completion: a script for each, where it belongs, and the way in which it asks.

A script starts giltrace with the shell's name in `VARIABLE` and the words that are typed as its arguments, the one at
the cursor last. It gets a line per candidate: what the word may become, a tab, and a description. The shell quotes what
it inserts, and evaluates nothing: names of files and command lines are anybody's.
"""

from __future__ import annotations

import os
from enum import Enum
from pathlib import Path

from giltrace.errors import OutputError
from giltrace.recording.replacing import replacing

VARIABLE = "_GILTRACE_COMPLETE"


class Shell(str, Enum):
    """A shell that completion is made for."""

    bash = "bash"
    zsh = "zsh"
    fish = "fish"


#: A tilde that leads stays one; all else is quoted as far as needed. A folder is followed by what is in it.
_BASH = f"""\
_giltrace() {{
    local value help quoted
    COMPREPLY=()
    while IFS=$'\\t' read -r value help; do
        if [[ $value == '~/'* ]]; then
            printf -v quoted '%q' "${{value#'~/'}}"
            quoted="~/$quoted"
        else
            printf -v quoted '%q' "$value"
        fi
        COMPREPLY+=("$quoted")
    done < <({VARIABLE}=bash "${{1/#'~/'/$HOME/}}" "${{COMP_WORDS[@]:1:COMP_CWORD}}" 2>/dev/null)
    if [[ ${{#COMPREPLY[@]}} -eq 1 && ${{COMPREPLY[0]}} == */ ]]; then
        compopt -o nospace
    fi
}}
complete -F _giltrace giltrace
"""

_ZSH = f"""\
#compdef giltrace
_giltrace() {{
    local line value
    local -a values shown folders
    local -a asked=(${{~${{(Q)words[1]}}}} "${{(@Q)words[2,CURRENT-1]}}" "${{(Q)PREFIX}}")
    for line in "${{(@f)$({VARIABLE}=zsh "${{(@)asked}}" 2>/dev/null)}}"; do
        value=${{line%%$'\\t'*}}
        value=${{value#'~/'}}
        if [[ $value == */ ]]; then
            folders+=("$value")
        elif [[ -n $value ]]; then
            values+=("$value")
            shown+=("$value${{${{line#*$'\\t'}}:+  -- ${{line#*$'\\t'}}}}")
        fi
    done
    [[ $PREFIX == --*=* ]] && compset -P '*='
    compset -P '\\~/'
    [[ "${{(j::)shown}}" == *'  -- '* ]] && compadd -l -d shown -a -- values || compadd -a -- values
    compadd -S '' -a -- folders
}}
if [[ $funcstack[1] == _giltrace ]]; then
    _giltrace "$@"
else
    compdef _giltrace giltrace
fi
"""

_FISH = f"""\
function __giltrace_complete
    set -l words (commandline -opc)
    set -l typed (commandline -ct)
    set -l program (string replace -r '^~/' "$HOME/" -- $words[1])
    set -e words[1]
    {VARIABLE}=fish $program $words "$typed" 2>/dev/null
end
complete -c giltrace -f -a '(__giltrace_complete)'
"""

_SCRIPTS = {Shell.bash: _BASH, Shell.zsh: _ZSH, Shell.fish: _FISH}


def script(shell: Shell) -> str:
    """Return what makes `shell` complete giltrace's command line, once it has read it."""
    return _SCRIPTS[shell]


def install(shell: Shell) -> tuple[Path, str]:
    """Write the script where `shell` looks for it by itself; returns the file, and what a person may have to do.

    No file of the user's own is changed. Raises `OutputError` if it cannot be written.
    """
    data = Path(os.environ.get("XDG_DATA_HOME") or Path.home() / ".local" / "share")
    config = Path(os.environ.get("XDG_CONFIG_HOME") or Path.home() / ".config")
    path, rest = {
        Shell.bash: (
            data / "bash-completion" / "completions" / "giltrace",
            "new shells have it, if they use the package bash-completion; others by this line in ~/.bashrc:\n"
            "  source {path}",
        ),
        Shell.zsh: (
            data / "zsh" / "site-functions" / "_giltrace",
            "new shells have it with these lines in ~/.zshrc:\n"
            "  fpath=({folder} $fpath)\n"
            "  autoload -Uz compinit && compinit",
        ),
        Shell.fish: (config / "fish" / "completions" / "giltrace.fish", "new shells have it"),
    }[shell]
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with replacing(path) as file:
            file.write(script(shell).encode())
    except OSError as error:
        remedy = f"put it elsewhere yourself: giltrace --show-completion {shell.value}"
        raise OutputError(f"cannot write {path}: {error.strerror}", remedy) from None
    return path, rest.format(path=path, folder=path.parent)
