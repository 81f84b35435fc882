"""Measures what attacks recover from the files that the cloud is given."""
