"""Fault runs: `python3 manage.py faults`. Real servers, real faults, and a checker that believes
nobody: it compares what clients were told, what the outside world saw and what is stored."""
