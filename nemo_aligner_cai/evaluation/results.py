# SPDX-FileCopyrightText: Copyright (c) 2026, The nemo_aligner_cai authors
# SPDX-License-Identifier: Apache-2.0
"""The schema of `evaluation.json`, the result of `cai evaluate`.

Input:  evaluation.json
Output: Evaluation(models=(ModelFacts("sl_cai", ...),), sets=(...), results=(...), differences=(...), ...)

All rates and probabilities are shares in [0, 1]. All intervals cover 95 %. The file has no time stamps, so that a
resumed run gives the same bytes; times are in the manifest. An example is in ``docs/evaluation.rst``.
"""

from dataclasses import asdict
from pathlib import Path
from typing import Any, Literal

from pydantic import ValidationError, model_validator

from nemo_aligner_cai.errors import UsageError
from nemo_aligner_cai.evaluation.statistics.rates import Rate
from nemo_aligner_cai.files import PathLike, read_json
from nemo_aligner_cai.sections import Section, first_problem
from nemo_aligner_cai.stages.manifest import is_unfinished

SCHEMA_VERSION = 1
RESULT_FILE = "evaluation.json"
MANIFEST_FILE = "evaluation_manifest.json"

Side = Literal["harmful", "benign"]
"""Side of a prompt: complying with a harmful one and refusing a benign one are both failures."""
MetricName = Literal["harmful_compliance", "helpfulness", "over_refusal", "evasion", "refusal", "harm_score"]
"""`harmful_compliance`: share of replies to harmful prompts that help. `refusal`: share of them that refuse.
`helpfulness`: share of replies to benign prompts that help. `over_refusal`: share of them that refuse. `evasion`:
share of replies, of either side, that are empty, deflect, or refuse without a reason. `harm_score`: mean of a score in
[0, 1], for graders with scores."""


class Figure(Section):
    """A share, or a mean of values in [0, 1], with its interval; `n` is the number of independent prompts."""

    value: float
    low: float
    high: float
    n: int

    @classmethod
    def of(cls, rate: Rate) -> "Figure":
        """Return a rate as it is written."""
        return cls(**asdict(rate))

    @property
    def rate(self) -> Rate:
        """The rate that was written."""
        return Rate(self.value, self.low, self.high, self.n)


class Bounds(Section):
    """The value if every unscored reply were a success, and if every one were a failure."""

    low: float
    high: float


class RunFacts(Section):
    """Settings that determine the result."""

    seed: int
    baseline: str | None
    sampling: dict[str, Any]
    settings: dict[str, Any]
    version: str


class SavedFacts(Section):
    """The rows of a file of saved completions.

    Attributes:
        used: completions of the sets' prompts.
        other_prompts: completions of prompts that are in no set; not used.
        other_models: completions of other models, or of no named model in a file that names several; not used.
    """

    used: int
    other_prompts: int
    other_models: int


class ModelFacts(Section):
    """An evaluated model.

    Attributes:
        identity: what tells it from another model: the part of its journal keys, or the hash of saved completions.
        completions: its replies, with those that failed.
        empty: replies without a word.
        failed: prompts without a reply, because the call failed.
        cut: replies cut at the token limit.
        saved: the counts of its saved completions; None for a model that was asked.
    """

    name: str
    kind: Literal["endpoint", "nemo_server", "nemo_file", "hf_folder", "completions"]
    source: str
    identity: dict[str, Any]
    completions: int
    empty: int
    failed: int
    cut: int
    saved: SavedFacts | None = None


class SetFacts(Section):
    """A prompt set. `rows` = `harmful` + `benign` + the sum of `skipped`."""

    name: str
    file: str
    sha256: str
    format: str
    rows: int
    harmful: int
    benign: int
    skipped: dict[str, int]


class GraderFacts(Section):
    """A grader: where its prompt is from, the model that it asked, and how often it gave no grade.

    Attributes:
        sha256: hash of its definition: prompt, classes and all other keys.
        parser: "strings" (no model), "options" (log-probabilities, or the text if the server has none) or "text".
        classes: its classes, in order.
        complies: those that count as compliance.
        refuses: those that count as refusal.
        evades: those that count as evasion, in addition to empty replies.
        scored: its grades have scores.
        model: the identity of the model that it asked; None without one.
        same_as: the name of the evaluated model that is the same model, if the user allowed it.
        graded: replies that were given to the grader.
        unscored: those without a grade, because the grader's reply could not be parsed or its call failed.
        failure_rate: unscored / graded; 0 if nothing was graded.
        by_logprobs: grades from log-probabilities.
        by_text: grades from the text of the grader's reply.
    """

    name: str
    source: str
    license: str
    sha256: str
    parser: Literal["strings", "options", "text"]
    classes: tuple[str, ...]
    complies: tuple[str, ...]
    refuses: tuple[str, ...]
    evades: tuple[str, ...]
    scored: bool
    model: dict[str, Any] | None
    same_as: str | None
    graded: int
    unscored: int
    failure_rate: float
    by_logprobs: int
    by_text: int


class Metric(Section):
    """One metric. `bounds` is set if more than 1 % of the replies are unscored."""

    name: MetricName
    rate: Figure
    bounds: Bounds | None


class Result(Section):
    """The grades of one grader for one model on one side of one set.

    `classes` has all classes of the grader, including those with 0 replies; their sum + `unscored` = `replies`.
    """

    model: str
    set: str
    side: Side
    grader: str
    replies: int
    unscored: int
    classes: dict[str, int]
    metrics: tuple[Metric, ...]


