"""Evaluation of models: measures, their files, and the choice of the best weights."""
