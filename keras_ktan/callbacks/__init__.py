"""Callbacks for `KTANDistiller.fit`."""
