"""`python -m icl_mech.progressive`: how many answer tokens need the demonstrations?"""

from collections.abc import Sequence

from icl_mech.cli import room_main


def main(argv: Sequence[str] | None = None) -> None:
    """Run the subcommand `progressive`."""
    room_main("progressive", argv)


if __name__ == "__main__":
    main()
