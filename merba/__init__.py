"""merba: micro-expression recognition with MERba, from raw video to the tables of the paper."""

from importlib import import_module

__version__ = "0.1.0"

# Names are imported when first used: `import merba` needs neither torch nor OpenCV.
_HOME = {
    "MERba": "merba.models.merba",
    "create_model": "merba.models",
    "list_models": "merba.models",
    "predict": "merba.prediction.predict",
    "selective_scan": "merba.scan",
    "window_scan": "merba.scan",
}
__all__ = ["__version__", *_HOME]


def __getattr__(name: str):
    if name not in _HOME:
        raise AttributeError(f"module 'merba' has no attribute {name!r}")
    return getattr(import_module(_HOME[name]), name)


def __dir__() -> list[str]:
    return sorted(__all__)
