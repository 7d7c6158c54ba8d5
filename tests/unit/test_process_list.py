# SPDX-FileCopyrightText: Copyright (c) 2026, The nemo_aligner_cai authors
# SPDX-License-Identifier: Apache-2.0
import subprocess
import sys
from typing import Any

import pytest

from nemo_aligner_cai.console.secrets import secrets_in, secrets_in_settings

SHOW = """
import sys
from pathlib import Path
from nemo_aligner_cai.console.secrets import hide_secrets
from nemo_aligner_cai.console.printable import redacted

given = list(sys.argv)
hide_secrets()
assert sys.argv == given
print(Path("/proc/self/cmdline").read_bytes().split(bytes(1))[3:-1])
print(redacted(" ".join(given)))
"""
SECRET = "nvapi-geheim-é"
STARS = "*" * len(SECRET.encode())


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="process lists are hidden on Linux only")
@pytest.mark.parametrize(
    ("words", "shown"),
    [
        (["--ngc-api-key", SECRET, "rest"], ["--ngc-api-key", STARS, "rest"]),
        ([f"--ngc-api-key={SECRET}"], [f"--ngc-api-key={STARS}"]),
        (["--ngc-a", SECRET], ["--ngc-a", STARS]),
        ([f"--ngc-api={SECRET}"], [f"--ngc-api={STARS}"]),
        ([f"--api-key={SECRET}"], [f"--api-key={STARS}"]),
        ([f"+logger.wandb.api_key={SECRET}", "a=b"], [f"+logger.wandb.api_key={STARS}", "a=b"]),
        ([f"https://me:{SECRET}@host/v1"], [f"https://***{STARS}@host/v1"]),
        (["--host", f"me:{SECRET}@host"], ["--host", f"***{STARS}@host"]),
        ([f"http://host/v1?api_key={SECRET}&x=1"], [f"http://host/v1?api_key={STARS}&x=1"]),
        ([f'{{"password": "{SECRET}"}}'], [f'{{"password": "{STARS}"}}']),
        ([f"--header=Authorization: Bearer {SECRET}"], [f"--header=Authorization: Bearer {STARS}"]),
    ],
)
def test_c4_a_secret_disappears_from_the_process_list_and_from_messages(words: list[str], shown: list[str]) -> None:
    command = [sys.executable, "-c", SHOW, *words]
    listed, said = subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()
    assert listed == repr([word.encode() for word in shown])
    assert SECRET not in said


@pytest.mark.parametrize(
    "words",
    [
        ["--eos_token", "<extra_id_1>", "--bos_token=<s>"],
        ["--tokens_to_generate", "1024", "--tokens-per-minute=5"],
        ["--judge-api-key-env", "NGC_API_KEY"],
        ["model.tokenizer.library=sentencepiece", "++model.data.eos_token=</s>"],
        ["--num-examples", "3", "--model", "secretary"],
        ["data/me@home.jsonl", "http://host:5656/v1"],
        ["--ngc-api-key", "--resume"],
    ],
)
def test_c4_other_words_are_left_alone(words: list[str]) -> None:
    assert not list(secrets_in(words))


@pytest.mark.parametrize(
    ("settings", "key"),
    [
        ({"environment": {"AWS_SECRET_ACCESS_KEY": SECRET}}, "environment.AWS_SECRET_ACCESS_KEY"),
        ({"environment": {"GITHUB_TOKEN": SECRET}}, "environment.GITHUB_TOKEN"),
        ({"arguments": ["--host", "h", "--api-key", SECRET]}, "arguments"),
        ({"arguments": ("--seed", 1, f"--api-key={SECRET}")}, "arguments"),
        ({"sets": [{"name": "a", "password": SECRET}]}, "sets"),
        ({"overrides": [f"+exp_manager.wandb_logger_kwargs.api_key={SECRET}"]}, "overrides"),
        ({"extra_body": {"headers": {"Authorization": f"Bearer {SECRET}"}}}, "extra_body.headers.Authorization"),
        ({"endpoint": f"https://me:{SECRET}@host/v1"}, "endpoint"),
        ({"preamble": [f"export HF_TOKEN={SECRET}"]}, "preamble"),
        ({"preamble": [f"PGPASSWORD={SECRET} psql", f"export GITHUB_PAT={SECRET}"]}, "preamble"),
        ({"api_keys": [SECRET]}, "api_keys"),
        ({"api_keys": {"openai": SECRET}}, "api_keys.openai"),
        ({"tokens": [SECRET]}, "tokens"),
        ({"passwords": {"database": SECRET}}, "passwords.database"),
        ({"accessKeyId": "A", "secretAccessKey": SECRET}, "secretAccessKey"),
        ({"openaiApiKey": SECRET}, "openaiApiKey"),
        ({"headers": {"Ocp-Apim-Subscription-Key": SECRET}}, "headers.Ocp-Apim-Subscription-Key"),
        ({"headers": [["Authorization", f"Bearer {SECRET}"]]}, "headers"),
        ({"header": f"Bearer {SECRET}"}, "header"),
        ({"connection": f"AccountName=a;AccountKey={SECRET};Endpoint=e"}, "connection"),
        ({"url": f"https://host/file?X-Amz-Signature={SECRET}"}, "url"),
        ({"url": f"https://host/file?sv=1&sig={SECRET}"}, "url"),
        ({"arguments": [f'{{"api_keys": ["{SECRET}"]}}']}, "arguments"),
    ],
)
def test_secrets_in_settings_are_named_by_their_keys(settings: dict[str, Any], key: str) -> None:
    found = list(secrets_in_settings({"section": settings}))
    assert found
    for name, value in found:
        assert name.startswith(f"section.{key}")
        assert SECRET in value


