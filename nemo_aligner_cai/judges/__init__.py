# SPDX-FileCopyrightText: Copyright (c) 2026, The nemo_aligner_cai authors
# SPDX-License-Identifier: Apache-2.0
"""The strategies behind `generate.judge.Judge`; `components.py` names them for the command line.

best_worst.py         the whole constitution, the best and the worst of all candidates (what upstream's script asks)
multiple_choice.py    one principle, two candidates, (A) or (B) by log-probabilities or votes
chain_of_thought.py   the same with reasoning first
ensemble.py           several principles for each pair, averaged
pair_judge.py         what the last three have in common: pairs, both orders, margin
pairs.py              which of N candidates are compared
parse.py              reading an answer, strictly
few_shots.py          examples for the judge
settings.py           what a strategy can be told
"""
