"""Benchmarks of training steps, encryption, input and loading; each section has one file."""