@pytest.mark.parametrize(
    "start", ["sk-", "sk-proj-", "ghp_", "gho_", "github_pat_", "hf_", "nvapi-", "xoxb-", "xoxp-", "glpat-"]
)
def test_the_keys_of_services_are_recognized_by_their_form(start: str) -> None:
    key = start + "aB3" * 10
    assert list(secrets_in_settings({"name": key, "list": [f"--model={key}"]})) == [
        ("name", key),
        *[("list", key)] * 2,
    ]
    assert list(secrets_in(["run", key])) == [(1, 0, len(key))]


def test_a_key_of_aws_is_recognized_by_its_form() -> None:
    assert list(secrets_in_settings({"name": "AKIA" + "B2" * 8})) == [("name", "AKIA" + "B2" * 8)]
    assert not list(secrets_in_settings({"name": "AKIA" + "B2" * 9}))


@pytest.mark.parametrize(
    "settings",
    [
        {"tokens": 5, "usage": {"tokens": [1, 2], "max_tokens": 4096}, "stop_tokens": ["</s>"], "padToken": "<pad>"},
        {"sets": {"data": "sk-en-translation-of-harmless-prompts-v2"}, "model": "hf_llama_2_7b_chat_converted_2024"},
        {"headers": {"Authorization": "Bearer $KEY"}, "api_keys": ["${oc.env:KEY}"], "PWD": "/work", "keys": ["text"]},
        {"key_env": "OPENAI_API_KEY", "secrets": ["NGC_API_KEY"]},
        {"arguments": ["--api-key", "$VLLM_API_KEY"], "preamble": ["export HF_TOKEN=$(cat ~/.token)"]},
        {"overrides": ["+logger.api_key=${oc.env:WANDB_API_KEY}", "model.use_auth_token=true", "+a.api_key=null"]},
        {"preamble": [': "${HF_TOKEN:?not set}"', '[ -n "${WANDB_API_KEY:-}" ] || exit 1', "export HF_TOKEN=`cat f`"]},
        {"preamble": ['[[ "$HF_TOKEN" == "" ]] && exit 1', "[[ ${HF_TOKEN} =~ ^hf_ ]]", '[ "$MY_API_KEY" = x ]']},
        {"mounts": ["/home/me/.cache/huggingface/token:/root/.cache/huggingface/token", "/run/secrets/token:/t:ro"]},
        {"api_key": None, "password": "", "use_auth_token": True},
        {"image": "docker://me@registry.io#nvidia/nemo:24.07", "other": "nemo:24.07@sha256:0a1b"},
        {"max_tokens": 5, "eos_token": "</s>", "environment": {"TOKENIZERS_PARALLELISM": "false"}},
    ],
)
def test_references_and_switches_in_settings_are_not_secrets(settings: dict[str, Any]) -> None:
    assert not list(secrets_in_settings(settings))


RANKS = """
import runpy, sys, types
from pathlib import Path

def torchrun(words):
    print(Path("/proc/self/cmdline").read_bytes().split(bytes(1))[-2].decode(), words[-1])

stub = types.ModuleType("torch.distributed.run")
stub.main = torchrun
sys.modules[stub.__name__] = stub
runpy.run_module("nemo_aligner_cai.training.launch.local_ranks", run_name="__main__")
"""


@pytest.mark.slow
@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="process lists are hidden on Linux only")
def test_c4_torchrun_does_not_show_a_secret_and_passes_it_on() -> None:
    pytest.importorskip("torch")
    command = [sys.executable, "-c", RANKS, "-m", "module", "+logger.api_key=geheim-12"]
    shown = subprocess.run(command, capture_output=True, text=True, check=True).stdout.split()
    assert shown == ["+logger.api_key=*********", "+logger.api_key=geheim-12"]
