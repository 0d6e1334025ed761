"""Weights & Biases for AntMMF."""
