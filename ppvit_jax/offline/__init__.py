"""Encrypting or decrypting many images into lossless files, on the owner's machine or as a Beam pipeline."""
