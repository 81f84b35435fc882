"""Fine-tuning: the all-in-one experiment, the training loop, and the compiled steps."""
