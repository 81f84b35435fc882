"""Permuting many images into lossless files, on the owner's machine: what goes in, how, and what comes out."""
