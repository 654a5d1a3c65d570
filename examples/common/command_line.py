"""Checks of the command line, so that what is missing is said before anything is trained."""

import argparse
import importlib
import tempfile


def whole_number(least):
    """A parser of whole numbers of `least` or more for `argparse`."""

    def parse(text):
        value = int(text)
        if value < least:
            raise argparse.ArgumentTypeError(f"received {value}, expected {least} or more")
        return value

    parse.__name__ = "whole number"  # argparse names it where the text is no number at all
    return parse


def require(parser, output, *modules):
    """End with a message if the output folder or a module that is used later is not there.

    Args:
        parser: The `argparse.ArgumentParser` that reports the error.
        output: `pathlib.Path` of the output folder; it is made if it is missing.
        *modules: Names of modules.
    """
    for name in modules:
        try:
            importlib.import_module(name)
        except ImportError as error:
            parser.error(f'{error}. Install what the examples need: pip install -e ".[all]"')
    try:
        output.mkdir(parents=True, exist_ok=True)
        tempfile.TemporaryFile(dir=output).close()
    except OSError as error:
        parser.error(f"--output: cannot write to {output} ({error}). Name another folder")
