"""`python -m icl_mech.table`: baseline, hypothesis and regular accuracy for all tasks."""

from collections.abc import Sequence

from icl_mech.cli import room_main


def main(argv: Sequence[str] | None = None) -> None:
    """Run the subcommand `table`."""
    room_main("table", argv)


if __name__ == "__main__":
    main()
