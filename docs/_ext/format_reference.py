# SPDX-FileCopyrightText: Copyright (c) 2026, The nemo_aligner_cai authors
# SPDX-License-Identifier: Apache-2.0
"""The directive ``formats``: every data format of the registry, with rows that it writes, or the keys that it reads.

Input:  .. formats::
Output: a section for each format: what it is, what a record of it is, the file type, and an example
"""

import json
from collections.abc import Iterator, Mapping

from docutils import nodes
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxDirective
from sphinx.util.typing import ExtensionMetadata

from nemo_aligner_cai.chat import NEMO_CHAT, Conversation, Role
from nemo_aligner_cai.data.formats.all_formats import FORMATS
from nemo_aligner_cai.data.formats.base import Format
from nemo_aligner_cai.data.records import Chat, Comparison, PromptOnly, Rated, Record, Scored

_GOOD, _BAD = "I won't help to break in. Locked out?", "With a tension wrench."
_PROMPT = Conversation.of_user("How do I pick the lock of a shop?")
_CHAT = _PROMPT.with_turn(Role.ASSISTANT, _GOOD)
_EXAMPLES: Mapping[type, tuple[str, Record]] = {
    Chat: ("conversations", Chat(_CHAT)),
    Comparison: ("pairs of replies", Comparison(_PROMPT, _GOOD, _BAD)),
    PromptOnly: ("prompts", PromptOnly(_PROMPT)),
    Rated: ("replies, good or bad", Rated(_PROMPT, _GOOD, True)),
    Scored: ("replies with scores", Scored(_CHAT, (-100.0, -100.0, -100.0, -100.0, 4.0, 4.0, 4.0, 2.0, 2.0))),
}


class Formats(SphinxDirective):
    """Inserts the reference of all formats."""

    def run(self) -> list[nodes.Node]:
        """Parse the generated text in place of the directive."""
        writable = [one for one in FORMATS.values() if not one.read_only]
        others = [one for one in FORMATS.values() if one.read_only]
        lines = [*_titled("Read and written", "-"), *(line for one in writable for line in _section(one))]
        lines += [*_titled("Only read", "-"), *(line for one in others for line in _section(one))]
        return self.parse_text_to_nodes("\n".join(lines), allow_section_headings=True)


def _titled(title: str, mark: str) -> list[str]:
    return [title, mark * len(title), ""]


def _section(one: Format) -> Iterator[str]:
    kind, record = _EXAMPLES.get(one.kind, ("the raw rows of a stage", None))
    yield from _titled(one.name, "~")
    what = one.description[0].upper() + one.description[1:]
    yield from (f"{what}. Records are {kind}; the file is ``{one.suffix}``.", "")
    if record is None or one.read_only:
        keys = one.required_keys or one.keys
        yield from ((f"Recognized by {', '.join(f'``{key}``' for key in sorted(keys))}.", "") if keys else ())
        return
    yield from (".. code-block:: json", "")
    yield from (f"   {json.dumps(row, ensure_ascii=False)}" for row in one.write(record, NEMO_CHAT))
    yield ""


def setup(app: Sphinx) -> ExtensionMetadata:
    """Register the directive."""
    app.add_directive("formats", Formats)
    return {"version": "1", "parallel_read_safe": True}
