# Copyright (c) 2026, The nemo_aligner_cai authors.
#
# Licensed under the Apache License, Version 2.0 (the "License");
# you may not use this file except in compliance with the License.
# You may obtain a copy of the License at
#
#     http://www.apache.org/licenses/LICENSE-2.0
#
# Unless required by applicable law or agreed to in writing, software
# distributed under the License is distributed on an "AS IS" BASIS,
# WITHOUT WARRANTIES OR CONDITIONS OF ANY KIND, either express or implied.
# See the License for the specific language governing permissions and
# limitations under the License.
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
