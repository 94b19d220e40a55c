"""`python -m icl_mech.sweep`: many models, measures and tasks."""

from collections.abc import Sequence

from icl_mech.cli import room_main


def main(argv: Sequence[str] | None = None) -> None:
    """Run the subcommand `sweep`."""
    room_main("sweep", argv)


if __name__ == "__main__":
    main()
