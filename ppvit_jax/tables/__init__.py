"""What `ppvit reproduce` measures, one file a table."""
