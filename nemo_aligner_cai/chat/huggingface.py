# SPDX-FileCopyrightText: Copyright (c) 2026, The nemo_aligner_cai authors
# SPDX-License-Identifier: Apache-2.0
"""Chat templates of Hugging Face tokenizers: Jinja programs, rendered as transformers renders them.

The template is in chat_template.jinja or in the key ``chat_template`` of tokenizer_config.json, which also names the
special tokens (tested against transformers 4.48). Neither transformers nor the tokenizer itself is needed.
"""

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from functools import cached_property
from pathlib import Path
from typing import Any, NoReturn, cast

import jinja2
import jinja2.ext
import jinja2.nodes
import jinja2.parser
import jinja2.runtime
import jinja2.sandbox

from nemo_aligner_cai.chat import trial
from nemo_aligner_cai.chat.delimiters import Delimiters, Edge
from nemo_aligner_cai.chat.messages import Conversation, Message, Role, require_user_last
from nemo_aligner_cai.chat.special_tokens import find_special_tokens
from nemo_aligner_cai.chat.template import ChatTemplate
from nemo_aligner_cai.errors import FormatError, UsageError, one_line
from nemo_aligner_cai.files import PathLike, read_json, read_text

_TOKENS = ("bos_token", "eos_token", "unk_token", "sep_token", "pad_token", "cls_token", "mask_token")
_MORE_TOKENS = "additional_special_tokens"
_CONFIG, _TOKENS_MAP = "tokenizer_config.json", "special_tokens_map.json"
# A program in Jinja's sandbox raises Jinja's errors, and Python's for an operation on a wrong value.
_RENDER_ERRORS = (
    jinja2.TemplateError,
    ArithmeticError,
    AttributeError,
    LookupError,
    RecursionError,
    TypeError,
    ValueError,
)
_SHOWN = 300
"""Characters of a program's text in an error message."""
_ONE_TURN = (Role.USER,)
_TWO_TURNS = (Role.USER, Role.ASSISTANT, Role.USER)


@dataclass(frozen=True)
class JinjaTemplate(ChatTemplate):
    """A Jinja program that renders a conversation, with the variables that transformers passes to such programs.

    `render` and `generation_prompt` are the program's exact output; a program may trim texts. The other properties are
    learned from its output for a few short conversations.

    Raises:
        UsageError: the program cannot render two user turns and a reply to each, or its generation prompt is not a
            prefix of the training text.
        jinja2.TemplateSyntaxError: the program is not Jinja.
    """

    source: str
    variables: Mapping[str, Any] = field(default_factory=dict[str, Any])
    """The program's variables besides the conversation: the tokenizer's special tokens by name."""
    tokens: tuple[str, ...] = ()
    """All strings that the tokenizer encodes as one token."""
    now: datetime = field(default_factory=datetime.now, repr=False, compare=False)
    """The program's clock: one time for a whole run, which may last past midnight."""

    def __post_init__(self) -> None:
        asked, trained = self.assistant_header, self._delimiters.between(Role.USER, Role.ASSISTANT)
        differs = self._differs(_TWO_TURNS) if trained.startswith(asked) else (asked, trained)
        if differs:
            raise UsageError(
                f"the chat template's generation prompt ends with {_shown(differs[0])}, but its training text has "
                f"{_shown(differs[1])}: the model would be prompted with a text that it was not trained on"
            )

    @property
    def reply_start(self) -> str:
        """The text before a reply that is not in the generation prompt: a space, for Mistral."""
        return self._delimiters.between(Role.USER, Role.ASSISTANT).removeprefix(self.assistant_header)

    @property
    def reply_end(self) -> str:
        """The text after the last reply."""
        return self._delimiters.between(Role.ASSISTANT, Edge.END)

    @property
    def stop(self) -> tuple[str, ...]:
        """The special tokens after a reply, and the end-of-sequence token."""
        found = find_special_tokens(self.reply_end) | {token for token in self.tokens if token in self.reply_end}
        end = self.variables.get("eos_token")
        return (*sorted(found, key=self.reply_end.index), *({end} if end else set[str]()) - found)

    @property
    def end_of_turn(self) -> str:
        """The text after a reply, up to its first special token."""
        tokens = [token for token in self.stop if token in self.reply_end]
        return self.reply_end[: min(map(self.reply_end.index, tokens), default=None)]

    @property
    def assistant_header(self) -> str:
        """The text between a user's text and the start of a reply."""
        return self._delimiters.between(Role.USER, Edge.ASK)

    @property
    def template_tokens(self) -> tuple[str, ...]:
        """The delimiters' special tokens, the stop strings, and the tokenizer's tokens that the program names."""
        named = {token for token in self.tokens if token in self.source}
        return tuple(sorted({*self._delimiters.template_tokens, *named, *self.stop}))

    def render(self, conversation: Conversation) -> str:
        """The output of ``apply_chat_template(messages, tokenize=False)``.

        Raises:
            UsageError: the program refuses the conversation, or has the system message only in generation prompts.
        """
        self._require_system(conversation)
        return self._run(conversation, ask=False)

    def generation_prompt(self, conversation: Conversation) -> str:
        """The same with ``add_generation_prompt=True``; also raises UsageError unless a user turn is the last."""
        require_user_last(conversation)
        self._require_system(conversation)
        return self._run(conversation, ask=True)

    @cached_property
    def _delimiters(self) -> Delimiters:
        return Delimiters(self.render, self.generation_prompt, self.tokens)

    def _require_system(self, conversation: Conversation) -> None:
        if conversation.system and self._system_differs:
            raise UsageError(
                "the chat template does not train on the system message of its generation prompt; remove the message"
            )

    @cached_property
    def _system_differs(self) -> bool:
        try:
            return any(self._differs((Role.SYSTEM, *roles)) for roles in (_ONE_TURN, _TWO_TURNS))
        except UsageError:
            return False  # refuses every system message, with its own error

    def _differs(self, roles: Sequence[Role]) -> tuple[str, str] | None:
        """The generation prompt and the training text, if the first is not a prefix of the second."""
        prompt = Conversation(tuple(Message(role, f"text {number}") for number, role in enumerate(roles)))
        asked = self._run(prompt, ask=True)
        trained = self._run(prompt.with_turn(Role.ASSISTANT, "reply"), ask=False)
        return None if trained.startswith(asked) else (asked, trained)

    def _run(self, conversation: Conversation, *, ask: bool) -> str:
        program = self._program
        try:
            return program.render(
                messages=conversation.to_messages(),
                tools=None,
                documents=None,
                add_generation_prompt=ask,
                **self.variables,
            )
        except _RENDER_ERRORS as error:
            roles = ", ".join(message.role.value for message in conversation.messages) or "no turns"
            reason = one_line(error)[:_SHOWN]
            raise UsageError(f"the chat template cannot render a conversation of {roles}: {reason}") from error

    @cached_property
    def _program(self) -> jinja2.Template:
        return _environment().from_string(self.source, globals={"strftime_now": self.now.strftime})


