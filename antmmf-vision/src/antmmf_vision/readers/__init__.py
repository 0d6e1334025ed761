"""Readers: a file and a choice of frames in, pixels out."""
