#!/bin/sh
# -I: neither the current folder nor the user's own settings are a place to import from.
exec @HOME@/current/bin/python -I -m @MODULE@ "$@"
