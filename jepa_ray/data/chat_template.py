"""Renders chat templates, which are foreign code: a failure is one sentence with its cause, and rendering must end.

A template may loop for ever, or build a string that fills the memory. No thread can interrupt that: `10 ** (10 ** 10)` is one instruction.
So `fault_of` first renders a few conversations in a process of its own, under limits that the kernel enforces: once per template and
process, in about 0.1 s. That process sets up Jinja as Transformers does, without Transformers, which takes a second to import; what it
renders is only measured. Templates that grow without bound for quite other contents alone are not caught.

Run as a script, this file is that process. It imports nothing of the package.
"""

from __future__ import annotations

import contextlib
import functools
import json
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from datetime import datetime
from typing import Any

SECONDS = 2
"""CPU time in which all of CONVERSATIONS must be rendered; usual templates need milliseconds."""
MEMORY = 1 << 29
"""Bytes that rendering may use, the interpreter included."""
LENGTH = 100_000
"""Most characters that a template may add to a conversation."""
START = 120
"""Seconds of wall-clock time after which the process is given up: the machine is overloaded."""
CAUSE = 200
"""Most characters of a cause."""
_WORDS = "What is the sum of 2 and 3? "
_TALK = [{"role": role, "content": _WORDS} for role in ("user", "assistant")]
CONVERSATIONS: list[list[dict[str, str]]] = [
    _TALK,
    [{"role": "system", "content": _WORDS}, *_TALK],
    _TALK[:1],
    _TALK[1:],
    _TALK * 16,
    [{"role": turn["role"], "content": _WORDS * 60} for turn in _TALK],
]
"""A question with its answer, with a system message, each side alone, many turns, long turns."""


def render(tokenizer: Any, messages: list[dict[str, str]], variables: Mapping[str, Any], *, prompt: bool = False) -> str:
    """The messages, rendered by the tokenizer's chat template with `variables`. `prompt`: with the template's prompt for an answer.

    ValueError with the type and the first line of whatever the template raises.
    """
    try:
        text: str = tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=prompt, **variables)
    except Exception as error:  # a template is foreign code, which may raise anything
        raise ValueError(cause(error)) from error
    return text


def cause(error: BaseException) -> str:
    """Type and first line of an error, at most CAUSE characters."""
    first = str(error).strip().partition("\n")[0].strip()
    text = f"{type(error).__name__}: {first}" if first else type(error).__name__
    return text if len(text) <= CAUSE else f"{text[: CAUSE - 3]}..."


def fault_of(tokenizer: Any, variables: Mapping[str, Any]) -> str | None:
    """What is wrong with a tokenizer's chat template that does not end within the limits, in words that follow its name; otherwise None."""
    try:
        template = tokenizer.get_chat_template()
    except Exception:  # there is none, or one of several must be chosen: rendering reports it
        return None
    return _fault_of(template, json.dumps({**tokenizer.special_tokens_map, **variables}, default=str, sort_keys=True))


@functools.lru_cache(maxsize=64)
def _fault_of(template: str, variables: str) -> str | None:
    given = json.dumps({"template": template, "variables": json.loads(variables), "conversations": CONVERSATIONS, "seconds": SECONDS})
    try:
        done = subprocess.run([sys.executable, "-P", __file__], input=given, capture_output=True, text=True, timeout=START, check=False)
    except (OSError, subprocess.TimeoutExpired):  # this machine cannot tell, and the template is not to blame
        return None
    if done.returncode == -signal.SIGXCPU:
        return f"does not end: a few short conversations take more than {SECONDS} s to render"
    return done.stdout.strip() or None


def environment() -> Any:
    """Jinja's environment as Transformers sets it up for chat templates: the tag `generation`, and what else they may call."""
    from jinja2 import nodes
    from jinja2.exceptions import TemplateError
    from jinja2.ext import Extension, loopcontrols
    from jinja2.sandbox import ImmutableSandboxedEnvironment

    class Generation(Extension):
        tags = {"generation"}  # noqa: RUF012 - as the base class declares it

        def parse(self, parser: Any) -> nodes.Node:
            line = next(parser.stream).lineno
            return nodes.Scope(parser.parse_statements(("name:endgeneration",), drop_needle=True), lineno=line)

    def raise_exception(message: str) -> None:
        raise TemplateError(message)

    def tojson(value: Any, ensure_ascii: bool = False, indent: Any = None, separators: Any = None, sort_keys: bool = False) -> str:
        return json.dumps(value, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys)

    out = ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True, extensions=[Generation, loopcontrols])
    out.filters["tojson"] = tojson
    out.globals |= {"raise_exception": raise_exception, "strftime_now": lambda form: datetime.now().strftime(form)}
    return out


def main() -> None:
    """Read a template, its variables, conversations and CPU seconds as JSON from the standard input; print the fault, or nothing."""
    given = json.load(sys.stdin)
    compile_template = environment().from_string  # everything is imported before the limits hold
    seconds = int(time.process_time()) + given["seconds"]
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_CPU, (seconds, seconds + 1))
    with contextlib.suppress(ValueError, OSError):  # macOS does not limit memory
        resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    try:
        added = _most_added(compile_template(given["template"]), given["variables"], given["conversations"])
    except MemoryError:
        print(f"needs more than {MEMORY >> 20} MiB of memory for a short conversation")
    except Exception:  # it is no template, which rendering reports
        return
    else:
        if added > LENGTH:
            print(f"adds {added:,} characters to a short conversation; at most {LENGTH:,} are allowed")


def _most_added(template: Any, variables: dict[str, Any], conversations: list[list[dict[str, str]]]) -> int:
    """Most characters that a compiled template adds to the contents of a conversation. MemoryError if there is not enough memory."""
    most = 0
    for messages in conversations:
        for prompt in (False, True):
            try:
                text = template.render(messages=messages, tools=None, documents=None, add_generation_prompt=prompt, **variables)
            except MemoryError:
                raise
            except Exception:  # it refuses these turns, as many do
                continue
            most = max(most, len(text) - sum(len(message["content"]) for message in messages))
    return most


if __name__ == "__main__":
    main()
