"""The JEPA term, axis by axis; OBJECTIVES.md has the formulas, their sources and what to expect of them.

layouts, in_sequence    what is encoded, and which tokens' states are read
predictors              trained maps of the source state
ema                     the averaged weights of a separate target encoder
distances               how far apart two states are, pair by pair
regularisers            terms that keep the states of a step from collapsing
schedules               the term's weight at a step, and whether it is skipped
"""
