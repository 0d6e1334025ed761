"""Data sets, tasks, losses, metrics and recipes for AntMMF."""

__version__ = "0.1.0"
