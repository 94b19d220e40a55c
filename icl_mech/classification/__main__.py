"""`python -m icl_mech.classification`: tasks with a few labels, class by class."""

from collections.abc import Sequence

from icl_mech.cli import room_main


def main(argv: Sequence[str] | None = None) -> None:
    """Run the subcommand `classify`."""
    room_main("classification", argv)


if __name__ == "__main__":
    main()
