"""Fuzzing: commands on small valid files that are damaged at random must print one line, or do what they should.

Command:  python -m tests.fuzz --count 10000 --seed 0
"""
