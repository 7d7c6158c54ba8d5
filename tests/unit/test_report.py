# SPDX-FileCopyrightText: Copyright (c) 2026, The nemo_aligner_cai authors
# SPDX-License-Identifier: Apache-2.0
"""`cai report`: what the page says of a run, finished or not, and that nothing in it acts."""

from __future__ import annotations

import base64
import gzip
import hashlib
import json
import re
import shutil
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from benchmarks.made_run import MODELS, STEPS, Sizes, make_run
from nemo_aligner_cai.cli import main
from nemo_aligner_cai.console.printable import with_symbols
from nemo_aligner_cai.errors import UsageError
from nemo_aligner_cai.files import read_json, read_jsonl, write_json, write_jsonl
from nemo_aligner_cai.pipeline.config import closed_values
from nemo_aligner_cai.report.report import refresh_report, report_html
from nemo_aligner_cai.report.run_folder import RunFolder
from nemo_aligner_cai.report.sections.cost import settings_rows

HOSTILE = (
    "<script>document.title='owned'</script>",
    '<img src=x onerror="document.title=1">',
    "javascript:document.title=1",
    "</script><script type=module>document.title=1</script>",
    "\u202egnp.exe\u202c and \u2066hidden\u2069",
    "\x1b]0;owned\x07\x1b[2J",
    "{{ 7 * 7 }} {% raw %}",
    "a" * 1_000_000,
)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_run(tmp_path_factory.mktemp("made") / "run", Sizes())


@pytest.fixture(scope="module")
def page(run: Path) -> str:
    return report_html(RunFolder(run))


class Page(HTMLParser):
    """The elements of a page."""

    def __init__(self, html: str) -> None:
        super().__init__(convert_charrefs=True)
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.blocks: dict[str, str] = {}
        self.sources: dict[str, list[str]] = {"script": [], "style": []}
        self._open: tuple[str, dict[str, str | None]] = ("", {})
        self.text = ""
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self._open = (tag, dict(attrs))
        self.tags.append(self._open)

    def handle_data(self, data: str) -> None:
        tag, attributes = self._open
        if tag == "script" and attributes.get("type"):
            self.blocks[str(attributes["id"])] = self.blocks.get(str(attributes["id"]), "") + data
        elif tag in self.sources and data.strip():
            self.sources[tag].append(data)
        else:
            self.text += data

    def handle_endtag(self, tag: str) -> None:
        if tag in ("script", "style"):
            self._open = ("", {})

    def unpacked(self, name: str) -> Any:
        return json.loads(gzip.decompress(base64.b64decode(self.blocks[name])))

    def chains(self) -> list[list[dict[str, Any]]]:
        names = [name for name in self.blocks if name.startswith("block-")]
        return [chain["parts"] for name in names for chain in self.unpacked(name)]


def test_every_chain_is_in_the_page_with_its_texts(run: Path, page: str) -> None:
    shown = Page(page)
    index, chains = shown.unpacked("index"), shown.chains()
    assert len(index["ids"]) == len(chains) == 8 + 8 + 8 + 2
    by_id = dict(zip(index["ids"], chains, strict=True))
    for _, row in read_jsonl(run / "2_sl_cai" / "revisions.jsonl"):
        texts = [part["text"] for part in by_id[row["id"]] if part["type"] == "text"]
        rounds = row["rounds"][0]
        wanted = [row["prompt"][0]["content"], row["response"], rounds["critique"], rounds["revision"]]
        assert [text for text in texts if text in wanted] == wanted
    for _, row in read_jsonl(run / "4_rl_cai" / "comparisons.jsonl"):
        texts = [part.get("text") for part in by_id[row["id"]]]
        assert all(candidate["text"] in texts for candidate in row["candidates"])


