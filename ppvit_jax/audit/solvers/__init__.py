"""Solvers of the audit's attacks: pure functions of the attacker's data, never of a key."""
