"""`python -m nexus_agent.cli`, where the command is not on the path."""

from nexus_agent.cli.commands import main

main(prog_name="nexus")
