"""Functions and arguments that several commands share; none of these modules is a command."""