class Difference(Section):
    """A model's metric minus the baseline's, on the prompts that both have a grade for.

    Attributes:
        value: mean difference; `low`, `high`: t interval clustered by prompt (None with fewer than two prompts).
        n: prompts in common.
        p: p-value of exact McNemar's test for rates, of the t test for scores.
        p_holm: `p` corrected by Holm's method for the models that are compared with the baseline.
        detectable: the smallest true difference that this run would have seen with a power of 80 %.
    """

    model: str
    baseline: str
    set: str
    side: Side
    grader: str
    metric: MetricName
    value: float
    low: float | None
    high: float | None
    n: int
    p: float | None
    p_holm: float | None
    detectable: float | None


class Match(Section):
    """Pairwise comparisons of two models: a win counts 1, a tie or a disagreement of the orders 1/2.

    `wins` + `ties` + `losses` + `unscored` is the number of prompts; equal replies are ties and are not judged.
    """

    model: str
    opponent: str
    win_rate: Figure | None
    wins: int
    ties: int
    losses: int
    unscored: int
    flips: int


class Rating(Section):
    """A model's Bradley-Terry rating in logits, relative to the zero of its comparisons.

    `bound` is set for a model that never loses ("lower") or never wins ("upper"): its rating is unlimited, and the
    interval has only that end.
    """

    model: str
    rating: float | None
    low: float | None
    high: float | None
    bound: Literal["lower", "upper"] | None


class Pairwise(Section):
    """The pairwise comparisons of one side of one set by one judge.

    `zero` is the model whose rating is 0; None if the mean of the finite ratings is.
    """

    set: str
    side: Side
    judge: str
    judge_model: dict[str, Any]
    matches: tuple[Match, ...]
    ratings: tuple[Rating, ...]
    zero: str | None


class Corrected(Section):
    """A rate corrected by the grader's sensitivity and specificity (Rogan-Gladen), with its interval.

    `corrected` is None if the rate cannot be corrected: the grader is not better than chance, or the rate contradicts
    its errors.
    """

    model: str
    set: str
    side: Side
    metric: MetricName
    observed: float
    corrected: float | None
    low: float | None
    high: float | None


class GoldAgreement(Section):
    """A grader compared with human labels, for one metric's yes/no decision.

    Attributes:
        labels: rows of the label file that have a graded reply.
        without_reply: rows without one, which are ignored.
        agreement: share of equal decisions; all intervals are clustered by prompt.
        kappa: Cohen's kappa, with `kappa_low` and `kappa_high`; None if all labels are the same.
        sensitivity: share of the labeled positives that the grader finds; None unless there are both labels.
        specificity: share of the labeled negatives that the grader finds.
        corrected: the rates of all models, corrected by the errors on these labels; () without sensitivity and
            specificity.
    """

    grader: str
    metric: MetricName
    file: str
    labels: int
    without_reply: int
    agreement: Figure
    kappa: float | None
    kappa_low: float | None
    kappa_high: float | None
    sensitivity: Figure | None
    specificity: Figure | None
    corrected: tuple[Corrected, ...]


class ResultFiles(Section):
    """Names of the other files, relative to evaluation.json; None for a file that this run does not have.

    `logs` has a log for inspect_ai of each model.
    """

    completions: str
    grades: str
    comparisons: str | None
    logs: dict[str, str]


class Evaluation(Section):
    """The result of one `cai evaluate`."""

    schema_version: Literal[1] = SCHEMA_VERSION
    run: RunFacts
    models: tuple[ModelFacts, ...]
    sets: tuple[SetFacts, ...]
    graders: tuple[GraderFacts, ...]
    results: tuple[Result, ...]
    differences: tuple[Difference, ...] = ()
    pairwise: tuple[Pairwise, ...] = ()
    gold: tuple[GoldAgreement, ...] = ()
    files: ResultFiles

    @model_validator(mode="after")
    def _check_names(self) -> "Evaluation":
        """Figures name only models, sets and graders that the file describes."""
        models = {one.name for one in self.models}
        known = dict.fromkeys(("model", "baseline", "opponent"), models)
        known |= {"set": {one.name for one in self.sets}, "grader": {one.name for one in self.graders}}
        pairs = (one for group in self.pairwise for one in (*group.matches, *group.ratings))
        for figure in (*self.results, *self.differences, *self.pairwise, *pairs, *self.gold):
            for key, names in known.items():
                if (name := getattr(figure, key, None)) is not None and name not in names:
                    raise ValueError(f"a figure has the {key} {name!r}; the file has {', '.join(sorted(names))}")
        return self


def read_evaluation(path: PathLike) -> Evaluation:
    """Read an evaluation.json, given the file or its folder.

    Raises:
        UsageError: the file cannot be read, does not match the schema, or may not belong to the other files of its
            folder, since the evaluation was interrupted.
    """
    path = Path(path)
    if path.is_dir():
        path = path / RESULT_FILE
    if is_unfinished(path.with_name(MANIFEST_FILE)):
        raise UsageError(
            f"{path.parent}: the last evaluation in this folder was interrupted, so its files may not belong "
            "together; run the same command again with --resume"
        )
    try:
        return Evaluation.model_validate(read_json(path))
    except ValidationError as error:
        raise UsageError(f"{path}: not an evaluation of this version: {first_problem(error)}") from error
