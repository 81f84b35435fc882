"""Benchmarks of training steps, encryption, input and loading; one file a section."""
