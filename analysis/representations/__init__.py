"""What networks make of classes: geometry, agreement with joint training, drift over the tasks.

The analyses of EDD (Moon and Cho, 2025, arXiv:2511.09871, appendices A.6 and B) on the features
that trials store (`analysis.records`): `compare` for its Figure 6, `alignment` for Figure 7 and
`displacement` for Figure A.1. What they are made of, functions of plain arrays, is in
`class_measures`, `agreement` and `drift`.
"""

from analysis.representations.tables import alignment, compare, displacement

__all__ = ["alignment", "compare", "displacement"]
