"""A module that cannot be imported, as one with a bug at its top."""

raise ZeroDivisionError("a bug at the top of a module")