def load_template(path: PathLike) -> JinjaTemplate:
    """Load a tokenizer's chat template.

    Args:
        path: the tokenizer's folder, or a .jinja file in it.

    Raises:
        UsageError, FormatError: there is no template, it cannot be used, it needs too much time or memory for a short
            conversation, or a special token that is missing; the message starts with the file.
    """
    path = Path(path)
    if path.is_file() and path.suffix != ".jinja":
        raise UsageError(f"{path}: is not a .jinja file; give the tokenizer's folder")
    folder = path if path.is_dir() else path.parent
    config = _read_config(folder)
    file = path if path.is_file() else folder / "chat_template.jinja"
    if file.is_file():
        source = read_text(file)
    else:
        file = folder / _CONFIG
        source = _source_in(config.get("chat_template"), file)

    def load() -> JinjaTemplate:
        _require_tokens(source, config)
        return JinjaTemplate(source, _variables(config), _all_tokens(config))

    if not trial.is_bounded(load):
        raise UsageError(
            f"{file}: the chat template needs more than {trial.SECONDS} s of CPU time or {trial.MEMORY >> 20} MiB of "
            "memory for conversations of a few words"
        )
    try:
        return load()
    except UsageError as error:
        raise UsageError(f"{file}: {error}") from error
    except jinja2.TemplateSyntaxError as error:
        raise UsageError(f"{file}: line {error.lineno} of the chat template is not Jinja: {error.message}") from error
    except RecursionError as error:
        raise UsageError(f"{file}: the chat template is nested too deep") from error
    except ValueError as error:
        # An integer of thousands of digits.
        raise UsageError(f"{file}: the chat template cannot be read: {error}") from error


def added_tokens(folder: Path) -> dict[int, Mapping[str, Any]]:
    """The added tokens that a tokenizer's configuration lists, by number: `content` and the settings of each.

    Raises:
        FormatError: the list is malformed.
    """
    listed: object = _read_config(folder).get("added_tokens_decoder") or {}
    tokens = cast(dict[str, object], listed) if isinstance(listed, dict) else {"": listed}
    for number, token in tokens.items():
        if not (re.fullmatch("[0-9]{1,9}", number) and isinstance(token, dict) and _content(cast(object, token))):
            raise FormatError.at(folder / _CONFIG, 1, f"added_tokens_decoder: entry {number!r} is not an added token")
    return {int(number): cast(dict[str, Any], tokens[number]) for number in sorted(tokens, key=int)}


def special_token_texts(folder: Path) -> list[str]:
    """The texts of the special tokens that a tokenizer's configuration names."""
    return _special_texts(_read_config(folder))


def _read_config(folder: Path) -> dict[str, Any]:
    """The tokenizer's configuration; {} if there is none."""
    config: dict[str, Any] = {}
    for name in (_CONFIG, _TOKENS_MAP):
        # transformers reads the second file only if the first does not list the tokens.
        if "added_tokens_decoder" in config or not (folder / name).is_file():
            continue
        read: object = read_json(folder / name)
        if not isinstance(read, dict):
            raise FormatError.at(folder / name, 1, "a JSON object is needed")
        config |= cast(dict[str, Any], read)
    return config


