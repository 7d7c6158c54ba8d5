# SPDX-FileCopyrightText: Copyright (c) 2026, The nemo_aligner_cai authors
# SPDX-License-Identifier: Apache-2.0
"""Judge strategies; `registry.py` maps their command-line names to functions from `JudgeSettings` to `Judge`.

base.py               the protocol of a judge, its inputs and outputs, and the names of its counts
settings.py           the configuration of a judge, and the settings that a strategy receives
best_worst.py         the whole constitution, the best and the worst of all candidates (what upstream's script asks)
multiple_choice.py    one principle, two candidates, (A) or (B) by log-probabilities or votes
chain_of_thought.py   the same with reasoning first
ensemble.py           several principles per pair, averaged
options_judge.py      any number of short answers, for the paper's classification items
pair_judge.py         the base of the pairwise strategies: pairs, both orders, margin
pairs.py              the selection of pairs among N candidates
parse.py              strict parsing of answers
few_shot.py           examples before the question
prompts.py            named prompt templates
steps.py              a prompt with its candidates, and the judge's turns as steps of the engine
"""
