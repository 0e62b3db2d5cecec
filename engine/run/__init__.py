"""Runs a whole copy of Laisee on one machine: real servers from wheels, processes, supervision.

`python -m engine.run up` is what `make run` calls. Nothing here imports Django, so that the
launcher can say clearly what is wrong before anything else is loaded. The invariant it keeps: a
process started here never outlives its supervisor, whichever way the supervisor ends.
"""
