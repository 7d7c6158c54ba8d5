# SPDX-FileCopyrightText: Copyright (c) 2026, The nemo_aligner_cai authors
# SPDX-License-Identifier: Apache-2.0
"""Saved completions of a model, given in place of the model.

Input:  {"model": "sl_cai", "set": "xstest", "id": "9f86...", "messages": [...], "reply": "No, because ..."}   ours
        {"messages": [...], "reply": "..."}                  the replies of a run's last step
        prompt,completion                                    XSTest's completions
        [{"instruction": "...", "output": "...", "generator": "..."}]          AlpacaEval's
        {"BEHAVIOR_ID": [{"test_case": "...", "generation": "..."}]}           HarmBench's
Output: Saved(text="No, because ...", finish_reason="stop") by prompt

A completion belongs to the prompt with the same text, or with the same id of HarmBench. Every prompt must have one:
a comparison over the prompts that happen to be in a file would hide the others. A completion that is null is one whose
call failed; an empty cell of a CSV is an empty reply, since CSV has no null.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path
from typing import Any, cast

from nemo_aligner_cai.chat import Conversation
from nemo_aligner_cai.data.formats import row_values
from nemo_aligner_cai.errors import FormatError, UsageError
from nemo_aligner_cai.evaluation.replies.prompt_sets import EvalPrompt
from nemo_aligner_cai.evaluation.results import SavedFacts
from nemo_aligner_cai.files import PathLike, Row, content_hash, read_unique_json, require_file, sha256_file
from nemo_aligner_cai.files.reading import is_json_list
from nemo_aligner_cai.files.sources import is_csv, read_rows

FAILED = "failed"
"""Finish reason of a reply whose call failed."""
_SHOWN = 3
"""Missing prompts that the error names."""


@dataclass(frozen=True)
class Saved:
    """One completion. `text` is "" for an empty reply."""

    text: str
    finish_reason: str = "stop"


@dataclass
class SavedCompletions:
    """The completions of a file and its hash: by the hash of the prompt's messages, and by HarmBench's ids.

    `other_models` counts the completions that are not of this model.
    """

    path: Path
    sha256: str
    by_prompt: dict[str, list[Saved]] = field(default_factory=dict[str, list[Saved]])
    by_key: dict[str, list[Saved]] = field(default_factory=dict[str, list[Saved]])
    other_models: int = 0

    def of(self, prompt: EvalPrompt) -> Sequence[Saved]:
        """Return the prompt's completions; [] if there is none."""
        return self.by_key.get(prompt.key, ()) if self.by_key else self.by_prompt.get(prompt.id, ())

    def facts(self, prompts: Sequence[EvalPrompt]) -> SavedFacts:
        """Count the completions by their use for these prompts."""
        asked = {prompt.key if self.by_key else prompt.id for prompt in prompts}
        found = self.by_key or self.by_prompt
        used = sum(len(items) for key, items in found.items() if key in asked)
        other = sum(map(len, found.values())) - used
        return SavedFacts(used=used, other_prompts=other, other_models=self.other_models)

    def require(self, prompts: Sequence[EvalPrompt], *, max_dropped: float) -> None:
        """Raises UsageError if a prompt has no completion, or more than this share of them are of failed calls."""
        missing = [prompt for prompt in prompts if not self.of(prompt)]
        if missing:
            shown = ", ".join(repr(prompt.text[:60]) for prompt in missing[:_SHOWN])
            raise UsageError(
                f"{self.path}: has no completion for {len(missing)} of {len(prompts)} prompts, such as {shown}; give "
                "the prompt set that the completions were made for"
            )
        found = [one for prompt in prompts for one in self.of(prompt)]
        failed = sum(one.finish_reason == FAILED for one in found)
        if failed > Fraction(str(max_dropped)) * len(found):
            raise UsageError(
                f"{self.path}: {failed} of {len(found)} replies are missing, since their calls failed, more than "
                f"--max-dropped {max_dropped:g} allows; make them with the command that wrote the file, and --resume"
            )


def read_saved_completions(path: PathLike, *, model: str) -> SavedCompletions:
    """Read the completions of one model.

    Args:
        path: the file.
        model: the model's name, which selects the rows if the file names models.

    Raises:
        UsageError: the file cannot be read, or names several models but not this one.
        FormatError: a row has none of the known shapes.
    """
    path = require_file(path)
    saved = SavedCompletions(path, sha256_file(path))
    if path.name.endswith(".json") and not is_json_list(path):
        for key, items in _harmbench(path):
            saved.by_key.setdefault(key, []).extend(items)
        return saved
    # CSV has no null.
    null = Saved("") if is_csv(path) else Saved("", FAILED)
    models: dict[str, int] = {}
    rows: list[tuple[str, str, Saved]] = []
    for line, row in read_rows(path):
        try:
            name, conversation, completion = _read(row, null)
        except UsageError as error:
            raise FormatError.at(path, line, str(error)) from error
        models[name] = models.get(name, 0) + 1
        rows.append((name, content_hash(conversation.to_messages()), completion))
    if len(models) > 1 and model not in models:
        names = ", ".join(filter(None, models))
        raise UsageError(f"{path}: has completions of {names}; use one of these names, not {model!r}")
    for name, prompt, completion in rows:
        if len(models) == 1 or name == model:
            saved.by_prompt.setdefault(prompt, []).append(completion)
        else:
            saved.other_models += 1
    return saved


def _read(row: Row, null: Saved) -> tuple[str, Conversation, Saved]:
    """Return the model's name ("" without one), the prompt and the completion, `null` for one that is null."""
    if "reply" in row and "messages" in row:
        reason = row_values.optional_text(row, "finish_reason") or "stop"
        saved = null if row["reply"] is None else Saved(row_values.text(row, "reply"), reason)
        return str(row.get("model") or ""), row_values.messages(row, "messages"), saved
    for prompt, completion, model in (("prompt", "completion", None), ("instruction", "output", "generator")):
        if prompt in row and completion in row:
            saved = null if row[completion] is None else Saved(row_values.text(row, completion))
            name = str(row.get(model) or "") if model else ""
            return name, Conversation.of_user(row_values.text(row, prompt).strip()), saved
    raise UsageError(
        "not a completion: needs 'messages' and 'reply', 'prompt' and 'completion', or 'instruction' and 'output'"
    )


def _harmbench(path: Path) -> Iterator[tuple[str, list[Saved]]]:
    content: Any = read_unique_json(path)
    if not isinstance(content, dict):
        raise FormatError(f"{path}: a JSON object of behaviors, or a list of completions, is needed")
    for key, items in cast(Mapping[str, Any], content).items():
        if not isinstance(items, list):
            raise FormatError(f"{path}: {key}: a list of generations is needed")
        generations: list[Saved] = []
        for item in cast(list[Any], items):
            if not isinstance(item, dict) or not isinstance(cast(Row, item).get("generation"), str):
                raise FormatError(f"{path}: {key}: each item needs a text 'generation'")
            generations.append(Saved(cast(Row, item)["generation"]))
        yield key, generations
