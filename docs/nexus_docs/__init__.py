"""The parts of the reference that come from the code: `python -m nexus_docs` writes them anew."""
