"""A fleet on one machine, of real parts: `make demo` keeps it running, `make smoke` proves it."""
