# SPDX-FileCopyrightText: Copyright (c) 2026, The nemo_aligner_cai authors
# SPDX-License-Identifier: Apache-2.0
"""A model's graded replies as a log of inspect_ai, for its viewer and its data frames.

Input:  rows of `samples.SamplePipeline.to_row`, of one model
Output: NAME.eval, a zip of JSON: header.json, summaries.json, samples/SET.ID_epoch_1.json, _journal/...

A sample is a reply: its messages, one score for each grader, and the prompt's set, side and category as metadata. An
unscored reply has the value NaN, as in inspect_ai 0.3.285. All times are 1980-01-01, the first one that a zip can
hold: equal evaluations give equal bytes.
"""

import json
import math
import zipfile
from collections.abc import Iterable, Mapping
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from nemo_aligner_cai.evaluation.results import Evaluation, Result
from nemo_aligner_cai.files import Row, atomic_writer, content_hash

_LOG_VERSION = 2
_STAMP = (1980, 1, 1, 0, 0, 0)
_CREATED = datetime(*_STAMP, tzinfo=timezone.utc).isoformat()
_SUMMARY_CHARS = 1000
"""Length of texts in summaries, which inspect_ai shortens too."""


def write_eval_log(path: Path, evaluation: Evaluation, model: str, rows: Iterable[Row]) -> None:
    """Write the log of one model, atomically; an existing file is replaced.

    Args:
        path: the file.
        evaluation: the figures, for the header.
        model: the model's name.
        rows: its graded replies.
    """
    summaries: list[dict[str, Any]] = []
    with atomic_writer(path, overwrite=True) as handle, zipfile.ZipFile(handle, "w", zipfile.ZIP_DEFLATED) as log:
        for row in rows:
            sample = _sample(row, model)
            _add(log, f"samples/{sample['id']}_epoch_{sample['epoch']}.json", sample)
            summaries.append(_summary(sample))
        header = _header(evaluation, model, summaries)
        _add(log, "_journal/start.json", {key: header[key] for key in ("version", "eval", "plan")})
        _add(log, "_journal/summaries/1.json", summaries)
        _add(log, "summaries.json", summaries)
        _add(log, "header.json", header)


def _add(log: zipfile.ZipFile, name: str, content: object) -> None:
    # Python's encoder writes NaN, which inspect_ai reads; a strict one has no number for an unscored reply.
    text = json.dumps(content, ensure_ascii=False, separators=(",", ":"))
    log.writestr(zipfile.ZipInfo(name, _STAMP), text.encode(), zipfile.ZIP_DEFLATED)


def _sample(row: Row, model: str) -> dict[str, Any]:
    reply = row["reply"]
    answer = {"role": "assistant", "content": reply or "", "source": "generate", "model": model}
    choices = [{"message": answer, "stop_reason": "max_tokens" if row["finish_reason"] == "length" else "stop"}]
    return {
        "id": f"{row['set']}.{row['id']}",
        "epoch": row["sample"] + 1,
        "input": row["messages"],
        "target": row["side"],
        "messages": row["messages"] if reply is None else [*row["messages"], answer],
        "output": {"model": model, "choices": [] if reply is None else choices},
        "scores": {grade["grader"]: _score(grade) for grade in row["grades"]},
        "metadata": {key: row[key] for key in ("set", "side", "key", "category", "finish_reason")},
        "store": {},
        "events": [],
        "model_usage": {},
        "attachments": {},
    }


def _score(grade: Mapping[str, Any]) -> dict[str, Any]:
    score = {"value": math.nan if grade["label"] is None else grade["label"], "explanation": grade["raw"]}
    facts = {key: grade[key] for key in ("score", "by", "probability")}
    return {**score, "answer": grade["label"], "metadata": facts, "history": []}


def _summary(sample: Mapping[str, Any]) -> dict[str, Any]:
    scores = {
        name: {**score, "explanation": score["explanation"][:_SUMMARY_CHARS]}
        for name, score in sample["scores"].items()
    }
    shown = [{**message, "content": message["content"][:_SUMMARY_CHARS]} for message in sample["input"]]
    kept = {key: sample[key] for key in ("id", "epoch", "target", "metadata", "model_usage")}
    return {**kept, "input": shown, "scores": scores, "completed": True}


def _header(evaluation: Evaluation, model: str, summaries: list[dict[str, Any]]) -> dict[str, Any]:
    samples = [summary["id"] for summary in summaries]
    run = content_hash([evaluation.run.model_dump(mode="json"), [one.sha256 for one in evaluation.sets], model])
    epochs = max((summary["epoch"] for summary in summaries), default=1)
    return {
        "version": _LOG_VERSION,
        "status": "success",
        "eval": {
            "eval_id": run,
            "run_id": run,
            "created": _CREATED,
            "task": "cai evaluate",
            "task_id": run,
            "task_version": 0,
            "task_args": evaluation.run.settings,
            "dataset": {
                "name": ", ".join(one.name for one in evaluation.sets),
                "samples": len(set(samples)),
                "sample_ids": list(dict.fromkeys(samples)),
            },
            "model": model,
            "config": {"epochs": epochs},
            "packages": {"nemo_aligner_cai": evaluation.run.version},
            "metadata": {"seed": evaluation.run.seed, "baseline": evaluation.run.baseline},
        },
        "plan": {"name": "plan", "steps": [], "config": {}},
        "results": {
            "total_samples": len(samples),
            "completed_samples": len(samples),
            "scores": [_scores(result) for result in evaluation.results if result.model == model],
        },
        "stats": {"started_at": _CREATED, "completed_at": _CREATED, "model_usage": {}},
    }


def _scores(result: Result) -> dict[str, Any]:
    return {
        "name": f"{result.set} {result.side}",
        "scorer": result.grader,
        "scored_samples": result.replies - result.unscored,
        "unscored_samples": result.unscored,
        "params": {},
        "metrics": {
            metric.name: {
                "name": metric.name,
                "value": metric.rate.value,
                "params": {},
                "metadata": metric.rate.model_dump(mode="json"),
            }
            for metric in result.metrics
        },
    }
