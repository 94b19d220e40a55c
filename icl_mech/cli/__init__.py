"""The command line: `icl-mech <command>`, and `python -m icl_mech.<room>` with the same options."""

from icl_mech.cli.main import main, room_main

__all__ = ["main", "room_main"]
