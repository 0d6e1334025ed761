"""Nothing but the one command of the first AntMMF that its scripts call: ``python -m antmmf.utils.launch``."""
