"""Combinations of perturbations, `A+B`: predicted from their members and from other combinations, in one covariance.

The effect of a combination is taken for a multiple of the sum of its members' plus what is its own, so that it is a
linear function of the effects that co-kriging (`kriging`) is about, and all conditions, single ones and combinations,
support one another: a member that was never measured alone is known by the combinations that it is part of. Prediction
is the regression of Rasmussen and Williams (2006), section 2.2, on linear functions of the process (section 9.8).

Read it in this order: `members` (which names are combinations), `covariances` (what a rule makes of single conditions),
`measured` (measured combinations, and the rule that they teach), `answers` (predictions, and what speaks for them),
`asked` (what a fitted engine says of them).
"""