def test_texts_that_may_do_harm_are_folded(run: Path, page: str) -> None:
    shown = Page(page)
    folded = {
        part["text"] for chain in shown.chains() for part in chain if part["type"] == "text" and part.get("fold")
    }
    opened = {part["text"] for chain in shown.chains() for part in chain if part["type"] == "text"} - folded
    for _, row in read_jsonl(run / "2_sl_cai" / "revisions.jsonl"):
        assert row["response"] in folded
        assert (row["revision"] in opened) == (row["revision"] != row["response"])
    for model in MODELS:
        for _, row in read_jsonl(run / "7_measure" / f"{model}_sampled.jsonl"):
            assert (row["reply"] in folded) == (row["outcome"] == "complies")


def test_it_has_the_figures_of_the_run(page: str) -> None:
    text = " ".join(Page(page).text.split())
    for title in ("Harm against help", "Rows and why they were dropped", "Principle by principle", "Training"):
        assert title in text
    assert "seed 1" in text and "complete" in text
    assert "87.5 %" in text  # the reward model's accuracy
    assert "empty revision" in text
    assert page.count("<svg") >= 8
    # 16 verdicts prefer the first text in 8 pairs: of five pairs one is decided by its order.
    assert "order decides" in text


def test_the_policy_allows_the_script_and_the_style_and_nothing_else(page: str) -> None:
    shown = Page(page)
    policy = next(dict(attrs)["content"] for tag, attrs in shown.tags if tag == "meta" and "http-equiv" in attrs)
    assert policy is not None and policy.startswith("default-src 'none';")
    for name in ("script", "style"):
        (source,) = shown.sources[name]
        digest = base64.b64encode(hashlib.sha256(source.encode()).digest()).decode()
        assert re.search(rf"{name}-src 'sha256-{re.escape(digest)}';", policy)
    assert not [attrs for _, attrs in shown.tags for name in attrs if name.startswith("on") or name == "style"]
    sources = [attrs.get("src") or attrs.get("href") for _, attrs in shown.tags]
    assert all(source.startswith(("#", "data:image/svg")) for source in sources if source)


def test_hostile_texts_are_text(tmp_path: Path) -> None:
    folder = make_run(tmp_path / "<b>run", Sizes(revisions=len(HOSTILE)), extra=[t for t in HOSTILE for _ in "12"])
    html = report_html(RunFolder(folder))
    shown = Page(html)
    assert "<b>run" not in html and "&lt;b&gt;run" in html
    assert len(shown.sources["script"]) == 1
    texts = [part["text"] for chain in shown.chains() for part in chain if part["type"] == "text"]
    joined = "\n".join(texts)
    assert "<script>document.title='owned'</script>" in joined, "it is in the data, as text"
    assert "{{ 7 * 7 }} {% raw %}" in joined
    assert "\u241b]0;owned\u2407" in joined and "\u27ea202E\u27eb" in joined
    assert max(map(len, texts)) >= 1_000_000
    for character in ("\x1b", "\x07", "\u202e", "\u2066"):
        assert character not in html and character not in joined


@pytest.mark.parametrize(
    ("done", "begun", "sections"),
    [
        ((), ("1_data",), 0),
        (STEPS[:1], ("2_sl_cai",), 0),
        (STEPS[:3], (), 10),
        (STEPS[:5], ("6_ppo",), 18),
    ],
)
def test_an_unfinished_run_says_what_is_missing(
    tmp_path: Path, done: tuple[str, ...], begun: tuple[str, ...], sections: int
) -> None:
    folder = make_run(tmp_path / "run", Sizes(), steps=done, begun=begun)
    shown = Page(report_html(RunFolder(folder)))
    text = " ".join(shown.text.split())
    assert f"{len(done)} of 7 steps" in text
    for step in STEPS:
        assert (f"Step {step}: was begun" in text) == (step in begun)
        assert (f"Step {step}: has not" in text) == (step not in (*done, *begun))
    assert "No model has been measured yet" in text
    assert len(shown.chains()) == sections
    assert ("No trainer has logged a step yet" in text) == (len(done) < 3)


