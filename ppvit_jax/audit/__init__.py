"""Attacks on the encryptions, one file each: pure solvers that are given what the attacker has, and never a key."""
