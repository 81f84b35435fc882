"""Solvers of the audit's attacks: pure functions of what the attacker has, and never of a key."""
