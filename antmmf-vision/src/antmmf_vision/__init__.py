"""Video and image input and visual encoders for AntMMF."""

__version__ = "0.1.0"
