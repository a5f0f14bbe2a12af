"""What the JEPA term is, axis by axis; OBJECTIVES.md has the formulas, their sources and what to expect of them.

layouts, in_sequence    what is encoded, and which tokens' states are read
predictors              a trained map of the source state
ema                     the averaged weights that a target encoder of its own has
distances               how far apart two states are, pair by pair
regularisers            what keeps the states of a step from collapsing
schedules               how much the term counts at a step, and whether it is skipped
"""
