"""Tokenizers, text encoders and fusion encoders for AntMMF."""

__version__ = "0.1.0"