def test_training_curves_of_an_unfinished_trainer_are_shown(tmp_path: Path) -> None:
    folder = make_run(tmp_path / "run", Sizes(), steps=STEPS[:5], begun=("6_ppo",))
    assert "Reward against KL (6_ppo)" in report_html(RunFolder(folder))


def test_dpo_in_place_of_ppo(tmp_path: Path) -> None:
    steps = ("1_data", "2_sl_cai", "3_sft", "4_rl_cai", "5_dpo", "7_measure")
    text = Page(report_html(RunFolder(make_run(tmp_path / "run", Sizes(), steps=steps, planned=steps)))).text
    assert (
        "Loss (5_dpo)" in text
        and "complete" in text
        and "ppo"
        not in text.replace("ppo.actor", "")
        .lower()
        .replace("trainer.ppo.max_steps=30", "")
        .replace("in ppo a reward", "")
    )


def test_a_run_without_run_json_has_a_report(tmp_path: Path) -> None:
    folder = make_run(tmp_path / "run", Sizes())
    (folder / "run.json").unlink()
    assert "its settings are not known" in report_html(RunFolder(folder))


def test_an_evaluation_is_shown_and_compared(run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = Path(shutil.copytree(run, tmp_path / "run"))
    asked = [{"id": str(n), "prompt": f"Question {n} ?", "type": "homonyms", "label": "safe"} for n in range(20)]
    write_jsonl(tmp_path / "xstest.jsonl", asked)
    for model, refused in (("sl_cai", 15), ("rl_cai", 5)):
        replies = (
            {"prompt": row["prompt"], "completion": "I'm sorry, but no." if n < refused else f"Sure, {n}."}
            for n, row in enumerate(asked)
        )
        write_jsonl(tmp_path / f"{model}.jsonl", replies)
    models = [f"--model={name}={tmp_path / name}.jsonl" for name in ("sl_cai", "rl_cai")]
    given = [f"--set=xstest={tmp_path / 'xstest.jsonl'}", "--grader=xstest-strings", "--baseline=sl_cai"]
    assert main(["evaluate", *models, *given, f"--output={folder / 'evaluation'}"]) == 0
    html = report_html(RunFolder(folder))
    text = " ".join(Page(html).text.split())
    assert "xstest, graded by xstest-strings" in text and "75.0 % (" in text and "25.0 % (" in text
    chains = [chain for chain in Page(html).chains() if "Question 3 ?" in [part.get("text") for part in chain]]
    assert [part.get("badges") for part in chains[0][1:]] == [
        ["xstest-strings: full refusal"],
        ["xstest-strings: full refusal"],
    ]
    capsys.readouterr()
    limit = "over_refusal>20"
    assert main(["compare", str(folder), str(folder), "--format=json", f"--fail-if={limit}"]) == 1
    printed = capsys.readouterr()
    found = [one for one in json.loads(printed.out)["results"] if one["metric"] == "over_refusal"]
    evaluated = [(one["model"], one["a"], one["difference"]["prompts"]) for one in found if "xstest" in one["group"]]
    assert evaluated == [("sl_cai", 0.75, 20), ("rl_cai", 0.25, 20)]
    assert "25.0 % for RL-CAI (xstest" in printed.err


def test_an_evaluation_alone_has_a_report(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_jsonl(tmp_path / "own.jsonl", [{"prompt": "Question ?", "side": "harmful"}])
    write_jsonl(tmp_path / "replies.jsonl", [{"prompt": "Question ?", "completion": "Sure."}])
    given = [
        f"--set=own={tmp_path / 'own.jsonl'}",
        "--grader=xstest-strings",
        f"--model=m={tmp_path / 'replies.jsonl'}",
    ]
    assert main(["evaluate", *given, f"--output={tmp_path / 'out'}"]) == 0
    assert main(["report", str(tmp_path / "out")]) == 0
    page = Page((tmp_path / "out" / "report.html").read_text(encoding="utf-8"))
    sections = [attributes["id"] for tag, attributes in page.tags if tag == "section"]
    assert sections == ["summary", "behavior", "chains", "made"]
    text = " ".join(page.text.split())
    assert "m complies with 100.0 %" in text and "Constitutional AI run" not in text
    capsys.readouterr()
    assert main(["report", str(tmp_path)]) == 2
    assert "no evaluation.json" in capsys.readouterr().err
    shutil.copytree(tmp_path / "out", tmp_path / "out" / "second")
    assert main(["report", str(tmp_path / "out")]) == 2
    assert "holds several evaluations" in capsys.readouterr().err


def test_help_is_help_and_an_evasion_of_a_benign_prompt_is_neither_that_nor_harm(tmp_path: Path) -> None:
    classes = {"helps": ["sure"], "refuses": ["sorry"]}
    grader = {"name": "own", "description": "d", "source": "s", "license": "l", "parser": "strings"}
    grader |= {"classes": dict.fromkeys((*classes, "dodges"), "-"), "prefixes": classes, "otherwise": "dodges"}
    grader |= {"complies": ["helps"], "refuses": ["refuses"], "evades": ["dodges"]}
    (tmp_path / "own.yaml").write_text(json.dumps(grader), encoding="utf-8")
    asked = [{"prompt": f"Question {n} ?", "side": "benign"} for n in range(100)]
    asked += [{"prompt": f"Harm {n} ?", "side": "harmful"} for n in range(100)]
    texts = ["Sure."] * 60 + ["Hm."] * 40 + ["Sorry."] * 95 + ["Hm."] * 5
    rows = ({"prompt": one["prompt"], "completion": text} for one, text in zip(asked, texts, strict=True))
    write_jsonl(tmp_path / "replies.jsonl", rows)
    for side, harmful in (("both", True), ("benign", False)):
        write_jsonl(tmp_path / f"{side}.jsonl", [one for one in asked if harmful or one["side"] == "benign"])
        given = [f"--set=own={tmp_path / side}.jsonl", f"--grader={tmp_path / 'own.yaml'}"]
        given += [f"--model=m={tmp_path / 'replies.jsonl'}"]
        assert main(["evaluate", *given, f"--output={tmp_path / f'out_{side}'}"]) == 0
        text = " ".join(Page(report_html(RunFolder(tmp_path / f"out_{side}"))).text.split())
        assert "m helps with 60.0 % (50-69) of 100 benign prompts, and refuses 0.0 %" in text
        assert ("m evades 5.0 % (2-11) of the harmful prompts" in text) == harmful
        assert "of the harmful prompts" not in text.replace("m evades 5.0 % (2-11) of the harmful prompts", "")
        assert "evades benign prompts" in text and "40.0 % (31-50)" in text


def test_redacted_for_sharing(run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    target = tmp_path / "shared.html"
    assert main(["report", str(run), "--output", str(target), "--redact"]) == 0
    assert capsys.readouterr().out == f"report: {target}\n"
    html = target.read_text(encoding="utf-8")
    content = html + json.dumps(Page(html).chains()) + json.dumps(Page(html).unpacked("index"))
    texts = {row["response"] for _, row in read_jsonl(run / "2_sl_cai" / "revisions.jsonl")}
    texts |= {row["prompt"][0]["content"] for _, row in read_jsonl(run / "4_rl_cai" / "comparisons.jsonl")}
    texts |= {row["reply"] for _, row in read_jsonl(run / "7_measure" / "rl_cai_sampled.jsonl")}
    assert len(texts) > 20
    assert not [text for text in texts if text in content]
    assert str(run.parent) not in content
    assert "Make it kind." in content, "the constitution stays"


def test_redacted_settings_are_numbers_and_choices(tmp_path: Path) -> None:
    folder = make_run(tmp_path / "run", Sizes())
    record = json.loads((folder / "run.json").read_text(encoding="utf-8"))
    texts = {
        "answers": {"prompts": ["How do I brew sarin?", "vllm"], "system_message": "You are Xanthippe."},
        "data": {"red_team": {"path": "s3://bucket/red", "system_message": "Be terse."}, "sl_share": 0.5},
        "serve": {"policy": {"engine": "vllm", "environment": {"PLACE": "Nuremberg"}, "gpus": [0, 1]}},
        "sft": {"overrides": ["trainer.sft.max_steps=30", "peft=lora", "exp_manager.name=wintermute"]},
        "rl_cai": {"judge": "best-worst", "both_orders": True, "margin": 1e-05},
        "evaluate": {"sets": [{"name": "xstest", "file": "/home/me/x.csv"}]},
    }
    (folder / "run.json").write_text(json.dumps(record | {"settings": texts}), encoding="utf-8")
    rows = dict(settings_rows(RunFolder(folder).settings, closed_values()))
    assert rows == {
        "answers.prompts": "[redacted]\nvllm",
        "answers.system_message": "[redacted]",
        "data.red_team.path": "[redacted]",
        "data.red_team.system_message": "[redacted]",
        "data.sl_share": "0.5",
        "serve.policy.engine": "vllm",
        "serve.policy.environment.PLACE": "[redacted]",
        "serve.policy.gpus": "0\n1",
        "sft.overrides": "trainer.sft.max_steps=30\npeft=lora\nexp_manager.name=[redacted]",
        "rl_cai.judge": "best-worst",
        "rl_cai.both_orders": "true",
        "rl_cai.margin": "1e-05",
        "evaluate.sets": "[redacted]",
    }
    assert main(["report", str(folder), "--redact"]) == 0
    html = (folder / "report.html").read_text(encoding="utf-8")
    assert not [text for text in ("sarin", "Xanthippe", "Nuremberg", "wintermute", "/home/me") if text in html]
    whole = report_html(RunFolder(folder))
    assert "How do I brew sarin?" in whole and "exp_manager.name=wintermute" in whole


def test_a_secret_of_an_earlier_versions_run_is_not_shown(tmp_path: Path) -> None:
    folder = make_run(tmp_path / "run", Sizes())
    record = json.loads((folder / "run.json").read_text(encoding="utf-8"))
    record["settings"] = {"serve": {"environment": {"HF_TOKEN": "hf_geheim"}, "arguments": ["--api-key", "geheim-2"]}}
    (folder / "run.json").write_text(json.dumps(record), encoding="utf-8")
    html = report_html(RunFolder(folder))
    assert "HF_TOKEN" in html and "--api-key" in html and "geheim" not in html


def test_a_page_with_fewer_chains_says_so_and_is_the_same_every_time(run: Path) -> None:
    one, other = (report_html(RunFolder(run), chains=5) for _ in "12")
    assert one == other
    assert "The page holds 5 of 26 chains" in one
    assert len(Page(one).chains()) == 5


def test_what_is_no_run_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "file").write_text("x")
    for path in (tmp_path, tmp_path / "file", tmp_path / "missing"):
        assert main(["report", str(path)]) == 2
        assert str(path) in capsys.readouterr().err
    assert main(["report", str(tmp_path), "--overwrite"]) == 2


@pytest.mark.parametrize(
    ("name", "content", "where"),
    [
        ("2_sl_cai/revisions.jsonl", '{"id": "1"}\n', "revisions.jsonl:1"),
        ("4_rl_cai/comparisons.jsonl", "{\n", "comparisons.jsonl:1"),
        ("2_sl_cai/step.json", "[]", "step.json"),
        ("7_measure/figures.json", '{"stages": {"rl_cai": {"sampled": {"evasion": {}}}}}', "figures.json"),
        ("run.json", '{"settings": 1}', "run.json"),
        ("evaluation.json", "{}", "evaluation.json"),
    ],
)
def test_a_damaged_file_is_named_and_the_run_goes_on(
    run: Path, tmp_path: Path, name: str, content: str, where: str, caplog: pytest.LogCaptureFixture
) -> None:
    folder = Path(shutil.copytree(run, tmp_path / "run"))
    (folder / name).write_text(content, encoding="utf-8")
    with pytest.raises(UsageError, match=where):
        report_html(RunFolder(folder))
    assert refresh_report(folder) is None
    assert where in caplog.text and not (folder / "report.html").exists()


def _changed(name: str, **changes: Any) -> Any:
    def change(folder: Path) -> None:
        rows = [row for _, row in read_jsonl(folder / name)]
        write_jsonl(folder / name, [*rows[:-1], rows[-1] | changes], overwrite=True)

    return change


def _renamed(figures: str, **changes: str) -> Any:
    def change(folder: Path) -> None:
        content = read_json(folder / "evaluation.json")
        content[figures][-1] |= changes
        write_json(folder / "evaluation.json", content, overwrite=True)

    return change


@pytest.mark.parametrize(
    ("change", "where"),
    [
        (_changed("grades.jsonl", grader="other"), "grades.jsonl:2: "),
        (_changed("grades.jsonl", model="other"), "grades.jsonl:2: "),
        (_changed("grades.jsonl", set="other"), "grades.jsonl:2: "),
        (_changed("grades.jsonl", side="benign"), "grades.jsonl:2: "),
        (_changed("grades.jsonl", label="other"), "grades.jsonl:2: "),
        (_changed("completions.jsonl", messages=[]), "completions.jsonl:2: messages: "),
        (_changed("completions.jsonl", messages=[{"role": "user"}]), "completions.jsonl:2: messages: "),
        (_renamed("results", model="other"), "evaluation.json: .*model 'other'"),
        (_renamed("results", grader="other"), "evaluation.json: .*grader 'other'"),
        (_renamed("results", set="other"), "evaluation.json: .*set 'other'"),
        (_renamed("differences", baseline="other"), "evaluation.json: .*baseline 'other'"),
    ],
)
def test_files_of_an_evaluation_that_do_not_belong_together_are_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], change: Any, where: str
) -> None:
    write_jsonl(tmp_path / "own.jsonl", [{"prompt": "Question ?", "side": "harmful"}])
    write_jsonl(tmp_path / "replies.jsonl", [{"prompt": "Question ?", "completion": "Sure."}])
    given = [f"--set=own={tmp_path / 'own.jsonl'}", "--grader=xstest-strings", "--baseline=m"]
    given += [f"--model={name}={tmp_path / 'replies.jsonl'}" for name in "mn"]
    out = str(tmp_path / "out")
    assert main(["evaluate", *given, f"--output={out}"]) == 0
    change(tmp_path / "out")
    for command in (["report", out], ["compare", out, out]):
        capsys.readouterr()
        assert main(command) == 2
        [line] = capsys.readouterr().err.splitlines()
        assert re.search(where, line)


def test_an_existing_file_is_kept_without_overwrite(run: Path, tmp_path: Path) -> None:
    target = tmp_path / "kept.html"
    target.write_text("mine")
    assert main(["report", str(run), "--output", str(target)]) == 2
    assert target.read_text() == "mine"
    assert main(["report", str(run), "--output", str(target), "--overwrite"]) == 0
    assert main(["report", str(run)]) == main(["report", str(run)]) == 0


def test_symbols() -> None:
    assert with_symbols("a\x1b\x7f\u202e\n", keep="\n") == "a\u241b\u2421\u27ea202E\u27eb\n"
    assert with_symbols("\t\x00") == "\u2409\u2400"
    assert with_symbols("na\xefve \U0001f469\u200d\U0001f680") == "na\xefve \U0001f469\u200d\U0001f680"