def _source_in(given: object, file: Path) -> str:
    """The program in the key ``chat_template``: a string, or a list of named ones."""
    if isinstance(given, str):
        return given
    if isinstance(given, list):
        items = [cast(dict[str, Any], item) for item in cast(list[object], given) if isinstance(item, dict)]
        named = {str(item.get("name")): item.get("template") for item in items}
        if isinstance(default := named.get("default"), str):
            return default
        raise UsageError(
            f"{file}: none of the chat templates {', '.join(named)[:_SHOWN]} is named 'default'; save one as a "
            ".jinja file and give its path"
        )
    raise UsageError(f"{file}: there is no chat template; give the folder of a tokenizer that has one")


def _content(token: object) -> str | None:
    """A special token's text; the configuration has it alone or in a description."""
    if isinstance(token, dict):
        token = cast(dict[str, object], token).get("content")
    return token if isinstance(token, str) else None


def _variables(config: Mapping[str, Any]) -> dict[str, Any]:
    more = config.get("extra_special_tokens")
    extra = cast(dict[str, Any], more) if isinstance(more, dict) else {}
    named = {name: config.get(name) for name in _TOKENS} | extra
    variables: dict[str, Any] = {name: text for name, token in named.items() if (text := _content(token))}
    if listed := _listed(config.get(_MORE_TOKENS)):
        variables[_MORE_TOKENS] = listed
    return variables


def _listed(tokens: object) -> list[str]:
    items = cast(list[object], tokens) if isinstance(tokens, list) else []
    return [text for item in items if (text := _content(item))]


def _special_texts(config: Mapping[str, Any]) -> list[str]:
    variables = _variables(config)
    more = variables.pop(_MORE_TOKENS, [])
    return [*variables.values(), *more]


def _all_tokens(config: Mapping[str, Any]) -> tuple[str, ...]:
    added = config.get("added_tokens_decoder")
    described = cast(dict[str, object], added).values() if isinstance(added, dict) else ()
    special = _listed([token for token in described if _is_special(token)])
    return tuple(sorted(token for token in {*_special_texts(config), *special} if token.strip()))


def _is_special(token: object) -> bool:
    """True for special tokens and strings that look like one; added tokens also include words and runs of spaces."""
    looks = bool(find_special_tokens(_content(token) or ""))
    return looks or (isinstance(token, dict) and bool(cast(dict[str, object], token).get("special")))


def _require_tokens(source: str, config: Mapping[str, Any]) -> None:
    """Raises UsageError if the program uses a special token that the configuration does not define."""
    if config.get("tokenizer_class") == "PreTrainedTokenizerFast":
        return  # this class defines no tokens of its own
    # jinja2.meta would evaluate constants on its way, whatever the environment says.
    names = list(_environment().parse(source).find_all(jinja2.nodes.Name))
    unset = {name.name for name in names if name.ctx == "load"} - {name.name for name in names if name.ctx != "load"}
    for name in (*_TOKENS, _MORE_TOKENS):
        if name in unset and name not in config:
            raise UsageError(f'the chat template uses {name}; add it to {_CONFIG}, as "{name}": null if there is none')


def _environment() -> jinja2.sandbox.ImmutableSandboxedEnvironment:
    # Without the optimizer, and with a `finalize` that needs the context, nothing of the program runs before it is
    # rendered: Jinja ignores all errors of what it evaluates earlier, those of a lack of memory too.
    environment = jinja2.sandbox.ImmutableSandboxedEnvironment(
        trim_blocks=True,
        lstrip_blocks=True,
        extensions=[_Generation, jinja2.ext.loopcontrols],
        optimized=False,
        finalize=_unchanged,
    )
    environment.filters["tojson"] = _to_json
    # The type admits only Jinja's own globals.
    cast(dict[str, Any], environment.globals)["raise_exception"] = _raise_exception
    return environment


@jinja2.pass_context
def _unchanged(context: jinja2.runtime.Context, value: Any) -> Any:
    return value


class _Generation(jinja2.ext.Extension):
    """The tag ``{% generation %}``, which marks trained text for transformers; here its content is rendered as is."""

    tags = {"generation"}  # noqa: RUF012 - the type of the base class

    def parse(self, parser: jinja2.parser.Parser) -> jinja2.nodes.Node:
        line = next(parser.stream).lineno
        body = parser.parse_statements(("name:endgeneration",), drop_needle=True)
        return jinja2.nodes.Scope(body, lineno=line)


def _shown(text: str) -> str:
    return repr(text if len(text) <= _SHOWN else f"{text[: _SHOWN // 2]}...{text[-_SHOWN // 2 :]}")


def _raise_exception(message: str) -> NoReturn:
    raise jinja2.TemplateError(message)


def _to_json(
    value: Any,
    ensure_ascii: bool = False,
    indent: int | None = None,
    separators: tuple[str, str] | None = None,
    sort_keys: bool = False,
) -> str:
    # Jinja's own filter writes HTML.
    return json.dumps(value, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys)
