"""Labeled images in files of other programs: CSV lists, Parquet, and WebDataset's tar files."""
