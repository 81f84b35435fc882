"""The attacks of the audit, one file each."""
