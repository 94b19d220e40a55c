"""`python -m icl_mech.answers`: whole answers, and whether conclusions change with the score."""

from collections.abc import Sequence

from icl_mech.cli import room_main


def main(argv: Sequence[str] | None = None) -> None:
    """Run the subcommand `answers`."""
    room_main("answers", argv)


if __name__ == "__main__":
    main()
