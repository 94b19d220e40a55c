"""`python -m icl_mech.knowledge`: which answer wins, the one shown or the one known?"""

from collections.abc import Sequence

from icl_mech.cli import room_main


def main(argv: Sequence[str] | None = None) -> None:
    """Run the subcommand `knowledge`."""
    room_main("knowledge", argv)


if __name__ == "__main__":
    main()
