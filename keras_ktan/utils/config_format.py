"""The version of what a saved distiller holds, so that an unknown file is an error."""

# Raised by the commit that changes what is saved.
FORMAT = 1
_KEY = "format"


def with_format(config):
    """A config with the version of its format."""
    return {_KEY: FORMAT, **config}


def without_format(config, known, what):
    """A config without its version, when this version of the package can read it.

    Args:
        config: Dict that `with_format` made.
        known: The keys that this version of the package knows.
        what: What the config is of, for the error.

    Returns:
        A dict.

    Raises:
        ValueError: If it was written in another format, or holds an unknown key.
    """
    config = dict(config)
    found = config.pop(_KEY, None)
    unknown = sorted(set(config) - set(known))
    if found != FORMAT or unknown:
        keys = f" and the unknown keys {unknown}" if unknown else ""
        raise ValueError(
            f"Received the config of {what} in format {found!r}{keys}. Expected format {FORMAT} "
            "with the keys of this version of keras_ktan. Load the file with the version that "
            "wrote it, or train again."
        )
    return config
