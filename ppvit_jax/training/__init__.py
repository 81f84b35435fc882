"""Fine-tuning: the experiment in one process, the loop, and the compiled step."""
