import cascade


def test_public_names() -> None:
    assert cascade.__all__ == [
        "Bundle", "BundleError", "Cascade", "CascadeError", "DataError", "Decision", "ErrorInfo",
        "ImageError", "MissingExtraError", "OperatingPoint", "Opinion", "OutputError", "Prediction",
        "RecipeError", "UsageError", "__version__", "decide",
    ]  # fmt: skip
    assert all(hasattr(cascade, name) for name in cascade.__all__)
