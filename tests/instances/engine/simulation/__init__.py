"""The engine under virtual time, with everything that can go wrong around it, by the seed.

`python -m tests.instances.engine.simulation --seed 7` tells the life of seed 7.
"""
