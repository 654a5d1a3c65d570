"""Parts of error messages that several modules need."""


def shortened(value):
    """A value as text of at most 60 characters, so that an error stays readable."""
    text = str(value)
    return text if len(text) <= 60 else f"{text[:57]}..."
