"""Renders a chat template; run by `chat_template` in a process of its own.

Standard input is an object with `template`, `conversations`, `variables` and `max_chars`; standard
output a list of the rendered conversations. What a template may use is what transformers offers.
"""

import datetime
import json
import sys

import jinja2
from jinja2.ext import Extension
from jinja2.sandbox import ImmutableSandboxedEnvironment


class _Generation(Extension):
    """The tag `generation`, which marks what a model says; it changes nothing."""

    tags = {"generation"}  # noqa: RUF012 - as jinja2 wants it

    def parse(self, parser):  # type: ignore[no-untyped-def]
        next(parser.stream)
        return parser.parse_statements(("name:endgeneration",), drop_needle=True)


def _raise(message: str) -> None:
    raise jinja2.TemplateError(message)


def _to_json(value: object, **options: object) -> str:
    return json.dumps(value, **({"ensure_ascii": False} | options))  # type: ignore[arg-type]


def main() -> None:
    """Render what stands on standard input."""
    request = json.load(sys.stdin)
    environment = ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=[_Generation, "jinja2.ext.loopcontrols"]
    )
    environment.filters["tojson"] = _to_json
    environment.globals["raise_exception"] = _raise
    environment.globals["strftime_now"] = lambda form: datetime.datetime.now().strftime(form)
    template = environment.from_string(request["template"])
    texts = [
        template.render(messages=each, add_generation_prompt=True, **request["variables"])
        for each in request["conversations"]
    ]
    longest = max(map(len, texts))
    if longest > request["max_chars"]:
        raise ValueError(f"it makes {longest} characters, at most {request['max_chars']} are read")
    json.dump(texts, sys.stdout)


if __name__ == "__main__":
    main()
