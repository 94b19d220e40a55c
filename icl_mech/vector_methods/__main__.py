"""`python -m icl_mech.vector_methods`: every way to get a task vector, side by side."""

from collections.abc import Sequence

from icl_mech.cli import room_main


def main(argv: Sequence[str] | None = None) -> None:
    """Run the subcommand `vectors`."""
    room_main("vector_methods", argv)


if __name__ == "__main__":
    main()
